"""Training augmentation on uint8 pictures: scale, mirror, crop, as in the IRN family, DeepLab, timm, mmsegmentation.

The order and rules are those of the reference code, except that normalization comes later, on the device. So each
canvas carries the box that its picture fills (`backbones/preprocessing.py` zeroes the rest).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from ..seeds import IGNORE
from .resizing import resize_bicubic, resize_bilinear_uint8, resize_mask, scaled_size


def random_long_side(rng: np.random.Generator, image: np.ndarray, *, low: int, high: int) -> np.ndarray:
    """Resize so that the long side is a uniform integer in [low, high].

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        low: shortest long side, pixels.
        high: longest long side, pixels.

    Returns:
        uint8 (H', W', 3).
    """
    target = int(rng.integers(low, high + 1))
    return resize_bicubic(image, scaled_size(image.shape[:2], target / max(image.shape[:2])))


def random_mirror(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Flip left and right with probability 1/2: uint8 (H, W, d) -> uint8 (H, W, d)."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def color_jitter(
    rng: np.random.Generator, image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """Change the colours at random, in random order.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        brightness: of black and the picture, by a uniform factor in 1 - brightness .. 1 + brightness; 0: unchanged.
        contrast: of its mean grey level and the picture.
        saturation: of its grey levels and the picture.
        hue: the largest shift, in turns of the colour circle, at most 1/2.

    Returns:
        uint8 (H, W, 3).

    Source: torchvision's ColorJitter on PIL images.
    """
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = [rng.uniform(max(1 - most, 0), 1 + most) for most in (brightness, contrast, saturation)]
    shift, picture = rng.uniform(-hue, hue), Image.fromarray(image)
    for number in rng.permutation(4):
        if number < 3:
            picture = enhancers[number](picture).enhance(factors[number])
        elif hue:
            h, s, v = picture.convert("HSV").split()
            turned = np.asarray(h) + np.uint8(int(shift * 255) % 256)
            picture = Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")
    return np.asarray(picture)


def random_crop(rng: np.random.Generator, image: np.ndarray, *, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """A random square crop; along a side that is shorter than the crop, the picture is placed at random instead.

    Args:
        rng: random generator.
        image: uint8 (H, W, d); a mask may be its last channel.
        crop: side of the square.

    Returns:
        canvas uint8 (crop, crop, d), and int32 (4,): top, left, bottom, right of the picture on it.
    """
    canvas = np.zeros((crop, crop, image.shape[2]), np.uint8)
    source, target = [], []
    for length in image.shape[:2]:
        room = crop - length
        offset = int(rng.integers(abs(room) + 1))
        shown = min(length, crop)
        start, place = (0, offset) if room >= 0 else (offset, 0)
        source.append(slice(start, start + shown))
        target.append(slice(place, place + shown))
    canvas[tuple(target)] = image[tuple(source)]
    return canvas, np.array([target[0].start, target[1].start, target[0].stop, target[1].stop], np.int32)


def random_box(
    rng: np.random.Generator, size: tuple[int, int], *, area: tuple[float, float], aspect: tuple[float, float]
) -> np.ndarray:
    """A random box in a picture; after ten that do not fit, none.

    Args:
        rng: random generator.
        size: (H, W) of the picture.
        area: smallest and largest share of the picture.
        aspect: smallest and largest height over width, drawn uniformly in the logarithm.

    Returns:
        int32 (4,): top, left, bottom, right (exclusive); 0 if there is none.

    Source: timm's RandomErasing, whose boxes are smaller than the picture along both sides.
    """
    for _ in range(10):
        height, width = _drawn_sides(rng, size, area, aspect)
        if 0 < height < size[0] and 0 < width < size[1]:
            top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
            return np.array([top, left, top + height, left + width], np.int32)
    return np.zeros(4, np.int32)


def random_resized_crop(
    rng: np.random.Generator, image: np.ndarray, *, crop: int, area: tuple[float, float]
) -> np.ndarray:
    """A random part of a picture, of 3:4 to 4:3, resized to a square (bicubic).

    After ten that do not fit it is the largest part of such a shape in the middle.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        crop: side of the square.
        area: smallest and largest share of the picture.

    Returns:
        uint8 (crop, crop, 3).

    Source: timm's RandomResizedCropAndInterpolation.
    """
    (height, width), aspect = image.shape[:2], (3 / 4, 4 / 3)
    for _ in range(10):
        rows, columns = _drawn_sides(rng, (height, width), area, aspect)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            break
    else:
        rows, columns = min(height, round(width * aspect[1])), min(width, round(height * aspect[1]))
        top, left = (height - rows) // 2, (width - columns) // 2
    return resize_bicubic(image[top : top + rows, left : left + columns], (crop, crop))


def _drawn_sides(
    rng: np.random.Generator, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Height and width of a box of a random share of the picture and a random height over width."""
    pixels = rng.uniform(*area) * size[0] * size[1]
    ratio = np.exp(rng.uniform(*np.log(aspect)))
    return round(np.sqrt(pixels * ratio)), round(np.sqrt(pixels / ratio))


