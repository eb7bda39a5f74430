"""VGG-16, its features and the gradients of a step, are those of an independent torch model with the same weights."""

import re
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_networks import relative_difference

from lpcam_jax.backbones.vgg import VGG16Config
from lpcam_jax.systems.lpcam.network import build_classifier

torch = pytest.importorskip("torch")

from reference.torch_vgg import VGG16, randomized  # noqa: E402 (they need torch)
from reference.torch_weights import to_jax, to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)

CLASSES, WIDTH = 3, 6
SIZES = [(2, 64, 48), (1, 33, 49), (1, 95, 130)]


class Pair(NamedTuple):
    """Our classifier, and torch's with the same weights, in float64: they differ by the rounding of ours."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    network: VGG16


def torch_name(path: tuple) -> str:
    """backbone/block5/conv3/kernel -> conv5_3.weight."""
    name = "/".join(str(entry.key) for entry in path)
    name = re.sub(r"backbone/block(\d)/conv(\d)/", r"conv\1_\2.", name)
    return name.replace("kernel", "weight").replace("head", "fc8.weight")


def in_structure(tree: dict[str, Any], arrays: dict[str, "torch.Tensor"]) -> dict[str, Any]:
    """Torch's arrays in the structure of `tree`."""

    def array(path, leaf):
        value = arrays[torch_name(path)]
        value = to_jax(value)
        return value[0, 0] if leaf.ndim == 2 else value

    return jax.tree_util.tree_map_with_path(array, tree)


@cache
def pair(layout: str) -> Pair:
    network = randomized(VGG16(CLASSES, width=WIDTH, layout=layout), seed=0).double()
    model = nnx.eval_shape(lambda: build_classifier(VGG16Config(width=WIDTH, layout=layout), CLASSES))
    graph, parameters = nnx.split(model)
    parameters = in_structure(nnx.to_pure_dict(parameters), network.state_dict())
    assert len(jax.tree.leaves(parameters)) == len(network.state_dict())
    return Pair(graph, parameters, network)


def images_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((*shape, seed)).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("layout", ["plain", "psa"])
def test_features_and_logits(layout, shape):
    graph, parameters, network = pair(layout)
    images = images_of(*shape)

    @jax.jit
    def forward(parameters, images):
        model = nnx.merge(graph, parameters)
        return dict(zip(model.backbone.stages, model.backbone(images), strict=True)), model(images)

    features, logits = jax.device_get(forward(parameters, images))
    with torch.no_grad():
        expected, of_torch = network.features(to_torch(images)), network(to_torch(images)).numpy()
    assert list(features) == ["block3", "block4", "block5"]
    for name, values in features.items():
        assert relative_difference(values, expected[name].permute(0, 2, 3, 1).numpy()) < 1e-5, name
    assert relative_difference(logits, of_torch) < 1e-5


@pytest.mark.parametrize("layout", ["plain", "psa"])
def test_gradients_of_a_step(layout):
    graph, parameters, network = pair(layout)
    images, labels = smooth_images(network), np.float32([[1, 0, 1], [0, 1, 0]])

    @jax.jit
    @jax.grad
    def gradient(parameters):
        return optax.sigmoid_binary_cross_entropy(nnx.merge(graph, parameters)(images), labels).mean()

    network.zero_grad()
    loss = torch.nn.functional.multilabel_soft_margin_loss(network(to_torch(images)), torch.from_numpy(labels).double())
    loss.backward()
    expected = in_structure(parameters, {name: value.grad for name, value in network.named_parameters()})
    ours = jax.device_get(gradient(parameters))
    for (path, values), of_torch in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        assert relative_difference(values, of_torch) < 1e-4, torch_name(path)


def smooth_images(network: VGG16) -> np.ndarray:
    """Pictures at which no ReLU is within rounding of its kink, where gradients jump."""
    distances = []
    hook = network.relu.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].abs().min().item()))
    for seed in range(50):
        images = images_of(2, 33, 35, seed=seed)
        distances.clear()
        with torch.no_grad():
            network(to_torch(images))
        if min(distances) > 3e-6:
            hook.remove()
            return images
    raise AssertionError("no pictures are far from all kinks; take smaller ones")
