"""Training IRNet from sure labels: pairs of pixels of one label are to be joined, pairs of two to be parted by an edge.

loss = affinity loss + displacement loss         (`losses`; without the latter where its branch is not wanted)
"""

import jax
import optax

from ...data.records import RecordSource
from ...machine.errors import UserError
from ...refine.paths import search_paths
from ...training.checkpoints import TrainState
from ...training.loop import Plan, steps_of, train
from ...training.optimizers import FROZEN, Group, Path, grouped, poly
from ...training.run import Job
from ...training.step import Batch, Loss
from ..sure_labels import sure_crops
from .config import IRNTraining
from .losses import affinity_loss, displacement_loss
from .network import STRIDE, IRNet


def train_irn(job: Job, pictures: RecordSource) -> TrainState:
    """Train, or go on training, the IRNet of a run; its last checkpoint is the result.

    Args:
        job: the run, and the mesh.
        pictures: with sure labels as their masks (`sure_labels`).

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `training.loop.train`, or the crop does not fit the radius.
    """
    training = job.run.config.training
    least = 2 * STRIDE * training.radius
    if training.crop % STRIDE or training.crop < least:
        raise UserError(
            f"--training.crop {training.crop}: IRNet's edges are on every fourth pixel, and pairs {training.radius} of "
            f"these apart; give a multiple of 4 that is at least {least}."
        )
    steps = steps_of(training, len(pictures))
    plan = Plan(
        pictures,
        sure_crops(training.crop, training.scale_range, grid=training.crop // STRIDE),
        irn_loss(training, classes=len(job.run.class_names)),
        irn_optimizer(training, steps=steps),
        steps,
        "IRNet",
    )
    return train(job, plan)


def irn_loss(training: IRNTraining, *, classes: int) -> Loss:
    """The loss.

    Args:
        training: radius, and which branches are trained.
        classes: c, without the background.

    Returns:
        (IRNet, batch of `sure_crops`, key) -> float32 ().
    """
    paths = search_paths(training.radius)

    def loss(model: IRNet, batch: Batch, _: jax.Array) -> jax.Array:
        taps = model.taps(model.preprocessing(batch["image"], batch["box"]))
        value = affinity_loss(jax.nn.sigmoid(model.edges(taps)), batch["mask"], paths, classes=classes)
        if training.displacement:
            value += displacement_loss(model.displacements(taps), batch["mask"], paths, classes=classes)
        return value

    return loss


def irn_optimizer(training: IRNTraining, *, steps: int) -> optax.GradientTransformation:
    """The optimizer of IRNet: the displacement branch learns faster, the backbone not at all.

    Args:
        training: rates, decay, whether the displacement branch is trained.
        steps: after which the rate is 0.

    Returns:
        optax.GradientTransformation of its parameters.

    Source: IRN's "PolyOptimizer".
    """
    decay = training.weight_decay
    groups = {"edge": Group(1.0, decay), "displacement": Group(training.displacement_multiplier, decay)}
    trained = groups if training.displacement else ("edge",)

    def group_of(path: Path) -> str:
        return path[0] if path[0] in trained else FROZEN

    return grouped(groups, group_of, poly(training, steps=steps))