def random_scale(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, *, scales: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Resize a picture (bilinear) and its mask (nearest) by a randomly chosen scale.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        scales: new over old length.

    Returns:
        uint8 (H', W', 3) and (H', W'), H' = floor(scale H).

    Source: DeepLabV2's recipe.
    """
    return scaled_alike(image, mask, scale=float(rng.choice(scales)))


def scaled_alike(image: np.ndarray, mask: np.ndarray, *, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """`random_scale` by a given scale."""
    if scale == 1:
        return image, mask
    size = tuple(max(int(length * scale), 1) for length in mask.shape)
    return resize_bilinear_uint8(image, size), resize_mask(mask, size)


def random_window(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, *, crop: int, ignore: int = IGNORE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random square crop of a picture and its mask; a shorter side is padded at the right or the bottom.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        crop: side of the square.
        ignore: label of the padding.

    Returns:
        canvas uint8 (crop, crop, 3); its mask uint8 (crop, crop); int32 (4,): top, left, bottom, right of the picture
        on it.

    Source: DeepLabV2's recipe.
    """
    window = _drawn_window(rng, mask.shape, crop)
    return on_canvas(image[window], mask[window], crop=crop, ignore=ignore)


def varied_window(rng: np.random.Generator, mask: np.ndarray, *, crop: int, most: float) -> tuple[slice, slice]:
    """A random square of a mask with two classes or more, of which none has too large a share of what is labelled.

    Args:
        rng: random generator.
        mask: uint8 (H, W).
        crop: side of the square; a shorter side is whole.
        most: the share that no class may reach; 1: everything is allowed.

    Returns:
        Rows and columns of the square. After ten that are not allowed it is any.

    Source: mmsegmentation's RandomCrop.
    """
    for _ in range(10):
        window = _drawn_window(rng, mask.shape, crop)
        counts = np.delete(np.bincount(mask[window].ravel(), minlength=256), IGNORE)
        if most == 1 or (np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum()):
            return window
    return _drawn_window(rng, mask.shape, crop)


def on_canvas(
    image: np.ndarray, mask: np.ndarray, *, crop: int, ignore: int = IGNORE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad a picture and its mask, neither larger than a square, at the right and the bottom; as in `random_window`."""
    canvas, labels = np.zeros((crop, crop, 3), np.uint8), np.full((crop, crop), ignore, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    labels[: mask.shape[0], : mask.shape[1]] = mask
    return canvas, labels, np.array([0, 0, *mask.shape], np.int32)


def _drawn_window(rng: np.random.Generator, size: tuple[int, int], crop: int) -> tuple[slice, slice]:
    """Rows and columns of a random square of a picture (H, W)."""
    top, left = (int(rng.integers(max(length - crop, 0) + 1)) for length in size)
    return slice(top, top + crop), slice(left, left + crop)
