"""The outputs of all scales, finished on a canvas, are those of the picture alone."""

import numpy as np
import pytest

from lpcam_jax.class_activation import resize_bilinear
from lpcam_jax.data.resizing import shrunk_size
from lpcam_jax.inference.canvas import cropped, fused, grid_extent, stack_scales
from lpcam_jax.inference.finish import finished_maps
from lpcam_jax.machine.padding import canvas_of
from lpcam_jax.systems.lpcam.maps import on_picture
from lpcam_jax.systems.segmentation import segment

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (5, 7), (64, 64), (65, 33), (375, 500)]


def at_scales(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Random maps at three scales, on grids of 16 pixels a position."""
    grids = [[max(round(scale * length / 16), 1) for length in size] for scale in (1.0, 0.5, 2.0)]
    return [RNG.random((*grid, count), np.float32) for grid in grids]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_maps_are_those_computed_at_the_size_of_the_picture(size, count):
    maps = at_scales(size, count)
    found = finished_maps(maps, size, extent=grid_extent(size, stride=16), epsilon=1e-5)
    assert (found.shape, found.dtype) == ((count, *size), np.float16)
    np.testing.assert_allclose(found, np.moveaxis(on_picture(maps, size, stride=16), -1, 0), atol=5e-4)


def test_a_grid_reaches_as_far_in_a_picture_that_was_shrunk():
    assert grid_extent((375, 500), stride=16, longest=640) == (384, 512)
    assert grid_extent((1080, 1920), stride=16, longest=640) == (1104, 1920)  # 23 positions of 48 pixels
    size, longest = (1079, 1601), 400
    seen = shrunk_size(size, longest)
    [small] = finished_maps([maps := at_scales(seen, 1)[0]], seen, extent=grid_extent(seen, stride=16), epsilon=0)
    [large] = finished_maps([maps], size, extent=grid_extent(size, stride=16, longest=longest), epsilon=0)
    enlarged = resize_bilinear(small[..., None].astype(np.float32), size)[..., 0]
    assert np.abs(large - enlarged).mean() < 0.01
    shifted, _ = finished_maps([maps], size, extent=grid_extent(size, stride=16), epsilon=0), None
    assert np.abs(shifted[0] - enlarged).mean() > 0.01, "as if it had not been shrunk"


def test_a_picture_of_no_class_has_no_maps_and_a_flat_map_is_zero():
    assert finished_maps(at_scales((20, 30), 0), (20, 30), epsilon=0.0).shape == (0, 20, 30)
    assert not finished_maps([np.ones((2, 2, 1), np.float32)], (20, 30), epsilon=0.0).any()


def test_the_canvas_has_no_influence():
    size = (37, 50)
    scales = stack_scales(at_scales(size, 2), size)
    small, large = (
        cropped(fused(scales, scales.size, canvas=canvas), size) for canvas in (canvas_of(size), (192, 256))
    )
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_pictures_of_a_hundred_sizes_have_few_canvases():
    sizes = [(h, w) for h in range(272, 384, 12) for w in range(390, 512, 12)]
    assert {canvas_of(size) for size in sizes} == {(384, 512)}
    assert len({stack_scales(at_scales(size, 1), size).maps.shape for size in sizes}) == 1


@pytest.mark.parametrize("views", [1, 3])
def test_masks_of_large_pictures_are_made_a_band_of_rows_at_a_time(views):
    """All probabilities of 1024 x 1024 pixels and 21 classes are 88 MB."""
    logits = [np.random.default_rng(n).normal(size=(60 + n, 64, 21)).astype(np.float32) for n in range(views)]
    scales = stack_scales(logits, (1000, 1024))
    compiled = segment._best.lower(scales, canvas=(1024, 1024), fusion="mean").compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 88e6 * (0.4 + 0.15 * views)
    found = np.asarray(compiled(scales))[:1000]
    heights = [resize_bilinear(one, (1000, 1024)) for one in logits]
    if views > 1:
        heights = [np.exp(one) / np.exp(one).sum(axis=-1, keepdims=True) for one in heights]
    total = np.sum(heights, axis=0)
    best, chosen = total.max(axis=-1), np.take_along_axis(total, found[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, best, rtol=1e-4, atol=1e-5)
