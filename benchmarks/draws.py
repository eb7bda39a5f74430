"""Data that both sides of a contest need, drawn from the same seed, by NumPy and Pillow alone."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 20
CLASS_NAMES = tuple(f"class{n:02d}" for n in range(CLASSES))
# (rows, columns) of photographs as VOC has them, the most common sizes.
SIZES = ((375, 500), (500, 375), (333, 500), (375, 500), (500, 333), (375, 500), (500, 375), (334, 500))
PHOTOGRAPHS = Path(__file__).parents[1] / ".bench" / "photographs"


def features(blocks: int) -> np.ndarray:
    """Feature blocks, float32 (blocks, 32, 32, 2048), >= 0."""
    return _positive(np.random.default_rng(0), (blocks, 32, 32, 2048))


def head(channels: int = 2048) -> np.ndarray:
    """A classifier's head, float32 (channels, CLASSES)."""
    return np.random.default_rng(1).normal(0, 0.05, (channels, CLASSES)).astype(np.float32)


def prototypes(channels: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Class and context centres, float32 (CLASSES, 12, channels) each."""
    rng = np.random.default_rng(2)
    return tuple(_positive(rng, (CLASSES, 12, channels)) for _ in range(2))


def points(count: int, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around more directions than are looked for, float32 (count, 2048), and the first centres."""
    rng = np.random.default_rng(3)
    around = 0.3 * rng.standard_normal((3 * clusters, 2048), np.float32)[rng.integers(0, 3 * clusters, count)]
    around += rng.standard_normal(around.shape, np.float32)
    return np.maximum(around, 0, out=around), around[:clusters].copy()


def mean_cosine(points: np.ndarray, directions: np.ndarray) -> float:
    """What spherical k-means maximizes, of points to the best of the directions."""
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return float(((points @ directions.T).max(axis=1) / np.linalg.norm(points, axis=1)).mean(dtype=np.float64))


def images(count: int, side: int) -> np.ndarray:
    """Pictures, uint8 (count, side, side, 3)."""
    return np.random.default_rng(4).integers(0, 256, (count, side, side, 3), np.uint8)


def labels(count: int) -> np.ndarray:
    """Of `images`, float32 (count, CLASSES)."""
    return np.random.default_rng(5).integers(0, 2, (count, CLASSES)).astype(np.float32)


def classifier(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> dict[str, np.ndarray]:
    """A ResNet's weights under torchvision's names, and the head as fc.weight; features keep their scale."""
    rng, arrays = np.random.default_rng(6), {}

    def convolution(name, outputs, inputs, size):
        spread = (2 / (inputs * size * size)) ** 0.5
        arrays[f"{name}.weight"] = spread * rng.standard_normal((outputs, inputs, size, size), np.float32)

    def norm(name, channels, low, high):
        for kind, values in {
            "weight": (low, high),
            "bias": (-0.3, 0.3),
            "running_mean": (-0.5, 0.5),
            "running_var": (0.6, 1.8),
        }.items():
            arrays[f"{name}.{kind}"] = rng.uniform(*values, channels).astype(np.float32)

    convolution("conv1", width, 3, 7)
    norm("bn1", width, 0.6, 1.4)
    inputs = width
    for stage, count in enumerate(blocks):
        wide = width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            for number, (outs, ins, size) in enumerate(
                ((wide, inputs, 1), (wide, wide, 3), (4 * wide, wide, 1)), start=1
            ):
                convolution(f"{name}.conv{number}", outs, ins, size)
                # Small at the end of a block: the sum over many blocks stays in scale.
                norm(f"{name}.bn{number}", outs, *((0.1, 0.4) if number == 3 else (0.6, 1.4)))
            if block == 0:
                convolution(f"{name}.downsample.0", 4 * wide, inputs, 1)
                norm(f"{name}.downsample.1", 4 * wide, 0.6, 1.4)
            inputs = 4 * wide
    arrays["fc.weight"] = np.ascontiguousarray(head(inputs).T)
    return arrays


def photographs(count: int) -> Path:
    """A folder of JPEG files and labels.csv, written once: smooth noise with some grain, in the sizes of VOC."""
    folder = PHOTOGRAPHS / str(count)
    if (folder / "labels.csv").exists():
        return folder
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(7), []
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        grain = rng.normal(0, 8, (height, width, 3))
        picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / "images" / f"{number:04d}.jpg", quality=90)
        chosen = {(number + step) % CLASSES for step in (0, 8, 16)}  # all classes are in eight pictures
        rows.append((f"{number:04d}", " ".join(CLASS_NAMES[n] for n in sorted(chosen))))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "labels"), *rows])
    return folder


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """As after a ReLU: half zeros."""
    return np.maximum(rng.standard_normal(shape, np.float32), 0)
