"""The package equals `reference/torch_irn.py`, the reference's losses in plain torch, in values and gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import confident_labels, ir_labels, seed_mask
from lpcam_jax.refine.irn import PairTargets, affinity_loss, displacement_loss, pair_targets
from lpcam_jax.refine.paths import affinity, search_paths

RADIUS, CLASSES = 5, 3
PATHS = search_paths(RADIUS)
SIZE = (2, 12, 15)


@jax.jit
def losses(edges, displacements, labels):
    targets = pair_targets(labels, PATHS, classes=CLASSES)
    return affinity_loss(affinity(edges, PATHS), targets), displacement_loss(displacements, targets, PATHS)


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
    # Of radius 2 the middle pixels of the first row are sources, their partners at the right, below and askew.
    labels = jnp.array([[0, 0, 1, 255], [2, 0, 1, 2]])
    targets = pair_targets(labels, search_paths(2), classes=2)
    #                               (0, 1)           (1, 0)           (1, -1)           (1, 1)
    assert targets.background[:, 0].tolist() == [[False, False], [True, False], [False, False], [False, False]]
    assert targets.foreground[:, 0].tolist() == [[False, False], [False, True], [False, False], [False, False]]
    assert targets.different[:, 0].tolist() == [[True, False], [False, False], [True, True], [True, True]]


def test_labels_above_the_classes_are_unsure():
    labels = jnp.array([[0, 3, 3], [3, 3, 3]], jnp.uint8)
    for classes, pairs in ((3, 4), (2, 0)):
        targets = pair_targets(labels, search_paths(2), classes=classes)
        assert sum(int(kind.sum()) for kind in targets) == pairs


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_the_reference_s(seed):
    pytest.importorskip("torch")
    import torch
    from reference import torch_irn as reference

    labels = scene(seed)[2]
    expected = reference.pair_labels(torch.tensor(labels), RADIUS, CLASSES + 1)
    for ours, theirs in zip(pair_targets(jnp.asarray(labels), PATHS, classes=CLASSES), expected, strict=True):
        assert ours.any()
        np.testing.assert_array_equal(np.moveaxis(ours, 0, 1).reshape(2, 34, -1), theirs)


# Losses.


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_are_the_reference_s(seed):
    pytest.importorskip("torch")
    import torch
    from reference import torch_irn as reference

    edges, displacements, labels = scene(seed)
    edge = torch.tensor(edges, dtype=torch.float64, requires_grad=True)
    field = torch.tensor(np.moveaxis(displacements, -1, 1), dtype=torch.float64, requires_grad=True)
    expected = reference.losses(edge, field, torch.tensor(labels), RADIUS, CLASSES + 1)
    sum(expected).backward()

    result = losses(edges, displacements, labels)
    gradients = jax.jit(jax.grad(lambda *args: sum(losses(*args)), argnums=(0, 1)))(edges, displacements, labels)
    np.testing.assert_allclose(result, [loss.item() for loss in expected], rtol=1e-5)
    np.testing.assert_allclose(gradients[0], edge.grad, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(gradients[1], np.moveaxis(field.grad.numpy(), 1, -1), rtol=1e-4, atol=1e-7)


def test_affinity_loss_by_hand():
    # One pair of each kind, and one that is unsure.
    kinds = [jnp.array(kind, bool).reshape(4, 1, 1) for kind in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])]
    affinities = jnp.array([0.5, 0.25, 0.75, 0.1]).reshape(4, 1, 1)
    expected = (math.log(2) / 2 + math.log(4) / 2 + math.log(4)) / 2
    assert float(affinity_loss(affinities, PairTargets(*kinds))) == pytest.approx(expected, abs=1e-4)


def test_displacements_that_point_to_the_middle_of_the_object_cost_nothing():
    labels = jnp.zeros((12, 15), jnp.int32).at[2:9, 3:12].set(1)
    rows, columns = jnp.mgrid[:12, :15]
    to_middle = jnp.where((labels == 1)[..., None], jnp.stack([5 - rows, 7 - columns], axis=-1), 0).astype(jnp.float32)
    targets = pair_targets(labels, PATHS, classes=1)
    # D(i) - D(j) is then j - i.
    assert float(displacement_loss(to_middle, targets, PATHS)) == 0
    assert float(displacement_loss(to_middle[..., ::-1], targets, PATHS)) > 0.5
    assert float(displacement_loss(-to_middle, targets, PATHS)) > 0.5


def test_right_edges_cost_less_than_none_and_none_less_than_wrong_ones():
    labels = jnp.zeros((12, 15), jnp.int32).at[2:9, 5:12].set(1)
    inside = jnp.zeros((12, 15)).at[3:8, 6:11].set(1)
    border = (labels - inside) > 0
    targets = pair_targets(jnp.where(border, 255, labels), PATHS, classes=1)
    right, none, wrong = (
        float(affinity_loss(affinity(edges.astype(jnp.float32), PATHS), targets))
        for edges in (border, jnp.zeros((12, 15)), ~border)
    )
    assert right < none < wrong


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


def test_the_losses_lower_for_every_platform():
    shapes = [jax.ShapeDtypeStruct(SIZE, jnp.float32), jax.ShapeDtypeStruct((*SIZE, 2), jnp.float32)]
    gradient = jax.jit(jax.grad(lambda *args: sum(losses(*args)), argnums=(0, 1)))
    exported = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"))(
        *shapes, jax.ShapeDtypeStruct(SIZE, jnp.int32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
