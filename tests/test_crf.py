"""The fully connected CRF: beside NumPy, by its symmetries, on pictures whose answer is known, and on real ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from real_data import ANIMALS, needs
from reference import numpy_crf

from lpcam_jax.refine.crf import CRF, CRFS, bilateral_lattice, label_unary, mean_field, softmax_unary
from lpcam_jax.refine.permutohedral import gaussian_sums, permutohedral_lattice, with_rows

HEIGHT, WIDTH, LABELS = 24, 30, 3
RIGHT = np.broadcast_to(np.arange(WIDTH)[None] >= 13, (HEIGHT, WIDTH))
# Of small pictures the kernels have to be small as well, or all pixels are one.
SMALL = CRF(gaussian_size=1.5, gaussian_weight=2.0, bilateral_size=8.0, bilateral_color=20.0, bilateral_weight=4.0)
both = pytest.mark.parametrize("exact", [False, True])


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Noise on two flat halves."""
    flat = np.where(RIGHT[..., None], [60, 120, 180], [200, 60, 40])
    return np.clip(flat + np.random.default_rng(0).normal(0, 12, flat.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def unary() -> np.ndarray:
    """Two unaries: the halves, one label each, under more noise than signal; and noise alone."""
    scores = np.random.default_rng(1).normal(0, 1.5, (2, HEIGHT, WIDTH, LABELS))
    scores[0] += np.stack([~RIGHT, RIGHT, np.zeros_like(RIGHT)], axis=-1)
    return softmax_unary(np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def padded(picture, unary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rubbish below and to the right, and a label that is impossible: image, energies, size."""
    random = np.random.default_rng(2)
    image = random.integers(0, 256, (HEIGHT + 8, WIDTH + 5, 3), np.uint8)
    energies = random.uniform(0, 9, (2, *image.shape[:2], LABELS + 1)).astype(np.float32)
    energies[:, -1, -1] = np.nan
    image[:HEIGHT, :WIDTH], energies[:, :HEIGHT, :WIDTH, :LABELS] = picture, unary
    energies[..., LABELS] = np.inf
    return image, energies, np.array([HEIGHT, WIDTH], np.int32)


def in_numpy(picture, unary, parameters) -> np.ndarray:
    return np.stack(
        [numpy_crf.dense_crf(picture, np.moveaxis(one, -1, 0), *parameters).transpose(1, 2, 0) for one in unary]
    )


@pytest.mark.parametrize("parameters", [SMALL, CRFS["edam"]])
def test_all_pairs_are_those_of_numpy(picture, unary, parameters):
    q = mean_field(picture, unary, parameters, exact=True)
    assert q.dtype == jnp.float32
    np.testing.assert_allclose(q, in_numpy(picture, unary, parameters), atol=2e-5)


@pytest.mark.parametrize("name", ["small", *CRFS])
def test_the_lattice_gives_the_labels_of_numpy(picture, unary, name):
    parameters = CRFS.get(name, SMALL)
    q, expected = mean_field(picture, unary, parameters), in_numpy(picture, unary[:1], parameters)
    assert np.mean(q[0].argmax(axis=-1) == expected[0].argmax(axis=-1)) > 0.96
    assert np.mean(np.abs(q[0] - expected[0])) < 0.03


@pytest.mark.parametrize("d", [2, 5])
def test_sums_over_the_lattice_are_gaussian_up_to_a_factor(d):
    points = np.random.default_rng(0).uniform(0, 2.5, (800, d)).astype(np.float32)
    values = points[:, :1] ** 2

    @jax.jit
    def mean(points):
        lattice = permutohedral_lattice(points, jnp.ones(len(points), bool))
        weighted = jnp.concatenate([values, jnp.ones_like(values)], axis=1)
        sums = with_rows(lattice, lambda rows: gaussian_sums(rows, weighted))
        return sums[:, :1] / sums[:, 1:]

    kernel = numpy_crf.kernel(points)
    expected = kernel @ values / kernel.sum(axis=1, keepdims=True)
    assert np.abs(mean(points) - expected).mean() < 0.1 * np.ptp(expected)
    assert np.corrcoef(mean(points)[:, 0], expected[:, 0])[0, 1] > 0.98


def test_points_far_away_and_their_order_have_no_influence_on_sums():
    """Of points some of which share corners of the lattice, while others hardly do."""
    random = np.random.default_rng(0)
    groups = [random.uniform(0, spread, (400, 5)) + distance for spread, distance in ((1, 0), (20, 60))]
    points, values = np.concatenate(groups).astype(np.float32), random.uniform(1, 2, (800, 2)).astype(np.float32)

    @jax.jit
    def sums(points, values):
        lattice = permutohedral_lattice(points, jnp.ones(len(points), bool))
        return with_rows(lattice, lambda rows: gaussian_sums(rows, values))

    order = random.permutation(800)
    together = np.asarray(sums(points[order], values[order]))[np.argsort(order)]
    alone = [sums(points[part], values[part]) for part in (slice(400), slice(400, None))]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4)


@both
def test_without_an_iteration_it_is_the_softmax_of_the_energies(picture, unary, exact):
    q = mean_field(picture, unary, SMALL._replace(iterations=0), exact=exact)
    np.testing.assert_allclose(q, jax.nn.softmax(-unary), atol=1e-6)


@both
def test_probabilities_sum_to_one_and_follow_their_labels_and_unaries(picture, unary, exact):
    q = mean_field(picture, unary, SMALL, exact=exact)
    np.testing.assert_allclose(q.sum(axis=-1), 1, atol=1e-5)
    swapped = mean_field(picture, unary[::-1, ..., [2, 0, 1]], SMALL, exact=exact)
    np.testing.assert_allclose(swapped[::-1], q[..., [2, 0, 1]], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_picture_has_mirrored_probabilities(picture, unary, axis):
    q = mean_field(picture, unary, SMALL, exact=True)
    mirrored = mean_field(np.flip(picture, axis), np.flip(unary, axis + 1), SMALL, exact=True)
    np.testing.assert_allclose(np.flip(mirrored, axis + 1), q, atol=2e-5)


@both
def test_in_double_precision_it_gives_the_same_in_single(picture, unary, exact):
    single = mean_field(picture, unary, SMALL, exact=exact)
    with jax.enable_x64(True):
        double = mean_field(picture, unary.astype(np.float64), SMALL, exact=exact)
    assert double.dtype == np.float32
    np.testing.assert_allclose(double, single, atol=2e-5)


@both
def test_padding_and_an_impossible_label_have_no_influence(picture, unary, padded, exact):
    image, energies, size = padded
    alone = mean_field(picture, unary, SMALL, exact=exact)
    for impossible in (np.inf, 1e9):
        energies = np.where(np.arange(LABELS + 1) == LABELS, np.float32(impossible), energies)
        q = mean_field(image, energies, SMALL, size=size, exact=exact)[:, :HEIGHT, :WIDTH]
        np.testing.assert_allclose(q[..., :LABELS], alone, atol=1e-5)
        assert not q[..., LABELS].any()


@both
def test_pictures_in_a_batch_are_those_alone(padded, exact):
    image, energies, size = padded
    noise = np.random.default_rng(3).integers(0, 256, image.shape, np.uint8)  # hardly two of its pixels share a corner
    images, unaries = np.stack([image, noise]), np.stack([energies, np.nan_to_num(energies)])
    sizes = np.stack([size, np.array(image.shape[:2], np.int32)])

    def alone(image, unary, size):
        return mean_field(image, unary, SMALL, size=size, exact=exact)

    batch = jax.vmap(alone)(images, unaries, sizes)
    for q, *one in zip(batch, images, unaries, sizes, strict=True):
        rows, columns = one[-1]
        np.testing.assert_allclose(q[:, :rows, :columns], alone(*one)[:, :rows, :columns], atol=1e-5)


@pytest.mark.parametrize(("spread", "room"), [(0, 0), (16, 1), (40, 2)])
def test_within_a_compiled_function_it_gives_the_same(unary, spread, room):
    """Whatever the lattice needs room for: pixels that all share corners, some of them, and noise."""
    flat = np.random.default_rng(0).normal(128, spread, (HEIGHT, WIDTH, 3))
    picture = np.clip(flat, 0, 255).astype(np.uint8)
    lattice = bilateral_lattice(picture, SMALL, np.array(picture.shape[:2]))
    assert sum(lattice.needed > capacity for capacity in lattice.capacities) == room
    np.testing.assert_array_equal(jax.jit(mean_field)(picture, unary, SMALL), mean_field(picture, unary, SMALL))


def test_a_batch_runs_for_one_size_of_the_lattice(padded):
    """Not for each of them, as a batch of conditionals would."""
    image, energies, _ = padded
    batch = jax.jit(jax.vmap(mean_field)).lower(np.stack([image, image]), np.stack([energies, energies]))
    assert "stablehlo.case" in batch.as_text()


@both
def test_wrong_seeds_are_put_right_up_to_the_edge(exact):
    """Two colours; one seed has a spot of the other label, one spills over the edge."""
    image = np.where(RIGHT[..., None], [60, 120, 180], [200, 60, 40]).astype(np.uint8)
    seeds = np.stack([RIGHT, RIGHT]).astype(np.int32)
    seeds[0, 4:6, 4:6] = 1
    seeds[1, 10:16, 13:15] = 0
    q = mean_field(image, label_unary(seeds, LABELS), CRFS["irn"], exact=exact)
    np.testing.assert_array_equal(q.argmax(axis=-1), np.stack([RIGHT, RIGHT]))


def test_a_flat_picture_is_smoothed_by_places_alone(unary):
    """Whatever the colour is, and however colours are scaled."""
    dark, bright = np.full((2, HEIGHT, WIDTH, 3), 7, np.uint8) + np.array([0, 243], np.uint8)[:, None, None, None]
    one = mean_field(dark, unary, SMALL, exact=True)
    other = mean_field(bright, unary, SMALL._replace(bilateral_color=1.0), exact=True)
    np.testing.assert_allclose(one, other, atol=2e-5)


@both
def test_a_picture_of_one_pixel_and_one_label(exact):
    image = np.zeros((1, 1, 3), np.uint8)
    np.testing.assert_array_equal(mean_field(image, label_unary(np.zeros((1, 1), int), 1), exact=exact), [[[1]]])


def test_energies_of_labels_are_those_of_numpy():
    labels = np.random.default_rng(0).integers(0, 4, (2, 5, 6))
    energies = label_unary(labels, 4, certainty=0.6)
    assert energies.dtype == np.float32
    expected = [np.moveaxis(numpy_crf.unary_from_labels(one, 4, 0.6), 0, -1) for one in labels]
    np.testing.assert_allclose(energies, np.stack(expected), rtol=1e-6)
    np.testing.assert_allclose(label_unary(jnp.asarray(labels), 4, certainty=0.6), energies, rtol=1e-6)


def test_an_unsure_pixel_prefers_no_label():
    assert np.ptp(label_unary(np.array([[255]]), 3)) == 0


def test_energies_of_probabilities_are_those_of_numpy():
    probabilities = np.array([[[0.0, 1e-7, 0.25, 1.0]]], np.float32)
    energies = softmax_unary(probabilities)
    assert energies.dtype == np.float32
    np.testing.assert_allclose(energies, numpy_crf.unary_from_softmax(probabilities), rtol=1e-5, atol=1e-7)


def test_sizes_that_differ_are_told(picture, unary):
    with pytest.raises(ValueError, match=r"image \(24, 29, 3\) and energies \(2, 24, 30, 3\)"):
        mean_field(picture[:, :-1], unary)


@both
def test_it_lowers_for_every_device(picture, unary, exact):
    program = jax.jit(mean_field, static_argnames="exact")
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(picture, unary, SMALL, exact=exact)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@needs(ANIMALS)
@pytest.mark.parametrize("name", ["irn", "psa", "deeplabv2"])
def test_on_photographs_the_lattice_gives_the_labels_of_all_pairs(name):
    """One of them, small, with its true mask, made coarse, as seed."""
    one = (ANIMALS / "train.txt").read_text().split()[0]
    image = Image.open(ANIMALS / "JPEGImages" / f"{one}.jpg").convert("RGB").resize((64, 48))
    mask = Image.open(ANIMALS / "SegmentationClassAug" / f"{one}.png").resize((8, 6), Image.Resampling.NEAREST)
    labels = np.asarray(mask.resize(image.size, Image.Resampling.NEAREST)) > 0
    energies = label_unary(labels.astype(np.int32), 2)
    q, expected = (mean_field(np.asarray(image), energies, CRFS[name], exact=exact) for exact in (False, True))
    assert np.mean(q.argmax(axis=-1) == expected.argmax(axis=-1)) > 0.98
