"""A linear probe: the head is trained alone, on features that are computed once.

    logits_n = w_n . mean_x f(x)          f does not change, and its mean is all that the head needs of a picture

So a picture and its mirror image are pooled before the first step, whole and at the first inference scale, as they are
mapped later. Then an epoch takes seconds.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...data.pipeline import Batch
from ...data.records import RecordSource
from ...inference.forward import out_of_pairs, with_mirror_images
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine import processes
from ...machine.devices import local_mesh
from ...machine.errors import UserError
from ...metrics import mean_average_precision
from ...training.checkpoints import TrainState
from ...training.loop import Validation
from ...training.optimizers import EVERYTHING
from ...training.state import graph_of, network_in_training
from .config import LPCAMConfig, LPCAMTraining
from .network import Classifier


class Pooled(NamedTuple):
    """What a linear probe is trained on, a random-access source of `PooledPicture`.

    Attributes:
        features: float32 (n, 2, d), means over the positions of each picture and of its mirror image.
        labels: float32 (n, c).
    """

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> "PooledPicture":
        return PooledPicture(self.features[index], self.labels[index])


class PooledPicture(NamedTuple):
    """features: float32 (2, d); labels: float32 (c,)."""

    features: np.ndarray
    labels: np.ndarray


def is_linear_probe(training: LPCAMTraining) -> bool:
    """Whether nothing changes but the head: all parts are frozen, and the statistics of batch norm, too."""
    return training.frozen == (EVERYTHING,) and training.batch_norm == "frozen"


def pooled(
    config: LPCAMConfig, state: TrainState, source: RecordSource, *, description: str, skip: bool = False
) -> Pooled:
    """Pool the features of all pictures; each process computes its share and has all in the end.

    Args:
        config: the run's config.
        state: parameters and statistics of the network.
        source: n labelled pictures.
        description: label of the progress bar.
        skip: leave out pictures that cannot be read.

    Raises:
        UserError: a picture cannot be read.
    """
    devices, classes = local_mesh(), len(source.class_names)
    graph, *_ = graph_of(config, classes)
    results = network_in_training(config, graph, state, devices=devices).run(
        pooled_of_both,
        source,
        scales=config.inference.scales[:1],
        batches=config.inference,
        description=description,
        only=processes.share(range(len(source))),
    )
    own, features = [], np.zeros((len(source), 2, state.parameters["head"].shape[0]), np.float32)
    for index, record, of_picture in finish_each(results, lambda _, outputs: outputs[0]["pooled"]):
        if not isinstance(record, UserError):
            own.append(index)
            features[index] = of_picture
        elif not skip:
            raise record
    indices = np.concatenate(processes.gather(np.array(own, np.int32)))
    return Pooled(
        np.concatenate(processes.gather(features[own]))[np.argsort(indices)],
        np.asarray(source.labels, np.float32)[np.sort(indices)],
    )


def pooled_of_both(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Means over positions of the features of padded pictures and of their mirror images: float32 (b, 2, d)."""
    images, extents = with_mirror_images(model, pictures, sizes)
    means = model.pooled(model.features(images, extents), extents)
    return {"pooled": jnp.stack(out_of_pairs(means), axis=1)}


def either(picture: PooledPicture, rng: np.random.Generator) -> Batch:
    """A picture or its mirror image, by chance: features float32 (d,), labels float32 (c,)."""
    return {"features": picture.features[rng.integers(2)], "labels": picture.labels}


def head_loss(model: Classifier, batch: Batch, _: jax.Array) -> jax.Array:
    """The classifier's loss for a batch of `either`."""
    return optax.sigmoid_binary_cross_entropy(model.scores(batch["features"]), batch["labels"]).mean()


def probe_validation(config: LPCAMConfig, validation: RecordSource, *, every: int) -> Validation:
    """Validation by mAP on pooled pictures: that of `mean_precision`, whose logits are means over the same two.

    Args:
        config: the run's config.
        validation: labelled pictures; those that cannot be read are left out.
        every: steps between validations.
    """
    pictures: list[Pooled] = []

    def measure(state: TrainState) -> float:
        if not pictures:
            pictures.append(pooled(config, state, validation, description="validation", skip=True))
        features, labels = pictures[0]
        if not len(labels):
            return math.nan
        return float(mean_average_precision(labels, features.mean(axis=1) @ np.asarray(state.parameters["head"])))

    return Validation(every, measure, "mAP")
