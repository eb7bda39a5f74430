"""IRNet, its gradients and its edges are those of an independent torch model with the same weights."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.layers.norms import GroupNorm
from lpcam_jax.systems.irn.edges import edge_logits
from lpcam_jax.systems.irn.network import build_irnet

torch = pytest.importorskip("torch")

from reference import torch_irnet, torch_resnet  # noqa: E402 (they need torch)
from reference.torch_weights import filled, relative_difference, to_torch, torch_name  # noqa: E402
from test_deeplab_parity import smooth_images, without_prefix  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

STRIDES = {32: (4, 4, 8, 16, 32), 16: (4, 4, 8, 16, 16), 8: (4, 4, 8, 8, 8)}
TINY = {"blocks": (1, 1, 2, 1), "width": 8, "stem_width": 12}


class Pair(NamedTuple):
    """Our network in pure dicts and torch's, in float64, with the same weights."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: "torch.nn.Module"


@cache
def pair(output_stride: int = 16) -> Pair:
    backbone = torch_resnet.ResNet(1, **TINY, output_stride=output_stride)
    widths = {name: TINY[name] for name in ("width", "stem_width")}
    network = torch_irnet.IRNet(backbone, **widths, strides=STRIDES[output_stride])
    network = torch_irnet.randomized(network, seed=0).double().eval()

    model = nnx.eval_shape(lambda: build_irnet(ResNetConfig(**TINY, output_stride=output_stride)))
    graph, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)
    arrays = without_prefix(network.state_dict())
    trees = [filled(nnx.to_pure_dict(tree), arrays) for tree in trees]
    names = [torch_name(path) for tree in trees for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert sorted(names) == sorted(name for name in arrays if "num_batches" not in name), "one to one"
    return Pair(graph, *trees, network)


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


def to_nhwc(array: "torch.Tensor") -> np.ndarray:
    return array.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("output_stride", "shape"),
    [(16, (2, 64, 48)), (16, (1, 1, 1)), (32, (1, 37, 66)), (8, (1, 37, 66))],
)
def test_edges_and_displacements(output_stride, shape):
    one, images = pair(output_stride), images_of(*shape)

    @jax.jit
    def both(parameters, batch_stats, images):
        model = nnx.merge(one.graph, parameters, batch_stats)
        taps = model.taps(images)
        return model.edges(taps), model.displacements(taps)

    edges, displacements = both(one.parameters, one.batch_stats, images)
    expected_edges, expected_displacements = map(to_nhwc, one.network(to_torch(images)))
    assert edges.shape == (shape[0], -(-shape[1] // 4), -(-shape[2] // 4))
    assert relative_difference(edges[..., None], expected_edges) < 1e-5
    assert relative_difference(displacements, expected_displacements) < 1e-5


def test_gradients_of_the_branches():
    one = pair()
    images = smooth_images(one.network, 1, 33, 41)
    rng = np.random.default_rng(0)
    wanted = [rng.normal(size=(1, 9, 11, channels)).astype(np.float32) for channels in (1, 2)]

    @jax.jit
    @jax.value_and_grad
    def of_parameters(parameters):
        model = nnx.merge(one.graph, parameters, one.batch_stats)
        taps = model.taps(images)
        outputs = model.edges(taps)[..., None], model.displacements(taps)
        return sum((output * target).sum() for output, target in zip(outputs, wanted, strict=True))

    value, gradients = of_parameters(one.parameters)
    one.network.zero_grad()
    outputs = one.network(to_torch(images))
    expected = sum((output * to_torch(target)).sum() for output, target in zip(outputs, wanted, strict=True))
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-4
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["backbone"]))
    assert all(parameter.grad is None for parameter in one.network.backbone.parameters())
    learned = {branch: gradients[branch] for branch in ("edge", "displacement")}
    named = filled(learned, {name: parameter.grad for name, parameter in one.network.named_parameters()})
    for (path, gradient), other in zip(
        jax.tree_util.tree_leaves_with_path(learned), jax.tree.leaves(named), strict=True
    ):
        assert relative_difference(gradient, other) < 1e-4, torch_name(path)


def test_probabilities_of_a_picture_and_its_mirror_image():
    one, sizes = pair(), ((33, 49), (64, 48), (7, 30))
    rng = np.random.default_rng(0)
    pictures = np.zeros((len(sizes), 64, 49, 3), np.uint8)
    for picture, (height, width) in zip(pictures, sizes, strict=True):
        picture[:height, :width] = rng.integers(0, 256, (height, width, 3))

    @jax.jit
    def logits(parameters, batch_stats, pictures, sizes):
        return edge_logits(nnx.merge(one.graph, parameters, batch_stats), pictures, sizes)["logits"][..., 0]

    probabilities = jax.nn.sigmoid(logits(one.parameters, one.batch_stats, pictures, np.int32(sizes)))
    for picture, values, (height, width) in zip(pictures, probabilities, sizes, strict=True):
        alone = (picture[None, :height, :width] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            expected = torch_irnet.edge_probabilities(one.network, to_torch(alone))[0].numpy()
        assert expected.std() > 0.01
        assert relative_difference(values[: expected.shape[0], : expected.shape[1]], expected) < 1e-5


@pytest.mark.parametrize(("features", "groups"), [(32, 4), (64, 8), (48, 16), (6, 6), (6, 1)])
def test_group_norm(features, groups):
    rng = np.random.default_rng(features)
    x = rng.normal(size=(3, 5, 7, features), loc=3, scale=rng.uniform(0.01, 9, features)).astype(np.float32)
    scale, bias = rng.normal(size=(2, features)).astype(np.float32)
    theirs = torch.nn.GroupNorm(groups, features).double()
    theirs.weight.data, theirs.bias.data = torch.from_numpy(scale).double(), torch.from_numpy(bias).double()
    tensor = to_torch(x).requires_grad_()
    expected = theirs(tensor)
    (expected**3).sum().backward()

    @jax.jit
    def ours(x, scale, bias):
        norm = GroupNorm(features, groups)
        norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
        return norm(x)

    assert relative_difference(ours(x, scale, bias), to_nhwc(expected)) < 1e-5
    gradients = jax.jit(jax.grad(lambda *values: (ours(*values) ** 3).sum(), argnums=(0, 1, 2)))(x, scale, bias)
    for gradient, other in zip(gradients, (to_nhwc(tensor.grad), theirs.weight.grad, theirs.bias.grad), strict=True):
        assert relative_difference(gradient, other) < 1e-4
