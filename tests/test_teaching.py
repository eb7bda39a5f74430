import jax
import numpy as np
import pytest

from lpcam_jax.prototype_activation import lpcam
from lpcam_jax.systems.lpcam.teaching import blank_lesson, soft_seeds, teach, teaching_loss
from lpcam_jax.systems.lpcam.teaching_stage import choose_pictures, target_of

C, D = 2, 8


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def planted():
    """Pictures of several sizes whose left columns show a head and a body, the others grass; two scales."""
    rng = np.random.default_rng(0)
    parts = np.abs(rng.normal(size=(C, 2, D)))
    grass = np.abs(rng.normal(size=D))
    sizes = [tuple(rng.integers(4, 8, 2).tolist()) for _ in range(12)]
    lesson = blank_lesson([*sizes, (9, 9)], (1, 2), stride=1, classes=C, dimension=D)  # the last cannot be read
    for number, (h, w) in enumerate(sizes):
        n = number % C
        edge = w // 2
        labels = np.zeros((h, w), int)
        labels[:, :edge] = n + 1
        scales = []
        for factor in (1, 2):
            field = np.abs(rng.normal(size=(factor * h, factor * w, D)) * 0.2) + grass
            field[: factor * h // 2, : factor * edge] += parts[n, 0] - grass
            field[factor * h // 2 :, : factor * edge] += parts[n, 1] - grass
            scales.append(unit(field).astype(np.float16))
        lesson.write(number, scales, np.arange(C) == n, np.eye(1 + C, dtype=np.float32)[labels])
    return parts, lesson


def test_the_seed_of_a_padded_picture_is_that_of_its_maps_alone(planted):
    parts, lesson = planted
    seeds = np.asarray(soft_seeds(parts[:, 0].astype(np.float32), lesson))
    np.testing.assert_allclose(seeds.sum(axis=-1), 1, atol=1e-6)
    for number, of_picture in enumerate(lesson.targets[:-1]):
        h, w = (of_picture.sum(axis=-1) > 0).nonzero()
        h, w, n = h.max() + 1, w.max() + 1, number % C
        fine = np.asarray(lpcam(lesson.features[1][number, : 2 * h, : 2 * w].astype(np.float32), unit(parts[:, 0])))
        coarse = np.asarray(lpcam(lesson.features[0][number, :h, :w].astype(np.float32), unit(parts[:, 0])))
        # A bilinear resize to half the size is the mean of four.
        summed = (coarse + fine.reshape(h, 2, w, 2, C).mean(axis=(1, 3)))[..., n]
        odds = np.exp((summed / (summed.max() + 1e-5) - 0.35) / 0.08)
        np.testing.assert_allclose(seeds[number, :h, :w, 1 + n], odds / (1 + odds), atol=2e-3)
        assert not seeds[number, ..., 2 - n].any()


def test_a_direction_that_knew_the_head_learns_the_body(planted):
    parts, lesson = planted
    heads = parts[:, 0].astype(np.float32)
    taught = teach(heads, lesson, steps=150, batch=8)
    np.testing.assert_allclose(np.linalg.norm(taught, axis=1), 1, atol=1e-5)
    assert teaching_loss(taught, lesson) < 0.6 * teaching_loss(heads, lesson)
    body = np.asarray(soft_seeds(taught, lesson))[lesson.targets[..., 1:].sum(axis=-1) > 0][:, 1:].sum(axis=-1)
    assert (body > 0.5).mean() > 0.9


def test_the_loss_is_the_soft_jaccard_index_of_what_is_known(planted):
    parts, lesson = planted
    heads = parts[:, 0].astype(np.float32)
    half = lesson.targets.copy()
    half[:, 0] = 0  # the first row of every picture is unknown
    known = half.sum(axis=-1) > 0
    seeds, targets = np.asarray(soft_seeds(heads, lesson), float)[known], half[known]
    index = [(p @ y) / (p + y - p * y).sum() for p, y in zip(seeds.T, targets.T, strict=True)]
    np.testing.assert_allclose(teaching_loss(heads, lesson._replace(targets=half)), 1 - np.mean(index), rtol=1e-5)


def test_lengths_have_no_influence_and_what_cannot_learn_stays(planted):
    parts, lesson = planted
    heads = parts[:, 0].astype(np.float32)
    np.testing.assert_allclose(teach(7 * heads, lesson, steps=3), teach(heads, lesson, steps=3), atol=1e-5)
    no_second = lesson._replace(
        present=lesson.present & np.array([True, False]), targets=lesson.targets * np.float32([1, 1, 0])
    )
    np.testing.assert_allclose(teach(heads, no_second, steps=3)[1], unit(heads[1]), atol=1e-6)
    zero = teach(heads * np.float32([[1], [0]]), lesson, steps=3)
    assert np.isfinite(zero).all()
    assert not zero[1].any()


@pytest.mark.rest
def test_a_picture_that_was_never_written_is_not_learned_from(planted):
    parts, lesson = planted
    heads = parts[:, 0].astype(np.float32)
    gradient = jax.grad(teaching_loss)
    without = gradient(heads, jax.tree.map(lambda leaf: leaf[:-1], lesson))
    assert np.abs(without).max() > 1e-3
    np.testing.assert_allclose(gradient(heads, lesson), without, atol=1e-7)


def test_the_same_seed_teaches_the_same(planted):
    parts, lesson = planted
    once, again, other = (teach(parts[:, 0], lesson, steps=5, batch=4, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_the_loss_exports_for_every_platform(planted):
    _, lesson = planted
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lesson)
    step = jax.jit(jax.value_and_grad(teaching_loss))
    jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(jax.ShapeDtypeStruct((C, D), np.float32), shapes)


def test_targets_are_shares_and_the_edge_of_the_picture_is_partly_unknown():
    labels = np.zeros((6, 4), int)
    labels[:2] = 1
    labels[4:, 2:] = 2
    expected = np.zeros((2, 1, 3))
    expected[0, 0] = [0.5, 0.5, 0]
    expected[1, 0] = [0.25, 0, 0.25]  # of the second block only the upper half is picture
    np.testing.assert_array_equal(target_of(labels, 3, stride=4), expected)


def test_pictures_of_rare_classes_are_chosen_and_none_twice():
    labels = np.zeros((100, 3))
    labels[:, 0] = 1
    labels[[7, 8], 1] = 1
    labels[50, :] = 0
    chosen = choose_pictures(labels, 10, seed=0)
    assert len(chosen) == len(set(chosen)) == 10
    assert {7, 8} <= set(chosen)
    assert chosen == sorted(chosen)
    assert choose_pictures(labels, 10, seed=0) == chosen
    assert len(choose_pictures(labels, 1000, seed=0)) == 99
