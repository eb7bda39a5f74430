"""Outlines of regions: filled again they are the regions, by whatever rule they are filled."""

import numpy as np
import pytest
from pycocotools import mask as rle
from scipy import ndimage

from lpcam_jax.exports.polygons import area, outlines, regions

RING = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
TOUCHING = [[1, 0], [0, 1]]
TOUCHING_ITSELF = [[1, 1, 1], [1, 0, 1], [1, 1, 0]]  # its hole leads out, at a corner
TWO_HOLES = [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]]
HOLE_BELOW_HOLE = [[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]]
ISLAND = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


def winding(corners, shape) -> np.ndarray:
    """int (H, W), how often a polygon goes round the centre of each pixel."""
    y, x = np.indices(shape) + 0.5
    turns = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = (min(y0, y1) < y) & (y < max(y0, y1)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
            turns += np.where(crossed, 1 if y1 > y0 else -1, 0)
    return turns


def assert_gives_back(mask):
    """As many polygons as regions, each of which fills its region: once, and by pycocotools too."""
    numbers, count = ndimage.label(mask)  # regions share edges, and are counted row by row
    found = outlines(mask)
    assert len(found) == count
    for number, polygon in enumerate(found, start=1):
        region = numbers == number
        np.testing.assert_array_equal(winding(polygon, mask.shape), region)
        code = rle.merge(rle.frPyObjects([polygon.ravel().tolist()], *mask.shape))
        np.testing.assert_array_equal(rle.decode(code), region)
        assert area(polygon) == region.sum()


@pytest.mark.parametrize(
    "mask",
    [[[1]], [[0]], [[1, 1], [1, 1]], RING, TOUCHING, TOUCHING_ITSELF, TWO_HOLES, HOLE_BELOW_HOLE, ISLAND],
)
def test_polygons_give_back_their_regions(mask):
    assert_gives_back(np.array(mask, bool))


def test_polygons_give_back_noise():
    random = np.random.default_rng(0)
    for _ in range(400):
        assert_gives_back(random.random(random.integers(1, 10, 2)) < random.random())


def test_polygons_give_back_smooth_regions():
    heat = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 80)), 2)
    assert_gives_back(heat > np.median(heat))


def test_an_outline_is_its_corners_clockwise_from_the_top_left():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:5] = mask[3, 2] = True
    assert [polygon.tolist() for polygon in outlines(mask)] == [[[2, 1], [5, 1], [5, 3], [3, 3], [3, 4], [2, 4]]]


def test_a_hole_is_joined_by_a_slit_above_its_top_left():
    (polygon,) = outlines(np.array(RING, bool))
    around, hole = [[3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]
    assert polygon.tolist() == [[0, 0], [1, 0], *hole, [1, 0], *around]


def test_regions_of_every_class_and_of_no_ignored_pixel():
    mask = np.array([[7, 0, 255], [7, 2, 255], [0, 0, 2]], np.uint8)
    assert [(value, area(polygon)) for value, polygon in regions(mask)] == [(2, 1), (2, 1), (7, 2)]
    assert not [*regions(np.full((2, 2), 255, np.uint8))]
