"""Training AMN on sure labels: given the classes of a picture, it learns where they are.

loss = balanced, smoothed cross entropy over the sure pixels of the batch         (`systems/amn/activation.py`)
"""

import jax
import numpy as np
import optax
from flax import nnx

from ...data.records import RecordSource
from ...data.resizing import shrunk
from ...training.checkpoints import TrainState
from ...training.loop import Plan, note_untrained_reach, steps_of, train
from ...training.optimizers import Group, backbone_groups, grouped
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..sure_labels import sure_crops
from .activation import balanced_loss
from .config import AMNTraining
from .network import AMN


def train_amn(job: Job, pictures: RecordSource) -> TrainState:
    """Train the AMN of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: pictures with sure labels as masks (`sure_labels`).

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`.
    """
    config, training = job.run.config, job.run.config.training
    network = network_of(config, len(job.run.class_names))
    note_untrained_reach(max(network.rates) * network.backbone.strides[-1], crop=training.crop)
    [[grid, _]] = network.grid_sizes(np.int32([[training.crop] * 2])).tolist()
    plan = Plan(
        shrunk(pictures, config.data.longest),
        sure_crops(training.crop, training.scale_range, grid=grid),
        amn_loss(training),
        amn_optimizer(training, network),
        steps_of(training, len(pictures)),
        "AMN",
    )
    return train(job, plan)


def amn_loss(training: AMNTraining) -> Loss:
    """The training loss.

    Args:
        training: holds the label smoothing.

    Returns:
        (AMN, batch of `sure_crops`, dropout key) -> float32 ().
    """

    def loss(model: AMN, batch: Batch, key: jax.Array) -> jax.Array:
        images = model.preprocessing(batch["image"], batch["box"])
        logits = model(images, batch["labels"], dropout_key=key)
        return balanced_loss(logits, batch["mask"], smoothing=training.smoothing)

    return loss


def amn_optimizer(training: AMNTraining, network: nnx.Module) -> optax.GradientTransformation:
    """AMN's optimizer: Adam at constant learning rates, higher for label encoder and convolutions.

    Args:
        training: learning rates, decay, frozen parts.
        network: AMN, abstract (shapes only) or concrete.

    Returns:
        optax.GradientTransformation of its parameters.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.

    Source: AMN, with torch's Adam: the decay is added to the gradient before its normalization (unlike AdamW, which
    decouples it).
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}

    def rule(group: Group) -> optax.GradientTransformation:
        rate = training.learning_rate * group.multiplier
        return optax.chain(optax.add_decayed_weights(group.decay), optax.adam(rate))

    return grouped(groups, backbone_groups(network, training.frozen), rule)
