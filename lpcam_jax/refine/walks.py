"""Refinement of one picture's heat maps by a random walk with a network's affinities: NumPy in, NumPy out."""

import numpy as np

from ..class_activation import resize_bilinear
from ..machine.devices import finishing
from ..machine.padding import PIXELS, canvas_of, padded, power_of_two
from .random_walk import STRIDE, on_picture, random_walk
from .similarity import walk_by_similarity


def walked_maps(
    maps: np.ndarray, edges: np.ndarray, *, radius: int = 5, power: float = 1.0, beta: float = 10.0, steps: int = 256
) -> np.ndarray:
    """Spread heat maps by a random walk that does not easily cross edges.

    Args:
        maps: float (n, H, W), in [0, 1].
        edges: float32 (ceil(H / 4), ceil(W / 4)), edge probabilities.
        radius: a step leads to positions nearer than this, on the grid of the edges.
        power: exponent applied to the maps.
        beta: exponent of the affinities.
        steps: number of steps.

    Returns:
        float32 (n, H, W), with 1 as the largest value over all maps; zeros if all maps are zero.

    Source: IRN's step "make_sem_seg_labels".
    """
    (count, *size), grid = maps.shape, edges.shape
    if not count:
        return maps
    channels_last = np.moveaxis(maps.astype(np.float32, copy=False), 0, -1)
    canvas = canvas_of(grid, PIXELS // STRIDE)
    low = padded(resize_bilinear(channels_last, grid) ** power, canvas, labels=power_of_two(count))
    options = {"radius": radius, "beta": beta, "steps": steps, "size": np.int32(grid)}
    with finishing():
        walked = np.asarray(random_walk(low, padded(edges, canvas), **options))
    return np.moveaxis(on_picture(walked[: grid[0], : grid[1], :count], size), -1, 0)


def similar_labels(
    maps: np.ndarray,
    features: np.ndarray,
    *,
    stride: int,
    background: float,
    radius: int = 5,
    beta: float = 8.0,
    steps: int = 64,
) -> np.ndarray:
    """Labels from heat maps and a constant background, spread by a random walk among pixels of similar features.

    Args:
        maps: float (n, H, W), in [0, 1].
        features: float32 (h, w, d), of the picture's positions, which cover it.
        stride: pixels per position.
        background: the background's map, everywhere.
        radius: a step leads to positions nearer than this.
        beta: exponent of the affinities.
        steps: number of steps.

    Returns:
        uint8 (H, W), 0 background, k + 1 the k-th map.

    Source: psa, infer_aff.py: maps and background are padded with zeros to whole positions, averaged over each, walked,
    and enlarged bilinearly.
    """
    (count, *size), grid = maps.shape, features.shape[:2]
    if not count:
        return np.zeros(size, np.uint8)
    scores = np.concatenate([np.full((1, *size), background, np.float32), maps.astype(np.float32, copy=False)])
    whole = [(0, stride * cells - length) for cells, length in zip(grid, size, strict=True)]
    pooled = np.pad(scores, [(0, 0), *whole]).reshape(count + 1, grid[0], stride, grid[1], stride).mean(axis=(2, 4))
    canvas = canvas_of(grid, PIXELS // stride)
    low = padded(np.moveaxis(pooled, 0, -1), canvas, labels=1 + power_of_two(count))
    options = {"radius": radius, "beta": beta, "steps": steps, "size": np.int32(grid)}
    with finishing():
        walked = np.asarray(walk_by_similarity(low, padded(features, canvas), **options))
    walked = walked[: grid[0], : grid[1], : count + 1]
    return resize_bilinear(walked, (stride * grid[0], stride * grid[1]), crop=size).argmax(axis=-1).astype(np.uint8)
