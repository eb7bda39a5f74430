"""IRNet: padded pictures, sizes, what learns and what does not; test_irnet_parity.py has its numbers."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.backbones.layers import GroupNorm, rescale
from lpcam_jax.systems.irn.network import build_irnet

BUCKET = (48, 66)
SIZES = ((1, 1), (7, 33), (33, 49))
TINY = ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=8)
BFLOAT16 = replace(TINY, precision="bfloat16")


class Network(NamedTuple):
    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    both: Callable  # (parameters, batch_stats, images, sizes) -> edges, displacements, their valid sizes


@cache
def network(model: ResNetConfig = TINY) -> Network:
    """A tiny network with random parameters whose norms shift and scale."""
    graph, *trees = nnx.split(nnx.eval_shape(lambda: build_irnet(model)), nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        assert leaf.dtype == jnp.float32
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:3]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    trees = [jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(tree)) for tree in trees]
    return Network(graph, *trees, function_of(graph))


def function_of(graph: nnx.GraphDef) -> Callable:
    @jax.jit
    def both(parameters, batch_stats, images, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        taps = model.taps(images, sizes)
        return model.edges(taps), model.displacements(taps), model.grid_sizes(sizes)

    return both


def outputs_of(net: Network, images: np.ndarray, sizes: np.ndarray | None = None) -> tuple:
    return jax.device_get(net.both(net.parameters, net.batch_stats, images, sizes))


def image_of(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(*size, 3)).astype(np.float32)


def padded() -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(SIZES), *BUCKET, 3), np.float32)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:height, :width] = image_of((height, width))
    return images, np.int32(SIZES)


def relative_difference(values: np.ndarray, expected: np.ndarray) -> float:
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / np.abs(expected).max()


def test_edges_and_displacements_are_of_every_fourth_pixel():
    edges, displacements, _ = outputs_of(network(), *padded())
    assert (edges.shape, edges.dtype) == ((3, 12, 17), np.float32)
    assert (displacements.shape, displacements.dtype) == ((3, 12, 17, 2), np.float32)
    assert edges.std() > 0.1
    assert displacements.std() > 0.1


def test_a_padded_picture_is_the_picture_alone():
    *outputs, grids = outputs_of(network(), *padded())
    for index, size in enumerate(SIZES):
        *alone, _ = outputs_of(network(), image_of(size)[None])
        for values, expected in zip(outputs, alone, strict=True):
            rows, columns = expected.shape[1:3]
            assert relative_difference(values[index, :rows, :columns], expected[0]) < 1e-5, size
            assert not values[index, rows:].any(), size
            assert not values[index, :, columns:].any(), size
            assert (rows, columns) == tuple(grids[index]) == tuple(-(-length // 4) for length in size)


def test_padding_would_change_both_if_it_were_not_known():
    (images, sizes), index = padded(), SIZES.index((33, 49))
    known, unknown = (outputs_of(network(), images, valid) for valid in (sizes, np.int32([BUCKET] * len(SIZES))))
    for values, expected in zip(unknown[:2], known[:2], strict=True):
        assert relative_difference(values[index, :9, :13], expected[index, :9, :13]) > 0.01


def test_the_branches_learn_and_the_backbone_does_not():
    net, images = network(), image_of((33, 49))[None]

    @jax.jit
    @jax.grad
    def gradient(parameters):
        edges, displacements, _ = net.both(parameters, net.batch_stats, images, None)
        return (edges**2).sum() + (displacements**2).sum()

    gradients = jax.device_get(gradient(net.parameters))
    assert sorted(gradients) == ["backbone", "displacement", "edge"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients.pop("backbone")))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_edges_have_nothing_of_the_displacement_branch():
    net, batch = network(), padded()
    without = {**net.parameters, "displacement": jax.tree.map(np.zeros_like, net.parameters["displacement"])}
    edges, displacements, _ = net.both(without, net.batch_stats, *batch)
    np.testing.assert_array_equal(edges, outputs_of(net, *batch)[0])
    assert not displacements.any()


def test_a_network_whose_batch_norm_is_folded_is_the_same_function():
    net, batch = network(), padded()
    graph, parameters, batch_stats = fold_batch_norm(net.graph, net.parameters, net.batch_stats)
    assert not batch_stats
    for branch in ("edge", "displacement"):
        jax.tree.map(np.testing.assert_array_equal, parameters[branch], net.parameters[branch])
    after = jax.device_get(function_of(graph)(parameters, batch_stats, *batch))
    for values, expected in zip(after, outputs_of(net, *batch), strict=True):
        assert relative_difference(values, expected) < 1e-5


def test_bfloat16_is_about_the_same():
    batch = padded()
    *outputs, _ = outputs_of(network(BFLOAT16), *batch)
    for values, expected in zip(outputs, outputs_of(network(), *batch), strict=False):
        assert values.dtype == np.float32
        assert 0 < np.abs(values - expected).mean() < 0.05 * expected.std()


def test_the_branches_start_as_torch_s_convolutions_do():
    @jax.jit
    def kernels():
        model = build_irnet(TINY)
        convs = model.edge.logit, model.edge.layer4.conv, model.displacement.coarse.conv, model.displacement.vector
        return [conv.kernel[...] for conv in convs]

    for kernel in kernels():
        bound = kernel.shape[-2] ** -0.5
        assert 0.9 * bound < np.abs(kernel).max() <= bound


@pytest.mark.parametrize("pool", ["symmetric", "ceil", "symmetric_ceil"])
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_everything_is_on_the_grid_of_layer1_at_every_output_stride(output_stride, pool):
    model = nnx.eval_shape(lambda: build_irnet(replace(TINY, output_stride=output_stride, stem_pool=pool)))
    graph, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)

    def taps_and_both(parameters, batch_stats, images):
        model = nnx.merge(graph, parameters, batch_stats)
        taps = model.taps(images)
        return taps, model.edges(taps), model.displacements(taps)

    for size in ((1, 1), (34, 65)):
        images, sizes = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32), np.int32([size])
        taps, edges, displacements = jax.eval_shape(taps_and_both, *trees, images)
        for stage, valid in model.backbone.stage_sizes(sizes).items():
            assert taps[stage].features.shape[1:3] == tuple(valid[0]), stage
        grid = tuple(model.grid_sizes(sizes)[0])
        assert edges.shape[1:] == displacements.shape[1:3] == taps["layer1"].features.shape[1:3] == grid


def test_the_forward_pass_exports_for_every_platform():
    net = network()
    shapes = jax.ShapeDtypeStruct((2, 48, 64, 3), jnp.float32), jax.ShapeDtypeStruct((2, 2), jnp.int32)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (net.parameters, net.batch_stats))
    exported = jax.export.export(net.both, platforms=("cpu", "cuda", "tpu"))(*state, *shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")


# Group norm.


def normed(x: np.ndarray, sizes: np.ndarray | None = None, *, groups: int = 2) -> np.ndarray:
    return np.asarray(jax.jit(lambda x, sizes: GroupNorm(x.shape[-1], groups)(x, sizes))(x, sizes))


def test_group_norm_gives_every_group_mean_0_and_variance_1():
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 8), loc=2, scale=[1, 2, 3, 4, 50, 60, 70, 80]).astype(np.float32)
    groups = normed(x).reshape(3, -1, 2, 4)
    np.testing.assert_allclose(groups.mean(axis=(1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.var(axis=(1, 3)), 1, rtol=1e-4)


@pytest.mark.parametrize("outside", [0.0, 7.0, np.nan])
def test_group_norm_looks_at_the_valid_region_alone(outside):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    inside = np.s_[1:, :3, :2]
    canvas = np.full_like(x, outside)
    canvas[0], canvas[inside] = x[0], x[inside]
    result = normed(canvas, np.int32([[5, 6], [3, 2]]))
    np.testing.assert_allclose(result[0], normed(x)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result[inside], normed(x[inside]), rtol=1e-5, atol=1e-6)


def test_group_norm_of_far_values_keeps_their_differences():
    x = np.random.default_rng(0).integers(-8, 9, (1, 16, 16, 4)).astype(np.float32)
    np.testing.assert_allclose(normed(x + 4096), normed(x), rtol=0, atol=1e-3)


def test_group_norm_of_a_flat_picture_is_its_bias():
    assert not normed(np.full((1, 3, 3, 4), 5, np.float32)).any()


# Enlarging.


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarging_is_by_the_factor_whatever_the_size(factor):
    ramp = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1)
    enlarged, sizes = jax.jit(rescale, static_argnums=2)(ramp, np.int32([[4, 1]]), factor)
    expected = np.clip((np.arange(4 * factor) + 0.5) / factor - 0.5, 0, 3)
    np.testing.assert_allclose(enlarged[0, : 4 * factor, 0, 0], expected, rtol=1e-6)
    assert sizes.tolist() == [[4 * factor, factor]]
    assert not enlarged[0, 4 * factor :].any()
