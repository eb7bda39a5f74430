"""The LPCAM kernel, and plain CAM."""

import jax
import numpy as np

from benchmarks import draws
from benchmarks.contestant import Ready
from benchmarks.ours.trained import drawn_prototypes
from lpcam_jax import cam, directions, lpcam


def ours(blocks: int, made: bool) -> Ready:
    """LPCAM from prototypes; or from directions that were made once."""
    prototypes = jax.device_put(drawn_prototypes())
    return _on_features(blocks, lpcam, directions(prototypes) if made else prototypes)


def plain(blocks: int) -> Ready:
    """CAM."""
    return _on_features(blocks, cam, jax.device_put(draws.head()))


def _on_features(blocks: int, function, weights) -> Ready:
    features = jax.device_put(draws.features(blocks))
    name = "cam" if function is cam else "maps"
    return Ready(lambda: jax.block_until_ready(function(features, weights)), lambda maps: {name: np.asarray(maps)})
