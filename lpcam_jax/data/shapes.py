"""The embedded data set: small scenes with stuffed animals, drawn by this package."""

from typing import NamedTuple

import numpy as np

from ..seeds import IGNORE
from .records import Origin, Record

CLASS_NAMES = ("fox", "pig", "frog", "toucan", "owl", "panda")
BODY, HEAD = 1, 2  # in `Shapes.parts`

# (height, width). Few, because every size may cost a compilation.
_SIZES = ((80, 120), (96, 128), (96, 144), (96, 96), (128, 128), (120, 80), (128, 96), (144, 96))
_LABEL_COUNT_ODDS = (0.5, 0.35, 0.15)
# Relative to 1 for other classes: over all label counts, three in four objects are then in their own context.
_CONTEXT_WEIGHT = 10.0


class _Surface(NamedTuple):
    """A texture between two colours: smooth noise on cells of tall x wide pixels, or bricks with joints."""

    dark: tuple[int, int, int]
    light: tuple[int, int, int]
    tall: int
    wide: int
    blocks: bool = False


# Surfaces above and below the horizon. Classes 2k and 2k + 1 favour context k.
_CONTEXTS = {
    "meadow": (_Surface((112, 170, 226), (238, 244, 250), 13, 30), _Surface((62, 116, 44), (140, 186, 74), 5, 1)),
    "shore": (_Surface((28, 96, 150), (112, 186, 206), 3, 17), _Surface((206, 176, 124), (238, 216, 166), 3, 8)),
    "street": (
        _Surface((136, 62, 50), (186, 104, 82), 7, 15, blocks=True),
        _Surface((124, 124, 130), (160, 158, 156), 12, 26, blocks=True),
    ),
}

_OWN_FABRIC = 0.7  # share of a class's animals that are sewn from its own fabric

# Base colours of striped fabric; the other stripe is halfway to white.
_FABRICS = np.float32(
    [
        (196, 84, 78),
        (206, 158, 66),
        (92, 140, 108),
        (72, 122, 158),
        (124, 96, 150),
        (150, 110, 84),
        (186, 108, 140),
        (96, 104, 116),
    ]
)

_INK, _WHITE, _CREAM, _ORANGE = (34, 30, 36), (246, 244, 238), (244, 226, 178), (236, 122, 40)
_BROWN, _GREEN, _PINK, _ROSE = (112, 72, 44), (70, 168, 62), (246, 164, 178), (214, 104, 128)

# Faces as layers, from bottom to top, in units of the head's radius; x is the distance from the axis of
# symmetry. Four numbers: an ellipse (x, y, half width, half height); six: the corners of a triangle.
_FACES = {
    "fox": (
        ((0.25, -0.6, 0.95, -0.4, 0.85, -1.35), _ORANGE),
        ((0.45, -0.6, 0.82, -0.5, 0.78, -1.05), _INK),
        ((0, 0, 1.0, 0.85), _ORANGE),
        ((0.55, 0.3, 0.45, 0.4), _WHITE),
        ((0, 0.55, 0.42, 0.5), _WHITE),
        ((0, 0.75, 0.2, 0.17), _INK),
        ((0.42, -0.15, 0.14, 0.18), _INK),
    ),
    "pig": (
        ((0.35, -0.7, 1.0, -0.35, 0.95, -1.15), _ROSE),
        ((0, 0, 1.0, 0.95), _PINK),
        ((0, 0.3, 0.5, 0.38), _ROSE),
        ((0.2, 0.3, 0.11, 0.18), _INK),
        ((0.45, -0.28, 0.13, 0.15), _INK),
    ),
    "frog": (
        ((0.55, -0.65, 0.42, 0.42), _GREEN),
        ((0, 0.05, 1.15, 0.8), _GREEN),
        ((0.55, -0.68, 0.3, 0.3), _WHITE),
        ((0.55, -0.65, 0.15, 0.2), _INK),
        ((0, 0.3, 0.8, 0.26), _INK),
        ((0, 0.2, 0.84, 0.24), _GREEN),
    ),
    "toucan": (
        ((0, 0, 0.92, 1.0), _INK),
        ((0.45, -0.1, 0.42, 0.5), _WHITE),
        ((0.48, -0.22, 0.22, 0.22), (60, 150, 220)),
        ((0.48, -0.22, 0.11, 0.11), _INK),
        ((0, 0.45, 0.4, 0.8), (250, 184, 30)),
        ((0, 1.05, 0.24, 0.3), (204, 40, 34)),
    ),
    "owl": (
        ((0.3, -0.7, 0.95, -0.3, 0.9, -1.2), _BROWN),
        ((0, 0, 1.0, 0.98), _BROWN),
        ((0.42, -0.15, 0.46, 0.5), _CREAM),
        ((0.4, -0.15, 0.28, 0.3), (244, 176, 28)),
        ((0.4, -0.15, 0.15, 0.17), _INK),
        ((0, 0.62, 0.2, 0.1, -0.2, 0.1), _ORANGE),
    ),
    "panda": (
        ((0.72, -0.72, 0.38, 0.38), _INK),
        ((0, 0, 1.0, 0.92), _WHITE),
        ((0.42, -0.08, 0.27, 0.34), _INK),
        ((0.38, -0.12, 0.1, 0.1), _WHITE),
        ((0, 0.36, 0.2, 0.14), _INK),
    ),
}


