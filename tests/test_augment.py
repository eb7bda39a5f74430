"""Scale, mirror, crop: what stays of a picture, and where it lies."""

import numpy as np
import pytest

from lpcam_jax.data.augment import random_crop, random_long_side, random_mirror, resize, scaled_size


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


def test_resize():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    assert resize(image, (8, 12)) is image
    flat = resize(np.full((8, 12, 3), (10, 200, 30), np.uint8), (5, 31))
    assert flat.shape == (5, 31, 3)
    assert flat.dtype == np.uint8
    assert (flat == (10, 200, 30)).all()
    # Antialiased: a chequerboard becomes grey, not one of its colours.
    board = np.repeat(255 * (np.indices((32, 32)).sum(0) % 2)[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(resize(board, (8, 8)).astype(int) - 128).max() < 16
