import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import numpy_lpcam, numpy_walk

from lpcam_jax.refine.random_walk import on_picture, random_walk
from lpcam_jax.refine.walks import walked_maps


def scene(seed, h, w, n, *lead):
    """Random maps, and edges that are mostly weak."""
    rng = np.random.default_rng(seed)
    return rng.random((*lead, h, w, n), np.float32), (rng.random((*lead, h, w)) ** 3).astype(np.float32)


def dense(maps, edges, **options):
    """The reference's walk of one picture, in float64 and channels last."""
    maps, edges = np.moveaxis(maps, -1, 0).astype(np.float64), edges.astype(np.float64)
    return np.moveaxis(numpy_walk.random_walk(maps, edges, **options), 0, -1)


# The reference's numbers.


@pytest.mark.parametrize("shape", [(12, 17, 2), (9, 5, 1), (3, 20, 4)])
def test_the_walk_is_the_reference_s_power_of_the_dense_matrix(shape):
    maps, edges = scene(0, *shape)
    np.testing.assert_allclose(random_walk(maps, edges), dense(maps, edges), atol=5e-6)


@pytest.mark.parametrize("doublings", [0, 1, 3, 6])
def test_any_number_of_steps(doublings):
    maps, edges = scene(1, 8, 9, 2)
    result = random_walk(maps, edges, steps=2**doublings)
    np.testing.assert_allclose(result, dense(maps, edges, doublings=doublings), atol=5e-6)


def test_no_step_leaves_what_is_not_on_an_edge():
    maps, edges = scene(1, 8, 9, 2)
    np.testing.assert_allclose(random_walk(maps, edges, steps=0), maps * (1 - edges)[..., None], atol=1e-7)


@pytest.mark.parametrize(("radius", "beta"), [(2, 1), (4, 8), (6, 1.5)])
def test_any_radius_and_power(radius, beta):
    maps, edges = scene(2, 8, 9, 2)
    expected = dense(maps, edges, radius=radius, beta=beta, doublings=4)
    np.testing.assert_allclose(random_walk(maps, edges, radius=radius, beta=beta, steps=16), expected, atol=5e-6)


def test_in_double_precision_what_the_short_walk_leaves_out_is_all_that_differs():
    maps, edges = scene(3, 12, 17, 1)
    with jax.enable_x64(True):
        result = random_walk(maps.astype(np.float64), edges.astype(np.float64))
        assert result.dtype == np.float64
        assert np.abs(result - dense(maps, edges)).max() < 1e-8


# What the mathematics promises.


def test_heat_spreads_evenly_in_a_room_and_never_leaves_it():
    edges = np.ones((12, 14), np.float32)
    edges[2:8, 3:9] = edges[10:, :5] = 0
    maps = np.zeros((12, 14, 2), np.float32)
    maps[4, 4], maps[0, 0] = 1, 1  # a source in the room, and one on an edge, where nothing starts
    result = np.asarray(random_walk(maps, edges))
    inside = np.zeros((12, 14), bool)
    inside[2:8, 3:9] = True
    assert (result[~inside] == 0).all()
    np.testing.assert_allclose(result[inside], dense(maps, edges)[inside], atol=1e-6)
    spread = result[inside][:, 0]
    assert spread.min() > 0.9 * spread.max()
    np.testing.assert_array_equal(result[..., 0], result[..., 1])


def test_between_edges_that_are_certain_nothing_moves():
    maps, edges = scene(4, 8, 9, 2)
    checkered = (np.indices((8, 9)).sum(axis=0) % 2).astype(np.float32)
    checkered[:, 1::2] = 1  # every other pixel of every other row and column is closed in
    assert (random_walk(maps, np.ones_like(edges)) == 0).all()
    np.testing.assert_allclose(random_walk(maps, checkered), maps * (1 - checkered)[..., None], atol=1e-6)


@pytest.mark.parametrize("value", [0.3, 1.0])
def test_a_constant_stays_constant_without_edges(value):
    maps = np.full((12, 17, 2), value, np.float32)
    np.testing.assert_allclose(random_walk(maps, np.zeros((12, 17), np.float32)), maps, rtol=3e-7)


def test_an_average_is_never_above_the_largest_nor_below_the_smallest():
    maps, edges = scene(5, 12, 17, 2)
    start = maps * (1 - edges)[..., None]
    result = np.asarray(random_walk(maps, edges))
    for one, before in zip(np.moveaxis(result, -1, 0), np.moveaxis(start, -1, 0), strict=True):
        assert before.min() - 1e-6 <= one.min() <= one.max() <= before.max() + 1e-6


