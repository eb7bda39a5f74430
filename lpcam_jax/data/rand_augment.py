"""RandAugment: a few random changes of colour or shape.

Each of `count` operations is drawn from all of them, applied with a probability, and as strongly as a level says that
varies around a magnitude: at 0 it leaves the picture as it is, but for the three that have no level and posterize,
which keeps four bits; at 10 hardly anything is left.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Picture = Image.Image
Color = tuple[int, int, int]


def rand_augment(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    fill: Color,
    magnitude: float = 9.0,
    deviation: float = 0.5,
    count: int = 2,
    probability: float = 0.5,
) -> np.ndarray:
    """Change a picture at random.

    Args:
        rng: random generator.
        image: uint8 (H, W, 3), RGB.
        fill: colour of what a picture is moved away from.
        magnitude: mean of the levels, in [0, 10].
        deviation: their standard deviation; they are clipped to [0, 10].
        count: operations, drawn with replacement.
        probability: of applying each of them.

    Returns:
        uint8 (H, W, 3).

    Source: Cubuk et al., RandAugment (2020), as timm's "rand-m9-mstd0.5-inc1" with bicubic interpolation.
    """
    picture = Image.fromarray(image)
    for number in rng.integers(len(OPERATIONS), size=count):
        if rng.random() < probability:
            level = float(np.clip(rng.normal(magnitude, deviation), 0, 10)) / 10
            sign = 1 if rng.random() < 0.5 else -1
            picture = list(OPERATIONS.values())[number](picture, level, sign, fill)
    return np.asarray(picture)


def _enhanced(kind: type) -> Callable[[Picture, float, int, Color], Picture]:
    return lambda picture, level, sign, fill: kind(picture).enhance(1 + 0.9 * sign * level)


def _moved(picture: Picture, matrix: tuple[float, ...], fill: Color) -> Picture:
    """The picture whose pixel (x, y) is at (a x + b y + c, d x + e y + f) in this one."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=fill
    )


def _lightened(picture: Picture, amount: int) -> Picture:
    """Dark values get lighter."""
    return picture.point([min(value + amount, 255) if value < 128 else value for value in range(256)] * 3)


def _posterized(picture: Picture, bits: int) -> Picture:
    """The highest bits of every value; of none, black."""
    return ImageOps.posterize(picture, bits) if bits else picture.point([0] * 768)


# (picture, level in [0, 1], sign of what has a direction, colour of what is uncovered) -> picture
OPERATIONS: dict[str, Callable[[Picture, float, int, Color], Picture]] = {
    "contrast to the full": lambda picture, level, sign, fill: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign, fill: ImageOps.equalize(picture),
    "invert": lambda picture, level, sign, fill: ImageOps.invert(picture),
    "rotate": lambda picture, level, sign, fill: picture.rotate(
        sign * 30 * level, resample=Image.Resampling.BICUBIC, fillcolor=fill
    ),
    "posterize": lambda picture, level, sign, fill: _posterized(picture, 4 - int(4 * level)),
    "solarize": lambda picture, level, sign, fill: ImageOps.solarize(picture, 256 - int(256 * level)),
    "lighten": lambda picture, level, sign, fill: _lightened(picture, int(110 * level)),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear rows": lambda picture, level, sign, fill: _moved(picture, (1, 0.3 * sign * level, 0, 0, 1, 0), fill),
    "shear columns": lambda picture, level, sign, fill: _moved(picture, (1, 0, 0, 0.3 * sign * level, 1, 0), fill),
    "shift across": lambda picture, level, sign, fill: _moved(
        picture, (1, 0, 0.45 * sign * level * picture.width, 0, 1, 0), fill
    ),
    "shift down": lambda picture, level, sign, fill: _moved(
        picture, (1, 0, 0, 0, 1, 0.45 * sign * level * picture.height), fill
    ),
}
