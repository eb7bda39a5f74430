"""The training steps that are measured: the product's own, with the shapes of what they take."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.draws import CLASSES
from lpcam_jax.systems.deeplab.config import DeepLabConfig
from lpcam_jax.systems.deeplab.training import deeplab_loss, deeplab_optimizer
from lpcam_jax.systems.edam.config import EDAMConfig
from lpcam_jax.systems.edam.training import edam_loss, edam_optimizer
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.lpcam.training import classification_loss, classifier_optimizer
from lpcam_jax.systems.upernet.config import UperNetConfig
from lpcam_jax.systems.upernet.training import upernet_loss, upernet_optimizer
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.state import graph_of, initial_state, network_of
from lpcam_jax.training.step import TrainStep, make_train_step


class Step(NamedTuple):
    """A training step.

    Attributes:
        function: (state, batch) -> (state, metrics), jitted; the state is donated.
        optimizer: of its parameters.
        state: shapes of the state.
        batch: shapes of the batch.
    """

    function: TrainStep
    optimizer: optax.GradientTransformation
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]


def classifier_step(config: LPCAMConfig) -> Step:
    """Of the classifier."""
    training, network = config.training, network_of(config, CLASSES)
    labels = {"labels": jax.ShapeDtypeStruct((training.batch_size, CLASSES), np.float32)}
    loss = classification_loss(train_batch_norm=training.batch_norm == "train")
    return _step(config, classifier_optimizer(training, network, steps=1000), loss, labels)


def edam_step(config: EDAMConfig) -> Step:
    """Of EDAM."""
    training, network = config.training, network_of(config, CLASSES)
    labels = {"labels": jax.ShapeDtypeStruct((training.batch_size, 2, CLASSES), np.float32)}
    optimizer = edam_optimizer(training, network, steps=1000)
    return _step(config, optimizer, edam_loss(training), labels, pictures=(2,))


def segmentation_step(config: DeepLabConfig) -> Step:
    """Of DeepLab."""
    training, network = config.training, network_of(config, CLASSES)
    loss = deeplab_loss(train_backbone=training.batch_norm == "train")
    optimizer = deeplab_optimizer(training, network)
    return _step(config, optimizer, loss, _mask(training), accumulate=training.accumulate)


def upernet_step(config: UperNetConfig) -> Step:
    """Of UperNet."""
    training, network = config.training, network_of(config, CLASSES)
    optimizer = upernet_optimizer(training, network)
    return _step(config, optimizer, upernet_loss(training), _mask(training), accumulate=training.accumulate)


def _mask(training: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return {"mask": jax.ShapeDtypeStruct((training.batch_size, training.crop, training.crop), np.uint8)}


def _step(
    config: Any,
    optimizer: Any,
    loss: Any,
    labels: dict[str, jax.ShapeDtypeStruct],
    *,
    pictures: tuple[int, ...] = (),
    **options: Any,
) -> Step:
    """Of a batch of pictures, or of `pictures` together."""
    b, side = config.training.batch_size, config.training.crop
    batch = {
        "image": jax.ShapeDtypeStruct((b, *pictures, side, side, 3), np.uint8),
        "box": jax.ShapeDtypeStruct((b, *pictures, 4), np.int32),
        **labels,
    }
    graph, *_ = graph_of(config, CLASSES)
    state = jax.eval_shape(partial(initial_state, config, CLASSES, optimizer))
    return Step(make_train_step(graph, optimizer, loss, seed=0, **options), optimizer, state, batch)
