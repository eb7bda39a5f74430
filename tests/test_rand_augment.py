"""RandAugment, random parts of pictures and random boxes, as timm trains with them."""

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.augment import random_box, random_resized_crop
from lpcam_jax.data.rand_augment import OPERATIONS, rand_augment

FILL = (124, 116, 104)
GEOMETRY = ("rotate", "shear rows", "shear columns", "shift across", "shift down")
WITHOUT_LEVEL = ("contrast to the full", "equalize", "invert")


def photograph(height=40, width=60) -> Image.Image:
    """Of all colours, nowhere flat."""
    rows, columns = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).integers(0, 20, (height, width))
    image = np.stack([4 * rows + grain, 3 * columns + grain, 200 - 2 * rows - columns], axis=-1)
    return Image.fromarray(image.astype(np.uint8))


def changed(name: str, level: float, sign: int = 1) -> np.ndarray:
    return np.asarray(OPERATIONS[name](photograph(), level, sign, FILL)).astype(int)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_the_size_and_grows_with_the_level(name):
    image = np.asarray(photograph()).astype(int)
    changes = [np.abs(changed(name, level) - image).mean() for level in (0.0, 0.4, 0.9)]
    if name in WITHOUT_LEVEL:
        assert changes[0] == changes[1] == changes[2] > 0
    elif name == "posterize":  # of 4 bits at the least
        assert 0 < changes[0] < changes[1] < changes[2]
    else:
        assert changes[0] <= 1
        assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", GEOMETRY)
def test_what_is_uncovered_is_filled_and_either_direction_occurs(name):
    one, other = (changed(name, 1.0, sign) for sign in (1, -1))
    assert (one == FILL).all(axis=-1).mean() > 0.05
    assert (one != other).any()


def test_of_no_bits_a_picture_is_black():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
    assert np.asarray(OPERATIONS["posterize"](picture, 1.0, 1, (0, 0, 0))).max() == 0


def test_shift_is_of_a_share_of_the_side():
    image = np.asarray(photograph()).astype(int)
    np.testing.assert_array_equal(changed("shift across", 1.0)[:, :33], image[:, 27:])
    np.testing.assert_array_equal(changed("shift down", 1.0, -1)[18:], image[:22])


def test_about_a_quarter_of_the_pictures_stays_and_the_same_seed_gives_the_same():
    image = np.asarray(photograph())
    made = [rand_augment(np.random.default_rng(seed), image, fill=FILL) for seed in range(200)]
    same = np.mean([np.array_equal(one, image) for one in made])
    assert 0.15 < same < 0.4  # neither of two is applied
    again = rand_augment(np.random.default_rng(7), image, fill=FILL)
    np.testing.assert_array_equal(again, made[7])


def test_parts_have_their_share_and_shape_and_lie_anywhere():
    """Of a picture whose pixels say where they are, enlarged little, so that corners tell."""
    rows, columns = np.mgrid[0:200, 0:250]
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    shares, shapes, tops = [], [], []
    for seed in range(300):
        part = random_resized_crop(np.random.default_rng(seed), image, crop=64, area=(0.2, 0.5)).astype(float)
        height, width = (np.ptp(part[..., axis]) * 64 / 63 for axis in (0, 1))
        shares.append(height * width / image[..., 0].size)
        shapes.append(height / width)
        tops.append(part[..., 0].min())
    assert 0.17 < min(shares) < 0.25
    assert 0.45 < max(shares) < 0.55
    assert 0.7 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.42
    assert min(tops) < 10
    assert max(tops) > 60


@pytest.mark.parametrize("size", [(300, 7), (7, 300)])
def test_of_a_picture_that_no_part_fits_in_it_is_the_middle(size):
    image = np.zeros((*size, 3), np.uint8)
    rows, columns = (slice(max(length // 2 - 4, 0), length // 2 + 4) for length in size)
    image[rows, columns] = 255  # 8 x 7; the part is 9 x 7
    part = random_resized_crop(np.random.default_rng(0), image, crop=16, area=(0.9, 1.0))
    assert part.mean() > 200


def test_a_box_that_cannot_fit_is_none():
    assert not random_box(np.random.default_rng(0), (1, 1), area=(0.02, 0.3), aspect=(0.3, 3)).any()
