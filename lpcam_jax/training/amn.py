"""Training AMN from sure labels: it is told which classes are in a picture, and learns where they are.

loss = balanced, smoothed cross entropy over the sure pixels of the batch         (`refine/amn.py`)
"""

from functools import partial

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from .. import processes
from ..config import AMNTraining
from ..data.pipeline import sure_crops, training_batches
from ..data.records import RecordSource
from ..models.amn import build_amn
from ..refine.amn import balanced_loss
from .checkpoints import TrainState
from .loop import Batch, TrainStep, check_batch, first_state, note_untrained_reach, run_steps, steps_of
from .optimizers import amn_optimizer
from .run import Run
from .state import graph_of


def make_train_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, training: AMNTraining, *, seed: int
) -> TrainStep:
    """The jitted step.

    Args:
        graph: of AMN.
        optimizer: of its parameters.
        training: the smoothing.
        seed: of the dropout.

    Returns:
        (state, batch) -> (state, {"loss": float32 ()}); the state that goes in is donated.
    """

    def loss_of(parameters, batch_stats, batch, key):
        model = nnx.merge(graph, parameters, batch_stats)
        images = model.preprocessing(batch["image"], batch["box"])
        logits = model(images, batch["labels"], dropout_key=key)
        return balanced_loss(logits, batch["mask"], smoothing=training.smoothing)

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.parameters, state.batch_stats, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(state.step + 1, parameters, state.batch_stats, opt_state), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def train_amn(run: Run, pictures: RecordSource, *, devices: Mesh) -> TrainState:
    """Train, or go on training, the AMN of a run; its last checkpoint is the result.

    Args:
        run: directory and config.
        pictures: with sure labels as their masks (`sure_labels`).
        devices: the mesh.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `run_steps` and `first_state`, or the batch does not divide over the devices.
    """
    config, training, classes = run.config, run.config.training, len(run.class_names)
    check_batch(training.batch_size, 1, devices)
    model = nnx.eval_shape(partial(build_amn, config.model, classes))
    note_untrained_reach(max(model.rates) * config.model.output_stride, crop=training.crop)
    [[grid, _]] = model.grid_sizes(np.int32([[training.crop] * 2])).tolist()
    steps = steps_of(training, len(pictures))
    graph, *_ = graph_of(config, classes)
    optimizer = amn_optimizer(training)
    return run_steps(
        run,
        first_state(run, optimizer, devices=devices),
        make_train_step(graph, optimizer, training, seed=config.seed),
        lambda start: training_batches(
            pictures,
            sure_crops(training, grid=grid),
            batch_size=training.batch_size,
            seed=config.seed,
            start=start,
            part=processes.part(),
        ),
        steps=steps,
        validation=None,
        description="AMN",
        devices=devices,
    )
