"""A run's directory: all that resuming and `infer.py` need, and nothing else.

    config.json        the resolved config, the class names, the version
    checkpoints/STEP/  parameters, batch statistics, optimizer state (Orbax; the last two steps), with `checksums`
    prototypes.npz     the prototypes, once clustered (no pickle; keys as in `Prototypes`, and `step`)
    prototypes.json    what they look like, with prototypes/*.jpg (`prototype_patches`)
    labels/            of IRNet and AMN: what they are trained on (`sure_labels`)
    metrics.jsonl      one JSON object a line: training loss, validation mAP or mIoU

Every file appears whole or not at all, so a run may be killed at any moment.
"""

import io
import json
from pathlib import Path

import jax
import numpy as np

from .. import config as config_module
from ..config import AnyConfig
from ..errors import UserError
from ..files import read_arrays, write_atomically
from ..prototypes import Prototypes

# What training under other settings of these would have done just the same.
_MAY_CHANGE = ("root", "prepared", "maps", "checkpoint_every", "validate_every")


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
            raise UserError(f"{self.directory} holds a run of kind {self.kind}, not {kind}; name another --workdir.")
        return self

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.checkpoints.iterdir() if entry.name.isdigit())

    def save_prototypes(self, prototypes: Prototypes, *, step: int) -> None:
        """Add the prototypes to the run; `step` is the checkpoint they were clustered from."""
        buffer = io.BytesIO()
        arrays = {name: np.asarray(value) for name, value in prototypes._asdict().items() if value is not None}
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
            if not all(np.isfinite(array).all() for array in jax.tree.leaves(prototypes)):
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
        for part in ("data", "model", "labels", "training"):
            found += [
                f"{part}.{name} {theirs[part][name]!r} -> {value!r}"
                for name, value in mine.get(part, {}).items()
                if json.dumps(theirs[part][name]) != json.dumps(value) and name not in _MAY_CHANGE
            ]
        return found + [name for name in ("seed", "limit") if mine[name] != theirs[name]]
