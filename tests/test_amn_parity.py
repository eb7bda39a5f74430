"""AMN, its loss, gradients, optimizer and maps are those of an independent torch model with the same weights."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lpcam_jax.class_activation import resize_bilinear
from lpcam_jax.systems.amn.activation import activation_maps, balanced_loss
from lpcam_jax.systems.amn.config import AMNModel, AMNTraining
from lpcam_jax.systems.amn.logits import logits_of_both
from lpcam_jax.systems.amn.network import build_amn
from lpcam_jax.systems.amn.training import amn_optimizer

torch = pytest.importorskip("torch")

from reference import torch_amn, torch_resnet  # noqa: E402 (they need torch)
from reference.torch_weights import filled, relative_difference, to_torch, torch_name  # noqa: E402
from test_deeplab_parity import without_prefix  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES = 3
TINY = {"blocks": (1, 1, 2, 1), "width": 8, "stem_width": 12}
LABELS = np.float32([[1, 0, 1], [0, 1, 0]])


class Pair(NamedTuple):
    """Our network in pure dicts and torch's, in float64, with the same weights."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: "torch.nn.Module"


@cache
def pair() -> Pair:
    network = torch_amn.AMN(torch_resnet.ResNet(1, **TINY), 32 * TINY["width"], CLASSES)
    network = torch_amn.randomized(network, seed=0).double().eval()
    graph, *trees = nnx.split(nnx.eval_shape(lambda: build_amn(AMNModel(**TINY), CLASSES)), nnx.Param, nnx.BatchStat)
    arrays = without_prefix(network.state_dict())
    trees = [filled(nnx.to_pure_dict(tree), arrays) for tree in trees]
    names = [torch_name(path) for tree in trees for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert sorted(names) == sorted(name for name in arrays if "num_batches" not in name), "one to one"
    return Pair(graph, *trees, network)


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 97, 230), (2, 33, 40)])
def test_logits(shape):
    one, images, labels = pair(), images_of(*shape), LABELS[: shape[0]]
    forward = jax.jit(lambda *state, images: nnx.merge(one.graph, *state)(images, labels))
    logits = forward(one.parameters, one.batch_stats, images=images)
    with torch.no_grad():
        expected = one.network(to_torch(images), torch.from_numpy(labels).double()).permute(0, 2, 3, 1)
    assert 0.1 < expected.abs().max() < 100
    assert relative_difference(logits, expected) < 1e-5


def test_loss_and_gradients_of_the_network():
    one, images = pair(), images_of(2, 33, 40)
    targets = np.random.default_rng(0).choice([0, 0, 1, 2, 3, 255], (2, 3, 3)).astype(np.uint8)

    @jax.jit
    @jax.value_and_grad
    def of_parameters(parameters):
        logits = nnx.merge(one.graph, parameters, one.batch_stats)(images, LABELS)
        return balanced_loss(logits, targets)

    value, gradients = of_parameters(one.parameters)
    one.network.zero_grad()
    logits = one.network(to_torch(images), torch.from_numpy(LABELS).double())
    expected = torch_amn.loss(logits, torch.from_numpy(targets.astype(np.int64)), 0.4)
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    named = filled(one.parameters, without_prefix({name: p.grad for name, p in one.network.named_parameters()}))
    largest = max(float(np.abs(gradient).max()) for gradient in jax.tree.leaves(named))
    for (path, gradient), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(named), strict=True
    ):
        assert relative_difference(gradient, other, 1e-4 * largest) < 1e-3, torch_name(path)


def test_five_updates_are_those_of_torch_s_adam_with_its_decay():
    one, training = pair(), AMNTraining(learning_rate=2e-3, head_multiplier=5.0, weight_decay=0.3)
    optimizer = amn_optimizer(training, nnx.merge(one.graph, one.parameters, one.batch_stats))
    network = torch_amn.AMN(torch_resnet.ResNet(1, **TINY), 32 * TINY["width"], CLASSES).double()
    network.load_state_dict(one.network.state_dict())
    theirs = torch_amn.adam(network, backbone_rate=2e-3, head_rate=1e-2, decay=0.3)
    generator = torch.Generator().manual_seed(0)

    @jax.jit
    def update(parameters, state, gradients):
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    first = {
        **one.parameters,
        "backbone": {name: one.parameters["backbone"][name] for name in ("conv1", "bn1", "layer4")},
    }
    parameters, state = first, jax.jit(optimizer.init)(first)
    for _ in range(5):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        gradients = filled(parameters, without_prefix({name: p.grad for name, p in network.named_parameters()}))
        parameters, state = update(parameters, state, gradients)
        theirs.step()
    expected = filled(parameters, without_prefix(network.state_dict()))
    for (path, value), other, start in zip(
        jax.tree_util.tree_leaves_with_path(parameters), jax.tree.leaves(expected), jax.tree.leaves(first), strict=True
    ):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5, err_msg=torch_name(path))
        is_frozen = torch_name(path).startswith(("conv1.", "bn1."))
        assert (np.asarray(value) == start).all() == is_frozen, torch_name(path)


def test_maps_of_a_picture_and_its_mirror_image():
    one, (height, width) = pair(), (41, 70)
    rng = np.random.default_rng(0)
    seed = rng.choice([0, 1, 3, 255], (height, width))
    pictures = np.zeros((1, 64, 96, 3), np.uint8)
    pictures[0, :height, :width] = rng.integers(0, 256, (height, width, 3))

    @jax.jit
    def logits(parameters, batch_stats, pictures, sizes, labels):
        return logits_of_both(nnx.merge(one.graph, parameters, batch_stats), pictures, sizes, labels)["logits"]

    grid = logits(one.parameters, one.batch_stats, pictures, np.int32([[height, width]]), LABELS[:1])
    grid = np.asarray(grid)[0, : -(-height // 16), : -(-width // 16)]
    maps = activation_maps(resize_bilinear(grid, (height, width)), np.array([0, 2]), seed)

    alone = (pictures[:, :height, :width] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = torch_amn.mean_logits(one.network, [to_torch(alone)], torch.from_numpy(LABELS[:1]).double())
    expected = np.moveaxis(torch_amn.maps(expected, (0, 2), seed), 0, -1)
    assert expected.std() > 0.01
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4)


def test_the_loss_alone():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (2, 7, 5, CLASSES + 1)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 7, 5)).astype(np.uint8)
    value, gradient = jax.value_and_grad(balanced_loss)(jnp.asarray(logits), labels)
    tensor = to_torch(logits).requires_grad_()
    expected = torch_amn.loss(tensor, torch.from_numpy(labels.astype(np.int64)), 0.4)
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    assert relative_difference(gradient, tensor.grad.permute(0, 2, 3, 1)) < 1e-5
