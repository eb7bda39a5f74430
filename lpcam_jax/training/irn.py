"""Training IRNet from sure labels: pairs of pixels of one label are to be joined, pairs of two to be parted by an edge.

loss = affinity loss + displacement loss         (`refine/irn.py`; without the latter where its branch is not wanted)
"""

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from .. import processes
from ..config import IRNTraining
from ..data.pipeline import sure_crops, training_batches
from ..data.records import RecordSource
from ..errors import UserError
from ..refine.irn import affinity_loss, displacement_loss
from ..refine.paths import search_paths
from .checkpoints import TrainState
from .loop import Batch, TrainStep, check_batch, first_state, run_steps, steps_of
from .optimizers import irn_optimizer
from .run import Run
from .state import graph_of


def make_train_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, training: IRNTraining, *, classes: int
) -> TrainStep:
    """The jitted step.

    Args:
        graph: of IRNet.
        optimizer: of its parameters.
        training: radius, and which branches are trained.
        classes: c, without the background.

    Returns:
        (state, batch) -> (state, {"loss": float32 ()}); the state that goes in is donated.
    """
    paths = search_paths(training.radius)

    def loss_of(parameters, batch_stats, batch):
        model = nnx.merge(graph, parameters, batch_stats)
        taps = model.taps(model.preprocessing(batch["image"], batch["box"]))
        loss = affinity_loss(jax.nn.sigmoid(model.edges(taps)), batch["mask"], paths, classes=classes)
        if training.displacement:
            loss += displacement_loss(model.displacements(taps), batch["mask"], paths, classes=classes)
        return loss

    def step(state: TrainState, batch: Batch):
        loss, gradients = jax.value_and_grad(loss_of)(state.parameters, state.batch_stats, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(state.step + 1, parameters, state.batch_stats, opt_state), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def train_irn(run: Run, pictures: RecordSource, *, devices: Mesh) -> TrainState:
    """Train, or go on training, the IRNet of a run; its last checkpoint is the result.

    Args:
        run: directory and config.
        pictures: with sure labels as their masks (`sure_labels`).
        devices: the mesh.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `run_steps` and `first_state`, the batch does not divide over the devices, or the crop does not
            fit the radius.
    """
    config, training = run.config, run.config.training
    check_batch(training.batch_size, 1, devices)
    if training.crop % 4 or training.crop < 8 * training.radius:
        raise UserError(
            f"--training.crop {training.crop}: IRNet's edges are on every fourth pixel, and pairs {training.radius} of "
            f"these apart; give a multiple of 4 that is at least {8 * training.radius}."
        )
    steps = steps_of(training, len(pictures))
    graph, *_ = graph_of(config, len(run.class_names))
    optimizer = irn_optimizer(training, steps=steps)
    return run_steps(
        run,
        first_state(run, optimizer, devices=devices),
        make_train_step(graph, optimizer, training, classes=len(run.class_names)),
        lambda start: training_batches(
            pictures,
            sure_crops(training, grid=training.crop // 4),
            batch_size=training.batch_size,
            seed=config.seed,
            start=start,
            part=processes.part(),
        ),
        steps=steps,
        validation=None,
        description="IRNet",
        devices=devices,
    )
