"""The training loop of all systems: steps, log, validation, checkpoints, and resuming.

One jitted step on pure dicts, with the batch sharded over the mesh and the state donated. The randomness of step t
depends only on t and the seed, so a resumed run ends with the same bits as an uninterrupted one.
"""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from ..data.pipeline import Augmentation, training_batches
from ..data.records import RecordSource
from ..machine import processes
from ..machine.devices import abstract_on, replicate, shard
from ..machine.errors import UserError
from ..machine.stopping import Stopping
from .checkpoints import CheckpointWriter, TrainState, all_finite, restore
from .checks import check_batch, check_pictures
from .log import MetricsLog, Silence
from .run import Job, Run
from .state import graph_of, initial_state, starts_blind, with_weights
from .step import Batch, Loss, TrainStep, make_train_step


class Validation(NamedTuple):
    """A validation measure and its schedule.

    Attributes:
        every: steps between validations; the last step is always validated.
        measure: state -> the measure, in [0, 1]; NaN if there is nothing to measure.
        name: name of the measure in the log.
    """

    every: int
    measure: Callable[[TrainState], float]
    name: str


class Plan(NamedTuple):
    """The training of one network, executed by `train`.

    Attributes:
        pictures: the pictures to train on.
        augmented: record -> named arrays of fixed shapes.
        loss: the loss of a batch.
        optimizer: the optimizer of the parameters.
        steps: total number of steps.
        description: label of the progress bar.
        accumulate: number of parts each batch is split into (gradient accumulation).
        least: pictures of a part; 2 where a batch norm takes its statistics from one value of each picture.
        validation: the validation; None: no validation.
        shared: whether the augmentation draws something for whole batches, see `training_batches`.
        instead: the first state -> what the batches are of, in place of the pictures; None: the pictures.
        shuffled: whether the batches are of a new order in each epoch; otherwise they are in the order of their source.
        unit: of what the batch size counts, for the progress bar.
    """

    pictures: RecordSource
    augmented: Augmentation
    loss: Loss
    optimizer: optax.GradientTransformation
    steps: int
    description: str
    accumulate: int = 1
    least: int = 1
    validation: Validation | None = None
    shared: bool = False
    instead: Callable[[TrainState], Any] | None = None
    shuffled: bool = True
    unit: str = "img"


def train(job: Job, plan: Plan) -> TrainState:
    """Train the network of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        plan: the training.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `run_steps` and `first_state`; or the batch size is not divisible by parts times devices.
    """
    run, devices = job
    config = run.config
    check_batch(config.training.batch_size, plan.accumulate, devices, least=plan.least)
    check_pictures(run, plan.pictures)
    graph, *_ = graph_of(config, len(run.class_names))
    step = make_train_step(
        graph,
        plan.optimizer,
        plan.loss,
        seed=config.seed,
        accumulate=plan.accumulate,
        average=run.system.average(config),
    )
    state = first_state(run, plan.optimizer, devices=devices)
    return run_steps(
        run,
        state,
        step,
        lambda start: training_batches(
            plan.instead(state) if plan.instead else plan.pictures,
            plan.augmented,
            batch_size=config.training.batch_size,
            seed=config.seed,
            shared=plan.shared,
            shuffled=plan.shuffled,
            start=start,
            part=processes.part(),
        ),
        steps=plan.steps,
        validation=plan.validation,
        description=plan.description,
        unit=plan.unit,
        devices=devices,
    )


def first_state(run: Run, optimizer: optax.GradientTransformation, *, devices: Mesh) -> TrainState:
    """The newest checkpoint of the run or, without one, step 0 with the pretrained weights named in its config.

    Args:
        run: directory and config.
        optimizer: the optimizer of the parameters.
        devices: the mesh.

    Returns:
        TrainState on all devices.

    Raises:
        UserError: see `restore` and `with_weights`.
    """
    config = run.config
    initialize = partial(initial_state, config, len(run.class_names), optimizer)
    if run.steps():
        return restore(run, abstract_on(jax.eval_shape(initialize), devices))
    if starts_blind(config, len(run.class_names)):
        tqdm.write(
            "note: without --model.weights, and with frozen batch norm, this is a dry run: expect no model"
            + (f"; --model.weights {example} downloads some" if (example := config.model.example_weights) else "")
        )
    state = jax.jit(initialize)()
    if config.model.weights:
        state = with_weights(state, config, devices=devices)
    return replicate(state, devices)


