"""Training IRNet on sure labels: an edge should separate pairs of pixels with different labels, and only those.

loss = affinity loss + displacement loss         (`losses`; the latter only if its branch is trained)
"""

import jax
import optax

from ...data.records import RecordSource
from ...data.resizing import shrunk
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
    """Train the IRNet of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: pictures with sure labels as masks (`sure_labels`).

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`; or the crop is no multiple of 4, or too small for the radius.
    """
    training = job.run.config.training
    least = 2 * STRIDE * training.radius
    if training.crop % STRIDE or training.crop < least:
        raise UserError(
            f"--training.crop {training.crop}: IRNet compares positions less than {training.radius} apart on a grid of "
            f"4 pixels; give a multiple of 4 that is at least {least}."
        )
    steps = steps_of(training, len(pictures))
    plan = Plan(
        shrunk(pictures, job.run.config.data.longest),
        sure_crops(training.crop, training.scale_range, grid=training.crop // STRIDE),
        irn_loss(training, classes=len(job.run.class_names)),
        irn_optimizer(training, steps=steps),
        steps,
        "IRNet",
    )
    return train(job, plan)


def irn_loss(training: IRNTraining, *, classes: int) -> Loss:
    """The training loss.

    Args:
        training: holds the radius, and whether the displacement branch is trained.
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
    """IRNet's optimizer: a higher learning rate for the displacement branch, and a frozen backbone.

    Args:
        training: learning rates, decay, whether the displacement branch is trained.
        steps: number of steps after which the learning rate is 0.

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
