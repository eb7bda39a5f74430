"""The states of a training run on disk: written while it goes on, restored when it is continued or used."""

import errno
import logging
import os
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from ..machine import processes
from ..machine.errors import UserError
from .checksums import find_damage, write_checksums
from .run import Run

# Upper bound on the files beside the arrays (names, shapes, shardings), for about a thousand arrays.
_METADATA_BYTES = 2**20


class TrainState(NamedTuple):
    """step int32 (); parameters, batch_stats: nested dicts of arrays; opt_state: of the optimizer; average: the running
    mean of the parameters, where one is kept."""

    step: jax.Array
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None = None


def restore(run: Run, abstract: TrainState) -> TrainState:
    """The newest checkpoint of a run, with the shardings of `abstract`.

    Args:
        run: its directory.
        abstract: TrainState of `jax.ShapeDtypeStruct`s; its `opt_state` None restores the model only.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it is of another model.
    """
    steps = run.steps()
    if not steps:
        raise UserError(f"{run.directory} has no checkpoint yet; run train.py --workdir {run.directory} first.")
    folder = run.checkpoints / str(steps[-1])
    place = folder / "default"
    use_another = f"to use the one of step {steps[-2]} before it, or train again" if steps[1:] else "and train again"
    remedy = f"delete the folder {folder} {use_another}."
    if damage := find_damage(folder):
        raise UserError(f"checkpoint {folder} is damaged ({damage}); {remedy}")
    wanted = {name: value for name, value in abstract._asdict().items() if value is not None}
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(place)).tree
    except Exception as error:  # Orbax raises what its storage raises
        raise UserError(f"checkpoint {place} cannot be read ({_first_line(error)}); {remedy}") from None
    if problems := _other_model(wanted, stored):
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(
            f"checkpoint {place} is of another model: {problems[0]}{more}; "
            "it does not belong to the config.json beside it: train again."
        )
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            arguments = ocp.args.PyTreeRestore(
                wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
            )
            values = checkpointer.restore(place, args=arguments)
    except Exception as error:
        raise UserError(f"checkpoint {place} cannot be restored ({_first_line(error)}); {remedy}") from None
    if not _all_finite((values["parameters"], values["batch_stats"])):
        raise UserError(f"checkpoint {place} holds values that are not finite; {remedy}")
    return TrainState(**{name: values.get(name) for name in TrainState._fields})


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Whether no leaf has a NaN or an infinity; one program, because there are hundreds of leaves."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree))


class CheckpointWriter:
    """Writes a run's checkpoints while training goes on; leaving the `with` block waits for the last one. Two stay.

    Raises:
        UserError: a checkpoint cannot be written, in any method; Orbax writes in threads, and says so later.
    """

    def __init__(self, run: Run):
        self._run = run
        self._unsealed: int | None = None  # step of the checkpoint that has no checksums yet
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
                self._manager.close()

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write the checkpoint of a step, once the one before is written."""
        present = {name: value for name, value in state._asdict().items() if value is not None}
        with self._errors_in_one_line():
            self._finish()
            _expect_space(self._run.checkpoints, present)
            if self._manager.save(step, args=ocp.args.PyTreeSave(present)):
                self._unsealed = step

    def wait(self) -> None:
        """Wait until all is written."""
        with self._errors_in_one_line():
            self._finish()

    def check(self) -> None:
        """Learn, without waiting, whether the last one could be written."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def _finish(self) -> None:
        """Wait until the last one is written, and add its checksums: until it has its name, Orbax changes its files."""
        step, self._unsealed = self._unsealed, None
        self._manager.wait_until_finished()
        if step is not None and processes.is_first():
            write_checksums(self._run.checkpoints / str(step))

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # Orbax raises what its storage raises
            _mute_late_reports()
            last = max(self._run.steps(), default=0)
            raise UserError(
                f"cannot write a checkpoint into {self._run.checkpoints} ({_cause(error)}; those up to step {last} are "
                "intact); free some space, or make the folder writable, and run again."
            ) from error


def _expect_space(folder: Path, tree: Any) -> None:
    """Raise OSError if the disk has less space than the arrays need.

    Orbax finds a disk full only in the middle of its parallel writes, and logs a traceback for each of them.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + _METADATA_BYTES
    try:
        usage = shutil.disk_usage(folder)
    except OSError:  # the file system does not tell
        return
    # `free` leaves out the blocks that some file systems reserve for root.
    free = usage.total - usage.used if hasattr(os, "geteuid") and os.geteuid() == 0 else usage.free
    if usage.total and free < needed:  # some network disks report a size of 0
        raise OSError(errno.ENOSPC, f"no space left: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


@cache  # once per process
def _mute_late_reports() -> None:
    """Keep what Orbax reports after the first failed write off the terminal: the error that is raised says it all.

    Its other writes fail later, in their own threads: they log tracebacks, report to an event loop that is closed, or
    are never awaited. Only called when a write has failed, and the program is about to end.
    """
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_from_orbax)
    report = sys.unraisablehook

    def report_unless_late(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_unless_late


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
    frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
    return not any("orbax" in frame.filename for frame in frames)


def _cause(error: Exception) -> str:
    """What the system said, if it was the system: TensorStore has only its number in a certain form."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(number[1])) if number else _first_line(error)


def _other_model(wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """How the stored parameters and statistics differ from those that are wanted, in words."""

    def shapes(tree):
        model = {part: tree.get(part) for part in ("parameters", "batch_stats")}
        leaves = jax.tree_util.tree_leaves_with_path(model)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    mine, theirs = shapes(wanted), shapes(stored)
    return [
        f"{name} has shape {theirs.get(name, 'none')}, not {mine.get(name, 'none')}"
        for name in sorted({**mine, **theirs})
        if mine.get(name) != theirs.get(name)
    ]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