class _Plan(NamedTuple):
    """The composition of a scene, decided before anything is drawn."""

    context: str
    classes: tuple[int, ...]
    size: tuple[int, int]


class _Scene(NamedTuple):
    """A scene while it is drawn.

    Attributes:
        image: float32 (H, W, 3).
        mask: uint8 (H, W), classes.
        parts: uint8 (H, W), parts of animals.
    """

    image: np.ndarray
    mask: np.ndarray
    parts: np.ndarray


class Shapes:
    """`count` drawn scenes with one to three of six kinds of stuffed animals: a demo and a test bed.

    The pictures are synthetic. They let everything run, and be looked at, without a download; a number measured on them
    says nothing about photographs. They deliberately imitate what makes segmentation from image labels hard, and were
    not tuned to flatter any method:

    - Parts. The head, about a sixth of an animal, identifies the class beyond doubt. Body, legs and tail have the same
      form in all classes. Seven in ten animals of a class are sewn from its own striped fabric, the others from any of
      eight, with slightly finer or more slanted stripes from class to class: like the wool of sheep, the body is
      evidence, but weaker evidence than the head. A perfect classifier of the fabric alone would name 72 % of the
      animals correctly, a blind one 17 %.
    - Contexts. A scene is a meadow, a shore or a street. Two classes favour each: a class is in its favourite context
      in about three quarters of its pictures and in the others by chance, so the background predicts labels, and
      classes with the same favourite occur together.
    - Clutter. Stones, twigs and balls belong to no class and occur everywhere.
    - Masks. Exact, with a line of 255 one pixel wide around each animal. Animals may overlap a little, but never so far
      that a labelled animal disappears.

    Record i depends only on (seed, i), not on `count`, nor on the machine's maths library, since pixels are computed by
    plain arithmetic without sines or logarithms.

    A RecordSource.

    Args:
        count: number of scenes.
        seed: of all of them.

    Attributes:
        contexts: name of each scene's context.
    """

    class_names = CLASS_NAMES
    has_masks = True

    def __init__(self, count: int, *, seed: int = 0):
        self._seed = seed
        self._plans = [_plan(np.random.default_rng([seed, i, 0])) for i in range(count)]
        self.ids = [f"scene_{i:05d}" for i in range(count)]
        self.contexts = [plan.context for plan in self._plans]
        self.labels = np.zeros((count, len(CLASS_NAMES)), np.float32)
        for row, plan in zip(self.labels, self._plans, strict=True):
            row[list(plan.classes)] = 1

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: int) -> Record:
        """Draw one scene."""
        scene = self._draw(index)
        image = np.clip(scene.image, 0, 255).astype(np.uint8)
        return Record(self.ids[index], image, self.labels[index].copy(), scene.mask)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W), without drawing."""
        return self._plans[index].size

    def origin(self, index: int) -> Origin:
        """The scene, as the seed draws it."""
        return Origin(f"scene {index} drawn with seed {self._seed}", (), b"")

    def parts(self, index: int) -> np.ndarray:
        """The part of an animal at each pixel: uint8 (H, W), 0 none, BODY (with legs and tail), HEAD."""
        return self._draw(index).parts

    def _draw(self, index: int) -> _Scene:
        i = range(len(self))[index]
        return _draw_scene(np.random.default_rng([self._seed, i, 1]), self._plans[i])


def _plan(rng: np.random.Generator) -> _Plan:
    context = int(rng.integers(len(_CONTEXTS)))
    weights = np.where(np.arange(len(CLASS_NAMES)) // 2 == context, _CONTEXT_WEIGHT, 1.0)
    count = 1 + rng.choice(len(_LABEL_COUNT_ODDS), p=_LABEL_COUNT_ODDS)
    classes = rng.choice(len(CLASS_NAMES), count, replace=False, p=weights / weights.sum())
    return _Plan(tuple(_CONTEXTS)[context], tuple(map(int, classes)), _SIZES[rng.integers(len(_SIZES))])


def _draw_scene(rng: np.random.Generator, plan: _Plan) -> _Scene:
    height, width = plan.size
    horizon = int(height * rng.uniform(0.25, 0.45))
    behind, below = _CONTEXTS[plan.context]
    image = np.empty((height, width, 3), np.float32)
    image[:horizon] = _surface(rng, behind, horizon, width)
    image[horizon:] = _surface(rng, below, height - horizon, width)
    scene = _Scene(image, *np.zeros((2, height, width), np.uint8))

    for _ in range(rng.integers(3, 8)):
        _draw_clutter(rng, image, rng.uniform(0, width), rng.uniform(horizon, height))
    places = _places(rng, len(plan.classes), horizon, height, width)
    for (y, x, span), k in sorted(zip(places, plan.classes, strict=True)):  # the far ones first
        _draw_animal(rng, scene, k, x, y, span)

    slope = np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-0.12, 0.12)
    image *= (1 + slope)[:, None] * rng.uniform(0.84, 1.1, 3).astype(np.float32)
    image += rng.integers(-7, 8, image.shape, dtype=np.int8)
    return scene


def _places(rng: np.random.Generator, count: int, horizon: int, height: int, width: int) -> list[list[float]]:
    """(y, x, span in pixels) of each animal, in the roomiest of 32 random arrangements."""
    short = min(height, width)
    span = short * rng.uniform(0.4, 0.75, count)
    margin = 0.2 * short
    y, x = np.moveaxis(rng.uniform((horizon, margin), (height - margin, width - margin), (32, count, 2)), 2, 0)
    apart = np.sqrt((x[:, :, None] - x[:, None]) ** 2 + (y[:, :, None] - y[:, None]) ** 2)
    nearest = (apart + 1e6 * np.eye(count)).min(axis=2)
    border = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    span = np.minimum(span, np.minimum(1.05 * nearest, 2.2 * border))
    best = (span / span.max(axis=0)).min(axis=1).argmax()
    return np.stack([y[best], x[best], span[best]], axis=1).tolist()


def _surface(rng: np.random.Generator, kind: _Surface, height: int, width: int) -> np.ndarray:
    if kind.blocks:
        y, x = np.ogrid[:height, :width]
        row = y // kind.tall
        shifted = x + row % 2 * (kind.wide // 2)
        shade = rng.random((height // kind.tall + 1, width // kind.wide + 2), dtype=np.float32)
        amount = shade[row, shifted // kind.wide]
        amount[(y % kind.tall == 0) | (shifted % kind.wide == 0)] = 1.8
    else:
        amount = _noise(rng, height, width, kind.tall, kind.wide)
        amount = 1.6 * amount - 0.4 + 0.2 * _noise(rng, height, width, 1, 2)
    dark, light = np.float32([kind.dark, kind.light]) + rng.uniform(-10, 10, 3).astype(np.float32)
    return dark + (light - dark) * amount[..., None]


def _noise(rng: np.random.Generator, height: int, width: int, tall: int, wide: int) -> np.ndarray:
    """Random values in [0, 1) on a grid of tall x wide cells, interpolated linearly."""
    grid = rng.random((height // tall + 2, width // wide + 2), dtype=np.float32)
    (i, di), (j, dj) = (np.divmod(np.arange(n), step) for n, step in ((height, tall), (width, wide)))
    grid = grid[i] + (grid[i + 1] - grid[i]) * np.float32(di / tall)[:, None]
    return grid[:, j] + (grid[:, j + 1] - grid[:, j]) * np.float32(dj / wide)


def _frame(
    shape: tuple[int, ...], x: float, y: float, scale: float, reach: float, tilt: float, flip: int = 1
) -> tuple[tuple[slice, ...], np.ndarray, np.ndarray]:
    """An object's bounding box in the picture, and its own coordinates (u right, v down) over that box.

    The object is centred at (x, y), its unit is `scale` pixels, its radius `reach` units; tilt = tan(angle / 2).
    """
    radius = int(scale * reach) + 2
    box = tuple(slice(max(int(c) - radius, 0), int(c) + radius + 1) for c in (y, x))
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    rows, columns = rows[box[0]], columns[:, box[1]]
    du, dv = np.float32((columns - x) * flip / scale), np.float32((rows - y) / scale)
    cos, sin = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
    return box, cos * du + sin * dv, cos * dv - sin * du


def _inside(u: np.ndarray, v: np.ndarray, form: tuple[float, ...]) -> np.ndarray:
    """Whether points are inside an ellipse (x, y, half width, half height), or a triangle given by its corners."""
    if len(form) == 4:
        x, y, a, b = form
        return ((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1
    corners = (form[:2], form[2:4], form[4:])
    p, q, r = (
        (bx - ax) * (v - ay) > (by - ay) * (u - ax)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True)
    )
    return (p == q) & (q == r)


def _draw_clutter(rng: np.random.Generator, image: np.ndarray, x: float, y: float) -> None:
    """A stone, a twig or a ball."""
    kind = rng.integers(3)
    form = (0, 0, 1, (0.7, 0.16, 1)[kind])
    colour = ((134, 130, 126), (96, 66, 42), rng.uniform(60, 240, 3))[kind]
    box, u, v = _frame(image.shape, x, y, rng.uniform(3, 7), 1, rng.uniform(-0.4, 0.4))
    where = _inside(u, v, form)
    image[box][where] = np.float32(colour) * (1.05 - 0.3 * v[where])[:, None]


def _draw_animal(rng: np.random.Generator, scene: _Scene, k: int, x: float, y: float, span: float) -> None:
    """Draw animal `k` on top of the scene; `span` is its length from head to tail in pixels."""
    flip, tilt = 1 if rng.random() < 0.5 else -1, rng.uniform(-0.14, 0.14)
    box, u, v = _frame(scene.mask.shape, x, y, span / 2.5, 1.7, tilt, flip)
    canvas = scene.image[box]

    # Fabric k is the class's own; stripes and slant vary less between classes than within each.
    odds = np.where(np.arange(len(_FABRICS)) == k, _OWN_FABRIC, (1 - _OWN_FABRIC) / (len(_FABRICS) - 1))
    dark = _FABRICS[rng.choice(len(_FABRICS), p=odds)] + np.float32(rng.uniform(-16, 16, 3))
    stripes, slant = rng.uniform(1.6, 3.2) + 0.12 * k, rng.uniform(-1, 1) + 0.15 * (k - 2.5)
    wave = np.clip(np.abs((u + slant * v) * stripes % 1 - 0.5) * 4 - 0.5, 0, 1)
    fabric = (dark + (255 - dark) / 2 * wave[..., None]) * (0.95 - 0.25 * v)[..., None]

    torso = _inside(u, v, (0, 0, 0.98, rng.uniform(0.52, 0.66)))
    limbs = _inside(u, v, (1.0, -0.3, rng.uniform(0.2, 0.32), rng.uniform(0.12, 0.25)))
    leg = rng.uniform(0.1, 0.14)
    for hip in (-0.65, -0.3, 0.35, 0.7):
        limbs |= _inside(u, v, (hip + rng.uniform(-0.06, 0.06), 0.55, leg, 0.45))

    # The face is symmetric, and tilted a little against the body.
    nod, size = rng.uniform(-0.2, 0.2), rng.uniform(0.35, 0.41)
    face_u, face_v = (u + 0.8 - nod * v) / size, (v + 0.42 + nod * u) / size
    layers = [(_inside(np.abs(face_u), face_v, form), colour) for form, colour in _FACES[CLASS_NAMES[k]]]
    head = np.logical_or.reduce([where for where, _ in layers])
    animal = torso | limbs | head

    shadow = _inside(u, v, (0, 0.92, 1.1, 0.2))
    canvas[shadow] *= 0.65
    canvas[limbs] = 0.75 * fabric[limbs]
    canvas[torso] = fabric[torso]
    for where, colour in layers:
        canvas[where] = np.float32(colour)
    canvas[(animal & _grow(~animal)) | (head & _grow(~head))] *= 0.55

    scene.mask[box][_grow(animal)] = IGNORE
    scene.mask[box][animal] = k + 1
    scene.parts[box][animal] = BODY
    scene.parts[box][head] = HEAD


def _grow(where: np.ndarray) -> np.ndarray:
    """Dilate a mask by its neighbours above, below, left and right."""
    grown = where.copy()
    grown[1:] |= where[:-1]
    grown[:-1] |= where[1:]
    grown[:, 1:] |= where[:, :-1]
    grown[:, :-1] |= where[:, 1:]
    return grown
