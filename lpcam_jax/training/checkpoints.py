"""A run's directory: all that resuming and `infer.py` need, and nothing else.

    config.json        the resolved config, the class names, the version
    checkpoints/STEP/  parameters, batch statistics, optimizer state (Orbax; the last two steps)
    prototypes.npz     the prototypes, once clustered (no pickle; keys as in `Prototypes`, and `step`)
    prototypes.json    what they look like, with prototypes/*.jpg (`prototype_patches`)
    metrics.jsonl      one JSON object a line: training loss, validation mAP or mIoU

Every file appears whole or not at all, so a run may be killed at any moment.
"""

import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from .. import config as config_module
from ..config import AnyConfig
from ..errors import UserError
from ..files import read_arrays, write_atomically
from ..prototypes import Prototypes

# What training under other settings of these would have done just the same.
_MAY_CHANGE = ("root", "prepared", "checkpoint_every", "validate_every")


class TrainState(NamedTuple):
    """step int32 (); parameters, batch_stats: nested dicts of arrays; opt_state: of the optimizer; average: the running
    mean of the parameters, where one is kept."""

    step: jax.Array
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
    average: dict[str, Any] | None = None


class Run:
    """One run's directory. `Run.create` for training, `Run.open` for what only reads."""

    def __init__(self, directory: Path, config: AnyConfig, class_names: tuple[str, ...]):
        self.directory, self.config, self.class_names = directory, config, class_names

    @classmethod
    def create(cls, directory: str | Path, config: AnyConfig, class_names: tuple[str, ...]) -> "Run":
        """Start a run, or continue the one that is there; one without a checkpoint is started again.

        Raises:
            UserError: the directory cannot be written, or holds a run of another config or of other classes.
        """
        run = cls(Path(directory).absolute(), config, tuple(class_names))
        if run._config_file.exists() and run.steps():
            before = cls.open(directory)
            changed = run._differences(before)
            if changed:
                raise UserError(
                    f"{directory} holds a run with other settings ({', '.join(changed)}); "
                    "choose another --workdir, or delete this one to start again."
                )
        values = {"kind": run.kind, "class_names": run.class_names, "config": config_module.to_json(config)}
        write_atomically(run._config_file, json.dumps(values, indent=2, ensure_ascii=False).encode())
        return run

    @classmethod
    def open(cls, directory: str | Path) -> "Run":
        """Open a run that exists.

        Raises:
            UserError: there is none, or its config cannot be read.
        """
        path = Path(directory).absolute() / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            config = config_module.from_json(values["config"], config_module.KINDS[values.get("kind", "classifier")])
            return cls(path.parent, config, tuple(values["class_names"]))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{directory} holds no run (no config.json); train.py --workdir makes one.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); train again into another --workdir.") from None

    @property
    def kind(self) -> str:
        """What was trained, a key of `config.KINDS`."""
        return config_module.kind_of(self.config)

    def expect(self, kind: str) -> "Run":
        """The run itself; UserError when it is of another kind."""
        if self.kind != kind:
            raise UserError(f"{self.directory} holds a {self.kind} run; name the --workdir of a {kind} run.")
        return self

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.checkpoints.iterdir() if entry.name.isdigit())

    def restore(self, abstract: TrainState) -> TrainState:
        """The newest checkpoint, with the shardings of `abstract`.

        Args:
            abstract: TrainState of `jax.ShapeDtypeStruct`s; its `opt_state` None restores the model only.

        Raises:
            UserError: there is no checkpoint, it is damaged, or it is of another model.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.directory} has no checkpoint yet; run train.py --workdir {self.directory} first.")
        place = self.checkpoints / str(steps[-1]) / "default"
        damaged = f"delete the folder {place.parent} to use the one before, or train again."
        wanted = {name: value for name, value in abstract._asdict().items() if value is not None}
        try:
            stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(place)).tree
        except Exception as error:  # Orbax raises what its storage raises
            raise UserError(f"checkpoint {place} cannot be read ({_first_line(error)}); {damaged}") from None
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
            raise UserError(f"checkpoint {place} cannot be restored ({_first_line(error)}); {damaged}") from None
        model = jax.tree.leaves((values["parameters"], values["batch_stats"]))
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in model):
            raise UserError(f"checkpoint {place} holds values that are not finite; {damaged}")
        return TrainState(**{name: values.get(name) for name in TrainState._fields})

    def save_prototypes(self, prototypes: Prototypes, *, step: int) -> None:
        """Add the prototypes to the run; `step` is the checkpoint they were clustered from."""
        buffer = io.BytesIO()
        arrays = {name: np.asarray(value) for name, value in prototypes._asdict().items()}
        np.savez(buffer, step=step, settings=self._prototype_settings, **arrays)
        write_atomically(self._prototypes_file, buffer.getvalue())

    def load_prototypes(self) -> Prototypes:
        """The run's prototypes.

        Raises:
            UserError: none are there yet, they cannot be read, or they belong to another checkpoint.
        """
        again = f"run train.py with --workdir {self.directory} --stages prototypes."
        try:
            values = read_arrays(self._prototypes_file)
            step, _ = int(values.pop("step")), values.pop("settings")
            prototypes = Prototypes(**values)
            if not all(np.isfinite(array).all() for array in prototypes):
                raise ValueError("values that are not finite")
        except FileNotFoundError:
            raise UserError(f"{self.directory} has no prototypes yet; {again}") from None
        except Exception as error:  # a damaged zip raises whatever its damage makes of it
            raise UserError(f"{self._prototypes_file} cannot be read ({error}); delete it and {again}") from None
        if step not in self.steps()[-1:]:
            raise UserError(f"the prototypes of {self.directory} are of step {step}, not of its checkpoint; {again}")
        return prototypes

    def has_prototypes(self) -> bool:
        """Whether the prototypes are there, made from the newest checkpoint with the settings of this config."""
        try:
            file = read_arrays(self._prototypes_file)
            return int(file["step"]) in self.steps()[-1:] and str(file["settings"]) == self._prototype_settings
        except Exception:  # absent or damaged: then they are made again
            return False

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """Where training writes its numbers."""
        return self.directory / "metrics.jsonl"

    @property
    def _config_file(self) -> Path:
        return self.directory / "config.json"

    @property
    def _prototypes_file(self) -> Path:
        return self.directory / "prototypes.npz"

    @property
    def _prototype_settings(self) -> str:
        values = config_module.to_json(self.config)
        return json.dumps({"seed": values["seed"], **values["prototypes"]})

    def _differences(self, before: "Run") -> list[str]:
        """Names of the settings of this run that training under the other settings would have done otherwise."""
        if before.kind != self.kind:
            return [f"{before.kind} -> {self.kind}"]
        found = [] if before.class_names == self.class_names else ["class names"]
        mine, theirs = config_module.to_json(self.config), config_module.to_json(before.config)
        for part in ("data", "model", "training"):
            found += [
                f"{part}.{name} {theirs[part][name]!r} -> {value!r}"
                for name, value in mine[part].items()
                if json.dumps(theirs[part][name]) != json.dumps(value) and name not in _MAY_CHANGE
            ]
        return found + [name for name in ("seed", "limit") if mine[name] != theirs[name]]


class CheckpointWriter:
    """Writes a run's checkpoints while training goes on; leaving the `with` block waits for the last one. Two stay.

    Raises:
        UserError: a checkpoint cannot be written, in any method; Orbax writes in threads, and says so later.
    """

    def __init__(self, run: Run):
        self._run = run
        options = ocp.CheckpointManagerOptions(max_to_keep=2, step_prefix=None, cleanup_tmp_directories=True)
        with self._errors_in_one_line():
            self._manager = ocp.CheckpointManager(run.checkpoints, options=options)

    def __enter__(self) -> "CheckpointWriter":
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_is_not_raised)
        self._hook = sys.unraisablehook
        sys.unraisablehook = partial(_report_unless_late, self._hook)
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        with self._errors_in_one_line():
            self._manager.close()
        if kind is None:  # after a failure, some of its writes end later
            sys.unraisablehook = self._hook

    def save(self, step: int, state: TrainState) -> None:
        """Begin to write the checkpoint of a step, once the one before is written."""
        present = {name: value for name, value in state._asdict().items() if value is not None}
        with self._errors_in_one_line():
            self._manager.save(step, args=ocp.args.PyTreeSave(present))

    def wait(self) -> None:
        """Wait until all is written."""
        with self._errors_in_one_line():
            self._manager.wait_until_finished()

    def check(self) -> None:
        """Learn, without waiting, whether the last one could be written."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises what its storage raises
            last = max(self._run.steps(), default=0)
            raise UserError(
                f"cannot write a checkpoint into {self._run.checkpoints} ({_cause(error)}; those up to step {last} are "
                "intact); free some space, or make the folder writable, and run again."
            ) from error


# One write that fails makes Orbax raise, log the same with tracebacks, and close the event loop that its other writes
# report to. The error that is raised says it all.


def _is_not_raised(record: logging.LogRecord) -> bool:
    frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
    return not any("orbax" in frame.filename for frame in frames)


def _report_unless_late(report: Callable[[Any], None], unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        report(unraisable)


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
