"""WideResNet-38, its features and the gradients of a step, are those of an independent torch model with its weights."""

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_networks import relative_difference

from lpcam_jax.backbones.wideresnet import WideResNet38Config
from lpcam_jax.systems.lpcam.network import build_classifier

torch = pytest.importorskip("torch")

from reference.torch_weights import filled, to_torch, torch_name  # noqa: E402 (they need torch)
from reference.torch_wideresnet import WideResNet38, randomized  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)

CLASSES, WIDTH = 3, 4
SIZES = [(2, 64, 48), (1, 33, 49), (1, 96, 130)]


class Pair(NamedTuple):
    """Our classifier, and torch's with the same weights, in float64: they differ by the rounding of ours."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: WideResNet38


@cache
def pair() -> Pair:
    network = randomized(WideResNet38(CLASSES, width=WIDTH), seed=0).double().eval()
    model = nnx.eval_shape(lambda: build_classifier(WideResNet38Config(width=WIDTH), CLASSES))
    graph, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)
    trees = [filled(nnx.to_pure_dict(tree), network.state_dict()) for tree in trees]
    names = [torch_name(path) for tree in trees for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert sorted(names) == sorted(name for name in network.state_dict() if "num_batches" not in name), "one to one"
    return Pair(graph, *trees, network)


def images_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((*shape, seed)).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_features_and_logits(shape):
    graph, parameters, batch_stats, network = pair()
    images = images_of(*shape)

    @jax.jit
    def forward(parameters, batch_stats, images):
        model = nnx.merge(graph, parameters, batch_stats)
        return dict(zip(model.backbone.stages, model.backbone(images), strict=True)), model(images)

    features, logits = jax.device_get(forward(parameters, batch_stats, images))
    with torch.no_grad():
        expected, of_torch = network.features(to_torch(images)), network(to_torch(images)).numpy()
    assert list(features) == list(expected)
    for name, values in features.items():
        assert relative_difference(values, expected[name].permute(0, 2, 3, 1).numpy()) < 1e-5, name
    assert relative_difference(logits, of_torch) < 1e-5


def test_gradients_of_a_step():
    graph, parameters, batch_stats, network = pair()
    images, labels = smooth_images(network), np.float32([[1, 0, 1], [0, 1, 0]])

    @jax.jit
    @jax.grad
    def gradient(parameters):
        logits = nnx.merge(graph, parameters, batch_stats)(images)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    network.zero_grad()
    loss = torch.nn.functional.multilabel_soft_margin_loss(network(to_torch(images)), torch.from_numpy(labels).double())
    loss.backward()
    expected = filled(parameters, {name: value.grad for name, value in network.named_parameters()})
    ours = jax.device_get(gradient(parameters))
    for (path, values), of_torch in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        assert relative_difference(values, of_torch) < 1e-4, torch_name(path)


def smooth_images(network: WideResNet38) -> np.ndarray:
    """Pictures at which no ReLU is within rounding of its kink, where gradients jump."""
    distances = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].abs().min().item()))
        for module in network.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    for seed in range(50):
        images = images_of(2, 17, 19, seed=seed)
        distances.clear()
        with torch.no_grad():
            network(to_torch(images))
        if min(distances) > 3e-6:
            for hook in hooks:
                hook.remove()
            return images
    raise AssertionError("no pictures are far from all kinks; take smaller ones")
