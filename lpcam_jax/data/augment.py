"""Training augmentation of the IRN family, on uint8 pictures: scale, mirror, crop.

Order and rules are the reference's; only the normalization comes later, on the device, and so a canvas carries the box
where its picture lies (`models/preprocessing.py` makes the rest zero).
"""

import numpy as np
from PIL import Image


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic resize as PIL does it: antialiased when shrinking, rounded to uint8.

    Args:
        image: uint8 (H, W, 3).
        size: (rows, columns) of the result.

    Returns:
        uint8 (rows, columns, 3).
    """
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times a scale, rounded half to even as NumPy rounds, at least one pixel."""
    return max(int(np.round(size[0] * scale)), 1), max(int(np.round(size[1] * scale)), 1)


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
    return resize(image, scaled_size(image.shape[:2], target / max(image.shape[:2])))


def random_mirror(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Left becomes right in half of the calls: uint8 (H, W, 3) -> uint8 (H, W, 3)."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def random_crop(rng: np.random.Generator, image: np.ndarray, *, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """A square window of the picture, or the picture at a random place on a square canvas, side by side.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3).
        crop: side of the square.

    Returns:
        canvas uint8 (crop, crop, 3), and int32 (4,): top, left, bottom, right of the picture on it.
    """
    canvas = np.zeros((crop, crop, 3), np.uint8)
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
