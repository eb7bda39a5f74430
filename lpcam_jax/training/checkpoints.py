"""Checkpoints of a training run: written while it trains, restored to continue it or to use its network."""

import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from ..machine import processes
from ..machine.errors import UserError, first_line
from ..machine.files import free_space
from .checksums import find_damage, write_checksums
from .run import Run

# Upper bound on the bytes of names, shapes and shardings of about a thousand arrays.
_METADATA_BYTES = 2**20


class TrainState(NamedTuple):
    """The state of training.

    Attributes:
        step: int32 ().
        parameters: Nested dict of arrays.
        batch_stats: Nested dict of arrays.
        opt_state: The state of the optimizer.
        average: The running mean of the parameters, if the recipe asks for one.
    """

    step: jax.Array
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None = None


def restore(run: Run, abstract: TrainState) -> TrainState:
    """Restore the newest checkpoint of a run.

    Args:
        run: The run.
        abstract: A state of `jax.ShapeDtypeStruct`s with the shardings to restore to. Fields that are None are not
            restored.

    Returns:
        The state; fields that were not restored are None.

    Raises:
        UserError: There is no checkpoint, it is damaged, or it is of another model.
    """
    steps = run.steps()
    if not steps:
        raise UserError(f"{run.directory} has no checkpoint yet; run train.py --workdir {run.directory} first.")
    folder = run.checkpoints / str(steps[-1])
    item = folder / "default"
    alternative = f"to fall back to the one of step {steps[-2]}, or train again" if steps[1:] else "and train again"
    remedy = f"delete the folder {folder} {alternative}."
    if damage := find_damage(folder):
        raise UserError(f"checkpoint {folder} is damaged ({damage}); {remedy}")
    target = {name: value for name, value in abstract._asdict().items() if value is not None}
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(item)).tree
    except Exception as error:  # Orbax passes on whatever its storage raises
        raise UserError(f"checkpoint {item} cannot be read ({first_line(error)}); {remedy}") from None
    if problems := differences(shapes_of(target), shapes_of(stored)):
        others = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(
            f"checkpoint {item} is of another model: {problems[0]}{others}; "
            "it does not match the config.json of its run: train again."
        )
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            arguments = ocp.args.PyTreeRestore(
                target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
            )
            values = checkpointer.restore(item, args=arguments)
    except Exception as error:
        raise UserError(f"checkpoint {item} cannot be restored ({first_line(error)}); {remedy}") from None
    if not all_finite((values["parameters"], values["batch_stats"])):
        raise UserError(f"checkpoint {item} holds values that are not finite; {remedy}")
    return TrainState(**{name: values.get(name) for name in TrainState._fields})


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether no leaf has a NaN or an infinity, in a single program for the hundreds of leaves."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree))


class CheckpointWriter:
    """Writes a run's checkpoints in the background and keeps the last two.

    Leaving the `with` block waits until the last one is written.

    Args:
        run: The run.

    Raises:
        UserError: A checkpoint cannot be written. Because Orbax writes in threads, it may be an earlier one; raised by
            all methods.
    """

    def __init__(self, run: Run):
        self._run = run
        self._unsealed: int | None = None  # step of the checkpoint without checksums
        self._sealer, self._sealing = ThreadPoolExecutor(1), None
        options = ocp.CheckpointManagerOptions(max_to_keep=2, step_prefix=None, cleanup_tmp_directories=True)
        with self._errors_in_one_line():
            self._manager = ocp.CheckpointManager(run.checkpoints, options=options)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *_) -> None:
        with self._errors_in_one_line():
            try:
                self._finish()
            finally:
                self._sealer.shutdown()
                with _interrupts_unlogged():
                    self._manager.close()

    def save(self, step: int, state: TrainState) -> None:
        """Start to write a checkpoint, after waiting for the one before it.

        Args:
            step: The training step.
            state: The state at that step; it may be donated afterwards.
        """
        present = {name: value for name, value in state._asdict().items() if value is not None}
        with self._errors_in_one_line():
            self._finish()
            _expect_space(self._run.checkpoints, present)
            if self._manager.save(step, args=ocp.args.PyTreeSave(present)):
                self._unsealed = step

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        with self._errors_in_one_line():
            self._finish()

    def check(self) -> None:
        """Raise if the last asynchronous save failed; does not block."""
        if self._manager.is_saving_in_progress():
            return
        with self._errors_in_one_line():
            self._seal()
            if self._sealing and self._sealing.done():
                self._sealing.result()

    def _finish(self) -> None:
        """Wait until the last checkpoint and its checksums are written."""
        self._seal()
        if self._sealing:
            self._sealing.result()

    def _seal(self) -> None:
        """Wait until the last checkpoint is written, and only then begin its checksums: until then its files change."""
        step, self._unsealed = self._unsealed, None
        with _interrupts_unlogged():
            self._manager.wait_until_finished()
        if step is not None and processes.is_first():
            self._sealing = self._sealer.submit(write_checksums, self._run.checkpoints / str(step))

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # Orbax passes on whatever its storage raises
            _mute_late_reports()
            last = max(self._run.steps(), default=0)
            raise UserError(
                f"cannot write a checkpoint into {self._run.checkpoints} ({_cause(error)}; those up to step {last} are "
                "intact); free some space, or make the folder writable, and run again."
            ) from error


def _expect_space(folder: Path, tree: Any) -> None:
    """Raise OSError if the disk has less space than the arrays take.

    Without this check, Orbax notices a full disk in the middle of its parallel writes and prints a traceback for each.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _METADATA_BYTES
    free = free_space(folder)
    if free is not None and free < needed:
        raise OSError(errno.ENOSPC, f"no space left: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


@contextmanager
def _interrupts_unlogged() -> Iterator[None]:
    """Within, Orbax does not log the traceback of an interrupt that it passes on: the program says that it stops."""

    def is_no_interrupt(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, KeyboardInterrupt)

    logger = logging.getLogger("absl")
    logger.addFilter(is_no_interrupt)
    try:
        yield
    finally:
        logger.removeFilter(is_no_interrupt)


@cache  # once per process
def _mute_late_reports() -> None:
    """Silence what Orbax reports after the first failed write, so that the error message stays the last line.

    The other writes fail later in their own threads: they log tracebacks, report to an event loop that is closed, or
    are never awaited. Only called when a write has failed and the program is about to end.
    """
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    logging.getLogger("absl").addFilter(_is_not_from_orbax)
    # All of it: errors of TensorStore's futures have no frames to know them by, and only Orbax uses asyncio here.
    logging.getLogger("asyncio").disabled = True
    report = sys.unraisablehook

    def report_unless_late(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_unless_late


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
    return not any("orbax" in frame.filename for frame in frames)


def _cause(error: Exception) -> str:
    """The operating system's error message, if there is one; TensorStore's errors contain only its number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else first_line(error)


def shapes_of(tree: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters and statistics in a tree, by their paths."""
    model = {part: tree.get(part) for part in ("parameters", "batch_stats")}
    return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(model)}


def path_name(path: tuple) -> str:
    """A path in a tree as text: parameters/backbone/conv1/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def differences(expected: dict[str, tuple[int, ...]], actual: dict[str, tuple[int, ...]]) -> list[str]:
    """Describe how names and shapes of arrays differ from those that are expected, one line each."""
    return [
        f"{name} has shape {actual.get(name, 'none')}, not {expected.get(name, 'none')}"
        for name in sorted({**expected, **actual})
        if expected.get(name) != actual.get(name)
    ]
