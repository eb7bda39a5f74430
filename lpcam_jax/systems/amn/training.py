"""Training AMN from sure labels: it is told which classes are in a picture, and learns where they are.

loss = balanced, smoothed cross entropy over the sure pixels of the batch         (`systems/amn/activation.py`)
"""

import jax
import numpy as np
import optax
from flax import nnx

from ...data.records import RecordSource
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
    """Train, or go on training, the AMN of a run; its last checkpoint is the result.

    Args:
        job: the run, and the mesh.
        pictures: with sure labels as their masks (`sure_labels`).

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `training.loop.train`.
    """
    config, training = job.run.config, job.run.config.training
    network = network_of(config, len(job.run.class_names))
    note_untrained_reach(max(network.rates) * network.backbone.strides[-1], crop=training.crop)
    [[grid, _]] = network.grid_sizes(np.int32([[training.crop] * 2])).tolist()
    plan = Plan(
        pictures,
        sure_crops(training.crop, training.scale_range, grid=grid),
        amn_loss(training),
        amn_optimizer(training, network),
        steps_of(training, len(pictures)),
        "AMN",
    )
    return train(job, plan)


def amn_loss(training: AMNTraining) -> Loss:
    """The loss.

    Args:
        training: the smoothing.

    Returns:
        (AMN, batch of `sure_crops`, key of the dropout) -> float32 ().
    """

    def loss(model: AMN, batch: Batch, key: jax.Array) -> jax.Array:
        images = model.preprocessing(batch["image"], batch["box"])
        logits = model(images, batch["labels"], dropout_key=key)
        return balanced_loss(logits, batch["mask"], smoothing=training.smoothing)

    return loss


def amn_optimizer(training: AMNTraining, network: nnx.Module) -> optax.GradientTransformation:
    """The optimizer of AMN: Adam at constant rates, larger for label encoder and convolutions.

    Args:
        training: rates, groups, decay.
        network: AMN, with or without memory.

    Returns:
        optax.GradientTransformation of its parameters.

    Raises:
        UserError: a frozen part is none of the backbone.

    Source: AMN's, torch's Adam: the decay is added to the gradient, and so divided by its running size (not as in
    AdamW, which decouples it).
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}

    def rule(group: Group) -> optax.GradientTransformation:
        rate = training.learning_rate * group.multiplier
        return optax.chain(optax.add_decayed_weights(group.decay), optax.adam(rate))

    return grouped(groups, backbone_groups(network, training.frozen), rule)