class Epochs(Protocol):
    """The fields of a training config that determine its length."""

    epochs: int
    least_steps: int
    batch_size: int


def steps_of(training: Epochs, pictures: int) -> int:
    """Total number of steps: whole epochs over this many pictures, with extra epochs to reach `least_steps`."""
    steps_per_epoch = max(pictures // training.batch_size, 1)
    return steps_per_epoch * max(training.epochs, math.ceil(training.least_steps / steps_per_epoch))


def note_untrained_reach(reach: int, *, crop: int) -> None:
    """Print a note if the head's widest convolution, with this reach in pixels, only uses its centre within a crop."""
    if reach >= crop:
        tqdm.write(
            f"note: the head reaches {reach} pixels, further than a crop of {crop}: its outer weights "
            "stay random and will disturb larger pictures; choose a larger --training.crop or smaller --model.rates."
        )


def run_steps(
    run: Run,
    state: TrainState,
    step: TrainStep,
    batches: Callable[[int], Generator[Batch, None, None]],
    *,
    steps: int,
    validation: Validation | None,
    description: str,
    unit: str = "img",
    devices: Mesh,
) -> TrainState:
    """Run the remaining steps; the last checkpoint is the result.

    Args:
        run: directory and config.
        state: the state to start from, see `first_state`.
        step: (state, batch) -> (state, {"loss": float32 ()}); the input state may be donated.
        batches: number of the first step -> the batches from that step on; closed at the end.
        steps: total number of steps.
        validation: the validation; None: no validation.
        description: label of the progress bar.
        unit: of what the batch size counts.
        devices: the mesh.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: the loss is not finite, a picture cannot be read, or the disk is full.
        KeyboardInterrupt: the program was asked to stop; there is a checkpoint of the step that it was at.
    """
    training, start = run.config.training, int(state.step)
    if start >= steps:
        return state
    log = MetricsLog(run.metrics_file, start=start) if processes.is_first() else Silence()
    b = training.batch_size
    bar = tqdm(total=steps * b, initial=start * b, desc=description, unit=unit)
    # Reading a loss waits for its step. So it is read when the next step is already on the devices, which then always
    # have work, and the next batch is read and put on them meanwhile.
    unread: dict[int, jax.Array] = {}

    def has_diverged(how: str, number: int) -> UserError:
        checkpoints.wait()
        return UserError(
            f"{how} at step {number}; lower --training.learning-rate and run again with another --workdir (checkpoints "
            f"up to step {max(run.steps(), default=0)} are intact)."
        )

    def read_losses() -> None:
        for number in list(unread):
            loss = float(unread.pop(number))
            if not math.isfinite(loss):
                raise has_diverged(f"the loss is {loss}", number)
            bar.update(b)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            log.write({"step": number, "loss": loss})

    with bar, log, closing(batches(start)) as feed, CheckpointWriter(run) as checkpoints, Stopping() as stopping:
        for number in range(start + 1, steps + 1):
            try:
                batch = shard(next(feed), devices)
            except UserError:
                read_losses()
                raise
            state, metrics = step(state, batch)
            read_losses()
            unread[number] = metrics["loss"]
            is_last = number == steps
            validates = validation is not None and (number % validation.every == 0 or is_last)
            saves = number % training.checkpoint_every == 0 or is_last or stopping.asked is not None
            if validates or saves:
                read_losses()
            if validates:
                score = validation.measure(state)
                bar.unpause()  # its rate, and the time it says is left, are those of training
                if math.isfinite(score):
                    log.write({"step": number, f"validation_{validation.name.lower()}": score})
                    bar.write(f"step {number} of {steps}: validation {validation.name} {100 * score:.1f} %")
                saves = saves or stopping.asked is not None
            # Saved last, so that the log has all lines of a step before its checkpoint exists.
            if saves:
                # The loss of a step is that of the parameters before it.
                if not all_finite((state.parameters, state.batch_stats)):
                    raise has_diverged("the parameters are not finite", number)
                checkpoints.save(number, state)
                if stopping.asked is not None:
                    stopping.end()
            else:
                checkpoints.check()
    return state
