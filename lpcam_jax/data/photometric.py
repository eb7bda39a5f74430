"""Photometric distortion: brightness, contrast, saturation and hue, each step on pictures of 8 bits.

Hue is in half degrees, 0 to 179, as OpenCV keeps it in 8 bits; saturation and value are from 0 to 255.
"""

import numpy as np


def photometric_distortion(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change the colours of a picture; each of the four changes is made with probability 1/2.

        brightness    + uniform(-32, 32)
        contrast      x uniform(0.5, 1.5)       before saturation and hue or after them, with probability 1/2
        saturation    x uniform(0.5, 1.5)
        hue           + an integer in -18 .. 17, around the circle

    After each, values are cut off at 0 and 255 and rounded down.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3), RGB.

    Returns:
        uint8 (H, W, 3).

    Source: mmsegmentation's PhotoMetricDistortion.
    """

    def happens() -> bool:
        return rng.random() < 0.5

    def with_contrast(image: np.ndarray) -> np.ndarray:
        return _scaled(image, factor=rng.uniform(0.5, 1.5)) if happens() else image

    if happens():
        image = _scaled(image, shift=rng.uniform(-32, 32))
    contrast_is_first = happens()
    if contrast_is_first:
        image = with_contrast(image)
    if happens():
        hue, saturation, value = to_hsv(image)
        image = from_hsv(hue, _scaled(saturation, factor=rng.uniform(0.5, 1.5)), value)
    if happens():
        hue, saturation, value = to_hsv(image)
        turned = (hue.astype(int) + rng.integers(-18, 18)) % _TURN
        image = from_hsv(turned.astype(np.uint8), saturation, value)
    return image if contrast_is_first else with_contrast(image)


def to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value, uint8 (H, W) each and rounded, of a picture uint8 (H, W, 3) in RGB."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    value, least = image.max(axis=-1), image.min(axis=-1)
    # Grey has no hue, and black no saturation: both are 0.
    spread, most = np.maximum(value - least, 1).astype(np.float32), np.maximum(value, 1).astype(np.float32)
    sixths = np.where(
        red == value,
        (green - blue) / spread,
        np.where(green == value, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    hue = np.floor(sixths * (_TURN / 6) + 0.5).astype(int) % _TURN
    saturation = np.floor(255 * (value - least).astype(np.float32) / most + 0.5)
    return hue.astype(np.uint8), saturation.astype(np.uint8), value


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The picture uint8 (H, W, 3), rounded, of hue, saturation and value uint8 (H, W)."""
    greyness = saturation[..., None].astype(np.float32) / 255 * _AWAY[hue]
    return np.floor(value[..., None] * (1 - greyness) + np.float32(0.5)).astype(np.uint8)


def _scaled(values: np.ndarray, *, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Values of uint8 times a factor plus a shift, cut off and rounded down."""
    return np.clip(values.astype(np.float32) * np.float32(factor) + np.float32(shift), 0, 255).astype(np.uint8)


def _distances() -> np.ndarray:
    """How far red, green and blue of a full colour of every hue are from their largest: float32 (180, 3), 0 to 1."""
    sixths = (np.arange(_TURN)[:, None] / (_TURN / 6) + [5, 3, 1]) % 6
    return np.clip(np.minimum(sixths, 4 - sixths), 0, 1).astype(np.float32)


_TURN = 180
_AWAY = _distances()
