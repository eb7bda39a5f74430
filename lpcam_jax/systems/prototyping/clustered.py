"""What a system clusters: the interface between its network and the prototype stage."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ...inference.forward import Function

Size = tuple[int, int]


class Clustered(NamedTuple):
    """The features of a network, the maps that split them, and the weights that score centres.

    Attributes:
        features: (network, pictures, sizes) -> "features" float32 (b, h', w', d), and "cam" float32 (b, h', w', c); of
            the pictures at scale 1.
        cam: the same without the features; of the pictures at every other scale.
        scales: of the pictures, over which the CAM is fused.
        on_grid: (maps of one class float (h_s, w_s, 1), at each of the scales; (H, W) of the picture; (h', w') of its
            features) -> the CAM float (h', w') in [0, 1] that splits the features.
        stride: pixels per feature position.
        weights: float (d, c), which score the centres.
        bias: float (c,), of the scores; None: there is none.
    """

    features: Function
    cam: Function
    scales: tuple[float, ...]
    on_grid: Callable[[Sequence[np.ndarray], Size, Size], np.ndarray]
    stride: int
    weights: np.ndarray | jax.Array
    bias: np.ndarray | jax.Array | None = None
