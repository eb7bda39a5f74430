"""Scale, mirror, crop: what stays of a picture and its mask, and where it lies."""

import colorsys

import numpy as np
import pytest

from lpcam_jax.data.augment import (
    random_crop,
    random_long_side,
    random_mirror,
    random_scale,
    random_window,
    varied_window,
)
from lpcam_jax.data.photometric import from_hsv, photometric_distortion, to_hsv
from lpcam_jax.data.resizing import fitted_size, resize_bicubic, resize_bilinear_uint8, scaled_size


def coordinates(height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3): each pixel says its row + 1, column + 1 and 7."""
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (16, 16), (10, 40), (40, 10), (5, 6), (1, 1)])
def test_crop_is_a_window_of_the_picture_and_black_around_it(size):
    image, rng = coordinates(*size), np.random.default_rng(0)
    for _ in range(20):
        canvas, (top, left, bottom, right) = random_crop(rng, image, crop=16)
        assert canvas.shape == (16, 16, 3)
        assert canvas.dtype == np.uint8
        assert (bottom - top, right - left) == (min(size[0], 16), min(size[1], 16))
        row, column = canvas[top, left, :2] - 1
        window = image[row : row + bottom - top, column : column + right - left]
        np.testing.assert_array_equal(canvas[top:bottom, left:right], window)
        canvas[top:bottom, left:right] = 0
        assert not canvas.any()


def test_every_window_and_every_place_occurs():
    rng = np.random.default_rng(0)
    crops = [random_crop(rng, coordinates(18, 14), crop=16) for _ in range(200)]
    assert {int(canvas[0, box[1], 0]) for canvas, box in crops} == {1, 2, 3}
    assert {int(box[1]) for _, box in crops} == {0, 1, 2}


def test_mirror_turns_half_of_the_pictures():
    image, rng = coordinates(2, 3), np.random.default_rng(0)
    mirrored = [random_mirror(rng, image) for _ in range(400)]
    turned = [not np.array_equal(one, image) for one in mirrored]
    assert 150 < sum(turned) < 250
    for one, is_turned in zip(mirrored, turned, strict=True):
        np.testing.assert_array_equal(one, image[:, ::-1] if is_turned else image)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (25, 25), (400, 3)])
def test_long_side_takes_every_value_of_its_range_and_keeps_the_proportions(size):
    rng = np.random.default_rng(0)
    shapes = {random_long_side(rng, np.zeros((*size, 3), np.uint8), low=10, high=14).shape[:2] for _ in range(200)}
    assert {max(shape) for shape in shapes} == {10, 11, 12, 13, 14}
    for shape in shapes:
        scale = max(shape) / max(size)
        assert abs(min(shape) - min(size) * scale) <= 0.5 or shape[1] == 1
        assert np.argmax(shape) == np.argmax(size)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((100, 50), 0.5, (50, 25)), ((5, 7), 0.5, (2, 4)), ((3, 400), 0.1, (1, 40)), ((333, 500), 1.5, (500, 750))],
)
def test_scaled_size_rounds_half_to_even_and_keeps_a_pixel(size, scale, expected):
    assert scaled_size(size, scale) == expected


def test_resize_bicubic():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    assert resize_bicubic(image, (8, 12)) is image
    flat = resize_bicubic(np.full((8, 12, 3), (10, 200, 30), np.uint8), (5, 31))
    assert flat.shape == (5, 31, 3)
    assert flat.dtype == np.uint8
    assert (flat == (10, 200, 30)).all()
    # Antialiased: a chequerboard becomes grey, not one of its colours.
    board = np.repeat(255 * (np.indices((32, 32)).sum(0) % 2)[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(resize_bicubic(board, (8, 8)).astype(int) - 128).max() < 16


# Picture and mask.


@pytest.mark.parametrize(
    ("row", "length", "expected"),
    [
        ([0, 100], 4, [0, 25, 75, 100]),
        ([0, 100, 200], 1, [100]),
        ([0, 10, 20, 30, 40, 50, 60, 70], 2, [15, 55]),  # between two neighbours: not antialiased
        ([0, 100, 200, 50], 6, [0, 50, 117, 183, 125, 50]),
        ([7], 3, [7, 7, 7]),
        ([9, 4, 200], 3, [9, 4, 200]),
    ],
)
def test_linear_resize_of_a_row(row, length, expected):
    image = np.repeat(np.uint8(row).reshape(1, -1, 1), 3, axis=2)
    resized = resize_bilinear_uint8(image, (1, length))
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, np.repeat(np.uint8(expected).reshape(1, -1, 1), 3, axis=2))
    np.testing.assert_array_equal(resize_bilinear_uint8(image.swapaxes(0, 1), (length, 1)), resized.swapaxes(0, 1))


@pytest.mark.parametrize("size", [(4, 9), (13, 30), (17, 20), (40, 7), (26, 60)])
def test_linear_resize_is_opencv_s_within_a_grey_level(size):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (13, 30, 3), np.uint8)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    difference = np.abs(resize_bilinear_uint8(image, size).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.8


@pytest.mark.parametrize("size", [(21, 30), (7, 50)])
def test_picture_and_mask_are_scaled_alike(size):
    scales, found, rng = (0.5, 0.75, 1.0, 1.25, 1.5), set(), np.random.default_rng(0)
    mask = np.add.outer(2 * np.arange(size[0]), 3 * np.arange(size[1])).astype(np.uint8)  # says row and column
    for _ in range(60):
        image, labels = random_scale(rng, coordinates(*size), mask, scales=scales)
        found.add(labels.shape)
        assert image.shape == (*labels.shape, 3)
        assert image.dtype == labels.dtype == np.uint8
        rows, columns = (
            np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
            for new, old in zip(labels.shape, size, strict=True)
        )
        np.testing.assert_allclose(image[..., 0] - 1.0, np.tile(rows[:, None], (1, len(columns))), atol=0.501)
        np.testing.assert_allclose(image[..., 1] - 1.0, np.tile(columns, (len(rows), 1)), atol=0.501)
        assert (image[..., 2] == 7).all()
        # At most half a row and half a column away.
        np.testing.assert_allclose(labels, np.add.outer(2 * rows, 3 * columns), atol=2.501)
    assert found == {(int(scale * size[0]), int(scale * size[1])) for scale in scales}


def test_labels_are_never_mixed_and_a_pixel_stays():
    rng, mask = np.random.default_rng(0), 200 * (np.indices((9, 14)).sum(axis=0) % 2).astype(np.uint8)
    for scale in (0.3, 0.75, 1.25, 2.5):
        _, labels = random_scale(rng, coordinates(9, 14), mask, scales=[scale])
        assert set(np.unique(labels)) == {0, 200}
    image, labels = random_scale(rng, coordinates(1, 1), np.uint8([[5]]), scales=[0.5])
    assert image.tolist() == [[[1, 1, 7]]]
    assert labels.tolist() == [[5]]


@pytest.mark.parametrize("size", [(20, 30), (30, 10), (10, 30), (16, 16), (5, 6), (1, 1)])
def test_a_window_holds_the_same_part_of_picture_and_mask_and_255_beside_it(size):
    image, rng = coordinates(*size), np.random.default_rng(0)
    mask = image[..., 0] + 2 * image[..., 1]
    corners = set()
    for _ in range(60):
        canvas, labels, box = random_window(rng, image, mask, crop=16)
        assert (canvas.shape, canvas.dtype) == ((16, 16, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((16, 16), np.uint8)
        height, width = (min(length, 16) for length in size)
        assert box.dtype == np.int32
        assert box.tolist() == [0, 0, height, width]
        row, column = canvas[0, 0, :2].astype(int) - 1
        corners.add((row, column))
        inside = np.s_[row : row + height, column : column + width]
        np.testing.assert_array_equal(canvas[:height, :width], image[inside])
        np.testing.assert_array_equal(labels[:height, :width], mask[inside])
        canvas[:height, :width], labels[:height, :width] = 0, 255
        assert not canvas.any()
        assert (labels == 255).all()
    for axis in range(2):  # from the first to the last window
        found = {corner[axis] for corner in corners}
        assert (min(found), max(found)) == (0, max(size[axis] - 16, 0))


def test_the_label_of_the_padding_is_chosen():
    _, labels, _ = random_window(
        np.random.default_rng(0), coordinates(2, 3), np.ones((2, 3), np.uint8), crop=4, ignore=9
    )
    assert labels.tolist() == [[1, 1, 1, 9], [1, 1, 1, 9], [9, 9, 9, 9], [9, 9, 9, 9]]


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((375, 500), 1.0, (512, 683)),
        ((500, 375), 1.0, (683, 512)),
        ((375, 500), 0.5, (256, 341)),
        ((100, 1000), 1.0, (205, 2048)),  # the long side is full first
        ((600, 600), 2.0, (1024, 1024)),
    ],
)
def test_a_picture_is_as_large_as_fits(size, scale, expected):
    assert fitted_size(size, (512, 2048), scale=scale) == expected


def test_a_window_of_a_bilinear_resize_is_cut_from_the_whole():
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    window = slice(5, 20), slice(8, 40)
    expected = resize_bilinear_uint8(image, (30, 35))[window]
    np.testing.assert_array_equal(resize_bilinear_uint8(image, (30, 35), window=window), expected)


def test_no_class_has_too_much_of_a_window_where_that_can_be():
    """Class 2 is in the middle of class 1, with an unlabelled frame around."""
    mask, rng = np.full((60, 60), 255, np.uint8), np.random.default_rng(0)
    mask[10:50, 10:50] = 1
    mask[24:36, 24:36] = 2
    windows = [varied_window(rng, mask, crop=16, most=0.75) for _ in range(100)]
    free = [varied_window(rng, mask, crop=16, most=1) for _ in range(100)]

    def is_varied(window) -> bool:
        counts = np.bincount(mask[window].ravel(), minlength=256)[:255]
        return counts.max() < 0.75 * counts.sum()

    assert all(mask[window].shape == (16, 16) for window in [*windows, *free])
    assert sum(map(is_varied, windows)) > 2 * sum(map(is_varied, free)) > 0


def test_a_mask_of_one_class_has_a_window_all_the_same():
    rows, columns = varied_window(np.random.default_rng(0), np.ones((9, 30), np.uint8), crop=16, most=0.75)
    assert (rows, columns.stop - columns.start) == (slice(0, 16), 16)


def test_hue_saturation_and_value_are_those_of_the_standard_library_and_lead_back():
    colors = np.random.default_rng(0).integers(0, 256, (40, 25, 3), np.uint8)
    colors[:5] = colors[:5, :, :1]  # grey
    hsv = np.stack(to_hsv(colors), axis=-1).reshape(-1, 3)
    expected = np.array([colorsys.rgb_to_hsv(*color) for color in colors.reshape(-1, 3) / 255]) * [180, 255, 255]
    difference = np.abs(hsv - expected)
    difference[:, 0] = np.minimum(difference[:, 0], 180 - difference[:, 0])  # around the circle
    assert difference.max() <= 0.5 + 1e-3
    back = from_hsv(*np.moveaxis(hsv, -1, 0))
    precise = 255 * np.array([colorsys.hsv_to_rgb(*color) for color in hsv / [180, 255, 255]])
    assert np.abs(back - precise).max() <= 0.5 + 1e-3


def test_photometric_distortion():
    rng, image = np.random.default_rng(0), np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    made = [photometric_distortion(rng, image) for _ in range(300)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in made)
    same = [np.array_equal(one, image) for one in made]
    assert 5 < sum(same) < 40  # one of sixteen
    grey = np.full((4, 4, 3), 100, np.uint8)  # has no hue, and stays grey
    levels = [photometric_distortion(rng, grey) for _ in range(300)]
    assert all((one == one[0, 0, 0]).all() for one in levels)
    found = {int(one[0, 0, 0]) for one in levels}
    assert min(found) >= 34  # (100 - 32) / 2
    assert max(found) <= 198  # (100 + 32) 3 / 2
    assert max(found) - min(found) > 100
