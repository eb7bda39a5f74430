"""The package equals `reference/torch_irn.py`, the reference's losses in plain torch, in values and gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import confident_labels, ir_labels, seed_mask
from lpcam_jax.refine.paths import reach, search_paths, window
from lpcam_jax.systems.irn.losses import affinity_loss, displacement_loss
from lpcam_jax.systems.pairs import pair_targets

RADIUS, CLASSES = 5, 3
PATHS = search_paths(RADIUS)
SIZE = (2, 12, 15)


@jax.jit
def losses(edges, displacements, labels):
    return (
        affinity_loss(edges, labels, PATHS, classes=CLASSES),
        displacement_loss(displacements, labels, PATHS, classes=CLASSES),
    )


def scene(seed):
    """Random edges and displacements, and labels in blocks with unsure and unknown ones among them."""
    rng = np.random.default_rng(seed)
    edges = rng.uniform(0.01, 0.99, SIZE).astype(np.float32)
    displacements = rng.normal(0, 2, (*SIZE, 2)).astype(np.float32)
    blocks = rng.choice([0, 1, 2, 3, 4, 255], (SIZE[0], 4, 5), p=[0.35, 0.2, 0.15, 0.1, 0.05, 0.15])
    labels = blocks.repeat(3, axis=1).repeat(3, axis=2).astype(np.int32)
    return edges, displacements, labels


# Labels.


def test_ir_labels_exact_small_example():
    sure, possible = np.array([[0, 0, 2, 1]]), np.array([[0, 3, 2, 0]])
    result = ir_labels(sure, possible)
    assert result.tolist() == [[0, 255, 2, 1]]
    assert result.dtype == np.int32
    assert isinstance(result, np.ndarray)
    assert jax.jit(ir_labels)(sure, possible).tolist() == result.tolist()


def test_ir_labels_of_two_seeds_are_the_confident_labels():
    maps, present = np.random.default_rng(0).random((2, 8, 9, 3), dtype=np.float32), np.ones((2, 3))
    high, low = (seed_mask(maps, present, background=threshold) for threshold in (0.8, 0.4))
    np.testing.assert_array_equal(ir_labels(high, low), confident_labels(maps, present, foreground=0.8, background=0.4))


# Pairs.


def test_pairs_exact_small_example():
    source, partner = jnp.array([[0, 0, 1, 2, 1, 255]]), jnp.array([[0, 1, 1, 1, 255, 255]])
    targets = pair_targets(source, partner, classes=2)
    assert targets.background.tolist() == [[True, False, False, False, False, False]]
    assert targets.foreground.tolist() == [[False, False, True, False, False, False]]
    assert targets.different.tolist() == [[False, True, False, True, False, False]]


def test_labels_above_the_classes_are_unsure():
    source, partner = jnp.array([[3, 3]], jnp.uint8), jnp.array([[3, 0]], jnp.uint8)
    assert [kind.tolist() for kind in pair_targets(source, partner, classes=3)] == [
        [[False, False]], [[True, False]], [[False, True]],
    ]  # fmt: skip
    assert not any(kind.any() for kind in pair_targets(source, partner, classes=2))


def test_pairs_are_the_reference_s():
    torch = pytest.importorskip("torch")
    from reference import torch_irn

    labels = jnp.asarray(scene(0)[2])
    expected = torch_irn.pair_labels(torch.tensor(np.asarray(labels)), RADIUS, CLASSES + 1)
    for number, path in enumerate(PATHS):
        source, partner = (window(labels, offset, reach(PATHS)) for offset in ((0, 0), path.direction))
        targets = pair_targets(source, partner, classes=CLASSES)
        for ours, theirs in zip(targets, expected, strict=True):
            np.testing.assert_array_equal(ours.reshape(2, -1), theirs[:, number])


# Losses.


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_are_the_reference_s(seed):
    torch = pytest.importorskip("torch")
    from reference import torch_irn

    edges, displacements, labels = scene(seed)
    edge = torch.tensor(edges, dtype=torch.float64, requires_grad=True)
    field = torch.tensor(np.moveaxis(displacements, -1, 1), dtype=torch.float64, requires_grad=True)
    expected = torch_irn.losses(edge, field, torch.tensor(labels), RADIUS, CLASSES + 1)
    sum(expected).backward()

    result = losses(edges, displacements, labels)
    gradients = jax.jit(jax.grad(lambda *args: sum(losses(*args)), argnums=(0, 1)))(edges, displacements, labels)
    np.testing.assert_allclose(result, [loss.item() for loss in expected], rtol=1e-5)
    np.testing.assert_allclose(gradients[0], edge.grad, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(gradients[1], np.moveaxis(field.grad.numpy(), 1, -1), rtol=1e-4, atol=1e-7)


def test_affinity_loss_by_hand():
    # Of radius 2 the only source is the middle of the first row; its partners are at its right and three below.
    labels = jnp.array([[255, 1, 1], [0, 255, 2]])
    edges = jnp.array([[0.0, 0.25, 0.5], [0.875, 0.75, 0.5]])
    # Right: alike, a = 1/2. Below: unsure. Below to the left: different, a = 1/8; to the right: different, a = 1/4.
    expected = (math.log(2) / 2 - (math.log(7 / 8) + math.log(3 / 4)) / 2) / 2
    result = affinity_loss(edges, labels, search_paths(2), classes=2)
    assert float(result) == pytest.approx(expected, abs=1e-4)


def test_displacements_that_point_to_the_middle_of_the_object_cost_nothing():
    labels = jnp.zeros((12, 15), jnp.int32).at[2:9, 3:12].set(1)
    rows, columns = jnp.mgrid[:12, :15]
    to_middle = jnp.where((labels == 1)[..., None], jnp.stack([5 - rows, 7 - columns], axis=-1), 0).astype(jnp.float32)
    # D(i) - D(j) is then j - i.
    right, mixed_up, reversed_ = (
        float(displacement_loss(field, labels, PATHS, classes=1))
        for field in (to_middle, to_middle[..., ::-1], -to_middle)
    )
    assert right == 0
    assert mixed_up > 0.5
    assert reversed_ > 0.5


def test_edges_around_an_object_cost_nothing_but_none_and_edges_elsewhere_do():
    labels = jnp.zeros((12, 15), jnp.int32).at[:, 8:].set(1).at[:, 7].set(255)
    around = jnp.zeros((12, 15)).at[:, 7].set(1)
    right, none, elsewhere = (
        float(affinity_loss(edges, labels, PATHS, classes=1)) for edges in (around, 0 * around, 1 - around)
    )
    assert right == pytest.approx(0, abs=1e-4)
    assert none > 1
    assert elsewhere > 1


def test_without_any_label_the_losses_are_zero_and_not_nan():
    edges, displacements, _ = scene(0)
    nothing = np.full(SIZE, 255, np.int32)
    assert [float(loss) for loss in losses(edges, displacements, nothing)] == [0, 0]
    gradients = jax.grad(lambda *args: sum(losses(*args)), argnums=(0, 1))(edges, displacements, nothing)
    assert all((gradient == 0).all() for gradient in gradients)


def test_means_are_over_the_batch_not_over_pictures():
    edges, displacements, labels = scene(1)
    labels[1] = 255  # a picture without any label changes nothing
    both = losses(edges, displacements, labels)
    alone = losses(edges[:1], displacements[:1], labels[:1])
    np.testing.assert_allclose(both, alone, rtol=1e-5)


def test_no_plane_of_pairs_is_held():
    batch, paths = (4, 64, 64), search_paths(10)
    loss = lambda edges, labels: affinity_loss(edges, labels, paths, classes=CLASSES)  # noqa: E731
    shapes = jax.ShapeDtypeStruct(batch, jnp.float32), jax.ShapeDtypeStruct(batch, jnp.uint8)
    memory = jax.jit(jax.value_and_grad(loss)).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 4 * math.prod(batch)  # there are 152 planes


def test_the_losses_lower_for_every_platform():
    shapes = [jax.ShapeDtypeStruct(SIZE, jnp.float32), jax.ShapeDtypeStruct((*SIZE, 2), jnp.float32)]
    gradient = jax.jit(jax.grad(lambda *args: sum(losses(*args)), argnums=(0, 1)))
    exported = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"))(
        *shapes, jax.ShapeDtypeStruct(SIZE, jnp.int32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