def test_classes_do_not_mix():
    maps, edges = scene(6, 12, 17, 2)
    alone = random_walk(np.stack([maps[..., 0], np.zeros_like(maps[..., 1])], axis=-1), edges)
    np.testing.assert_array_equal(alone[..., 0], random_walk(maps, edges)[..., 0])
    assert (alone[..., 1] == 0).all()


# Padding, batches, platforms.


def test_padding_has_no_influence():
    maps, edges = scene(7, 12, 17, 2)
    alone = random_walk(maps[:9, :11], edges[:9, :11])
    for padding in (0.0, 1.0, np.nan):
        maps[9:], maps[:, 11:], edges[9:], edges[:, 11:] = padding, padding, 1 - padding, padding
        result = random_walk(maps, edges, size=np.array([9, 11]))
        np.testing.assert_allclose(result[:9, :11], alone, atol=1e-6)
        assert (result[9:] == 0).all()
        assert (result[:, 11:] == 0).all()


def test_pictures_of_a_batch_do_not_meet_and_vmap_agrees():
    maps, edges = scene(8, 12, 17, 2, 3)
    sizes = np.array([[12, 17], [9, 11], [5, 17]], np.int32)
    together = random_walk(maps, edges, size=sizes)
    mapped = jax.vmap(lambda maps, edges, size: random_walk(maps, edges, size=size))(maps, edges, sizes)
    np.testing.assert_allclose(together, mapped, atol=1e-6)
    for one, picture, edge, size in zip(together, maps, edges, sizes, strict=True):
        np.testing.assert_allclose(one, random_walk(picture, edge, size=size), atol=1e-6)


def test_the_walk_lowers_for_every_platform():
    shapes = [
        jax.ShapeDtypeStruct(shape, kind) for shape, kind in (((12, 17, 2), "f4"), ((12, 17), "f4"), ((2,), "i4"))
    ]
    walk = jax.jit(lambda maps, edges, size: random_walk(maps, edges, size=size))
    exported = jax.export.export(walk, platforms=("cpu", "cuda", "tpu"))(*shapes)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_memory_is_a_few_times_the_planes_of_affinities():
    h, w = 96, 128
    shapes = [jax.ShapeDtypeStruct(shape, "f4") for shape in ((h, w, 2), (h, w))]
    memory = random_walk.lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 3 * 34 * 4 * (h + 4) * (w + 8)
    assert memory.temp_size_in_bytes < (h * w) ** 2 * 4 / 50  # of the dense matrix


# What follows the walk.


@pytest.mark.parametrize("size", [(48, 68), (45, 66)])
def test_maps_on_the_picture_are_the_reference_s_over_the_one_maximum(size):
    walked = scene(9, 12, 17, 3)[0]
    walked[..., 1] *= 0.5
    result = on_picture(walked, size)
    up = numpy_lpcam.resize_bilinear(np.moveaxis(walked, -1, 0), 48, 68)[:, : size[0], : size[1]]
    np.testing.assert_allclose(result, np.moveaxis(up / up.max(), 0, -1), atol=1e-6)
    assert result.max() == 1
    assert result[..., 1].max() < 0.6


def test_every_picture_of_a_batch_has_its_own_maximum():
    walked = scene(9, 4, 5, 2, 2)[0] * np.array([1, 1e-3], np.float32).reshape(2, 1, 1, 1)
    result = on_picture(walked, (16, 20))
    assert result.max(axis=(1, 2, 3)).tolist() == [1, 1]
    assert isinstance(result, np.ndarray)
    np.testing.assert_allclose(jax.jit(on_picture, static_argnums=1)(walked, (16, 20)), result, atol=1e-6)


def test_zero_maps_give_zeros():
    zeros = np.zeros((4, 5, 2), np.float32)
    assert (on_picture(random_walk(jnp.asarray(zeros), jnp.zeros((4, 5))), (15, 18)) == 0).all()
    assert on_picture(zeros, (15, 18)).shape == (15, 18, 2)
    assert not math.isnan(float(on_picture(-zeros, (16, 20)).sum()))


def test_a_grid_that_drops_the_last_pixels_still_fills_the_picture():
    maps = on_picture(np.ones((3, 4, 2), np.float32), (14, 17))
    np.testing.assert_allclose(maps, np.ones((14, 17, 2)), rtol=1e-6)


def test_maps_can_be_raised_to_a_power_before_the_walk():
    low, edges = scene(10, 5, 6, 2)
    maps, walk = np.moveaxis(np.kron(low, np.ones((4, 4, 1), np.float32)), -1, 0), {"radius": 2, "steps": 4}
    expected = walked_maps(maps**1.3, edges, **walk)
    np.testing.assert_allclose(walked_maps(maps, edges, power=1.3, **walk), expected, atol=1e-5)
    assert np.abs(walked_maps(maps, edges, **walk) - expected).max() > 0.05
