"""Classifier and LPCAM as one function of pictures, for other programs.

    pictures uint8 (b, H, W, 3)  ->  cam, lpcam float32 (b, H, W, c),  probabilities float32 (b, c)

and, for a run with LPCAM-T, its maps as `taught`. The maps are those of `maps` at scale 1, mirror image added, for all
classes: the caller chooses the classes of each picture, by its labels or by the probabilities.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...prototype_activation import lpcam
from ...prototypes import Prototypes
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import graph_of, network_of
from ..base import Program
from .maps import cam_of_pair, on_picture


def classifier_program(
    run: Run, config: Any, state: TrainState, prototypes: Prototypes, size: tuple[int, int]
) -> Program:
    """The program of a classifier.

    Args:
        run: its run.
        config: that of the run, at the precision of the program.
        state: its parameters and batch statistics.
        prototypes: the prototypes of its classes.
        size: (H, W) of the pictures.
    """
    classes = len(run.class_names)
    graph, *_ = graph_of(config, classes)
    stride = network_of(config, classes).backbone.strides[-1]
    # Host arrays, so that the program does not depend on the number of devices here.
    arrays = jax.tree.map(np.asarray, (state.parameters, state.batch_stats, prototypes))

    def classify_and_map(pictures: jax.Array) -> dict[str, jax.Array]:
        parameters, batch_stats, prototypes = jax.tree.map(jnp.asarray, arrays)
        model = nnx.merge(graph, parameters, batch_stats)
        count = pictures.shape[0]
        both = jnp.concatenate([pictures, pictures[:, :, ::-1]])
        features = model.features(model.preprocessing(both, jnp.array([[0, 0, *size]], jnp.int32)))
        logits = model.logits(features)
        straight, mirrored = features[:count], features[count:, :, ::-1]
        by_method = {"lpcam": prototypes} | ({} if prototypes.taught is None else {"taught": prototypes.taught})
        return {
            "cam": on_picture([cam_of_pair(straight, mirrored, model.head[...])], size, stride=stride),
            **{
                method: on_picture([lpcam(straight + mirrored, directions)], size, stride=stride, epsilon=0.0)
                for method, directions in by_method.items()
            },
            "probabilities": jax.nn.sigmoid((logits[:count] + logits[count:]) / 2),
        }

    maps = f"float32 (b, {size[0]}, {size[1]}, {classes}), each in [0, 1]"
    methods = ("cam", "lpcam") if prototypes.taught is None else ("cam", "lpcam", "taught")
    outputs = dict.fromkeys(methods, maps) | {"probabilities": f"float32 (b, {classes}), each in [0, 1]"}
    without = "" if config.inference.affinity is None else "LPCAM-A, in which the labels of a picture compete"
    names, of_run = tuple(run.class_names), (run.directory.name, int(state.step))
    return Program(classify_and_map, size, outputs, names, *of_run, without)
