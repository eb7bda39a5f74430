"""Training the affinity network on labels that two CRFs agree on."""

import jax
import optax
from flax import nnx

from ...machine.errors import UserError
from ...training.checkpoints import TrainState
from ...training.loop import Plan, steps_of, train
from ...training.optimizers import FROZEN, Group, Path, backbone_groups, grouped, is_in_norm, poly
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from .config import PSATraining
from .labels import ScoredPictures, labelled_crops
from .losses import affinity_loss
from .network import AffinityNet


def train_affinity(job: Job, pictures: ScoredPictures) -> TrainState:
    """Train the affinity network of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: pictures with the scores of both CRFs.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`; or the crop does not fit the grid, or is too small for the radius.
    """
    config, training = job.run.config, job.run.config.training
    network = network_of(config, len(job.run.class_names))
    least = 2 * network.stride * training.radius
    if training.crop % network.stride or training.crop < least:
        raise UserError(
            f"--training.crop {training.crop}: the network compares positions less than {training.radius} apart "
            f"(--training.radius) on a grid of {network.stride} pixels; give a multiple of {network.stride} that is at "
            f"least {least}."
        )
    steps = steps_of(training, len(pictures))
    plan = Plan(
        pictures,
        labelled_crops(training, stride=network.stride),
        psa_loss(training),
        psa_optimizer(training, network, steps=steps),
        steps,
        "affinity",
    )
    return train(job, plan)


def psa_loss(training: PSATraining) -> Loss:
    """The training loss: (AffinityNet, batch of `labelled_crops`, key of the backbone's dropout) -> float32 ()."""

    def loss(model: AffinityNet, batch: Batch, key: jax.Array) -> jax.Array:
        features = model.features(model.preprocessing(batch["image"], batch["box"]), key=key)
        return affinity_loss(features, batch["mask"], radius=training.radius)

    return loss


def psa_optimizer(training: PSATraining, network: nnx.Module, *, steps: int) -> optax.GradientTransformation:
    """The optimizer: a higher learning rate for the layers behind the backbone.

    Args:
        training: learning rates, decay, frozen parts.
        network: the affinity network, abstract (shapes only) or concrete.
        steps: number of steps after which the learning rate is 0.

    Returns:
        optax.GradientTransformation of its parameters; batch norms of the backbone keep scale and shift.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.

    Source: psa's "PolyOptimizer", and its network, which freezes all batch norms.
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}
    part_of, in_norm = backbone_groups(network, training.frozen), is_in_norm(network)

    def group_of(path: Path) -> str:
        return FROZEN if in_norm(path) else part_of(path)

    return grouped(groups, group_of, poly(training, steps=steps))
