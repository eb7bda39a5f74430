"""The size of a picture at another scale, which pictures and feature grids share."""

import numpy as np


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times a scale, rounded half to even as NumPy rounds, at least one pixel."""
    return max(int(np.round(size[0] * scale)), 1), max(int(np.round(size[1] * scale)), 1)
