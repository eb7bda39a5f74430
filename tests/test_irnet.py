"""IRNet: grids, what learns and what does not; test_irnet_parity.py has its numbers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_networks import image_of, network

from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.backbones.layers.norms import GroupNorm
from lpcam_jax.backbones.layers.resizing import rescale
from lpcam_jax.systems.irn.network import build_irnet

TINY = network("irn").config.model


def test_edges_and_displacements_are_of_every_fourth_pixel():
    outputs = network("irn")(image_of((33, 49))[None])
    assert outputs["edges"].shape == (1, 9, 13, 1)
    assert outputs["displacements"].shape == (1, 9, 13, 2)
    assert all(values.std() > 0.1 for values in outputs.values())


def test_the_branches_learn_and_the_backbone_does_not():
    net, images = network("irn"), image_of((33, 49))[None]

    @jax.jit
    @jax.grad
    def gradient(parameters):
        outputs = net.traced(parameters, net.batch_stats, images, None, None, None)
        return sum((values**2).sum() for values in outputs.values())

    gradients = jax.device_get(gradient(net.parameters))
    assert sorted(gradients) == ["backbone", "displacement", "edge"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients.pop("backbone")))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_edges_have_nothing_of_the_displacement_branch():
    net, images = network("irn"), image_of((33, 49))[None]
    without = {**net.parameters, "displacement": jax.tree.map(np.zeros_like, net.parameters["displacement"])}
    outputs = net.with_graph(net.graph, without, net.batch_stats)(images, None, None, None)
    np.testing.assert_array_equal(outputs["edges"], net(images)["edges"])
    assert not outputs["displacements"].any()


def test_folding_leaves_the_branches_alone():
    net = network("irn")
    _, parameters, _ = fold_batch_norm(net.graph, *net.arrays)
    for branch in ("edge", "displacement"):
        jax.tree.map(np.testing.assert_array_equal, parameters[branch], net.parameters[branch])


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
        for stage, valid in zip(model.backbone.stages, model.backbone.grids(sizes), strict=True):
            assert taps[stage].features.shape[1:3] == tuple(valid[0]), stage
        grid = tuple(model.grid_sizes(sizes)[0])
        assert edges.shape[1:] == displacements.shape[1:3] == taps["layer1"].features.shape[1:3] == grid


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
