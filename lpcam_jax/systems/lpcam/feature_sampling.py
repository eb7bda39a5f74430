"""What the classifier gives to the prototype stage: its features, the CAM that splits them, its head.

pictures -> CAM (several scales) -> split of the features (scale 1, no mirror image) -> `FeatureSample`
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from ...class_activation import resize_nearest
from ...data.records import RecordSource
from ...inference.plan import Outputs
from ...local_features import FeatureSample
from ...training.checkpoints import TrainState
from ...training.state import network_of
from ..prototyping import sampling
from ..prototyping.clustered import Clustered, Size
from .config import LPCAMConfig
from .maps import cam_of_pair, features_of_both, on_picture
from .network import Classifier


def clustered(config: LPCAMConfig, state: TrainState) -> Clustered:
    """What of a trained classifier is clustered.

    Args:
        config: the run's config.
        state: the trained classifier.

    Source: reference step "make_lpcam".
    """
    head = np.asarray(state.parameters["head"])
    stride = network_of(config, head.shape[1]).backbone.strides[-1]

    def on_grid(maps: Sequence[np.ndarray], size: Size, grid: Size) -> np.ndarray:
        return resize_nearest(on_picture(maps, size, stride=stride), grid)[..., 0]

    return Clustered(cam_and_features, cam_of_both, config.prototypes.cam_scales, on_grid, stride, head)


def sample_features(
    config: LPCAMConfig, state: TrainState, source: RecordSource, *, thresholds: Sequence[float], devices: Mesh
) -> list[FeatureSample]:
    """`prototyping.sampling.sample_features` of a trained classifier."""
    of = clustered(config, state)
    return sampling.sample_features(config, state, source, of, thresholds=thresholds, devices=devices)


def cam_of_both(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Sum of the CAMs of padded pictures and of their mirror images: float32 (b, h', w', c)."""
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    return {"cam": cam_of_pair(straight, mirrored, model.head[...])}


def cam_and_features(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """`cam_of_both`, and the features of the pictures, float32 (b, h', w', d)."""
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    return {"cam": cam_of_pair(straight, mirrored, model.head[...]), "features": straight}
