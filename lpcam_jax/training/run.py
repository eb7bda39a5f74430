"""A run's directory: everything needed to resume training and to run infer.py, and nothing else.

    config.json        system, class names, resolved config
    checkpoints/STEP/  parameters, batch statistics, optimizer state (Orbax; the last two steps), with `checksums`
    prototypes.npz     the prototypes, once clustered (no pickle; `stored_prototypes`)
    prototypes.json    what they look like, with prototypes/*.jpg (`prototype_patches`)
    labels/            IRNet, psa, AMN: the labels they are trained on (`sure_labels`)
    pictures.json      how many pictures it is trained on, and a digest of their names and labels
    metrics.jsonl      one JSON object per line: training loss, validation mAP or mIoU

Files are written atomically, so a run may be killed at any time.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, Self

from jax.sharding import Mesh

from ..config.json import read_config, to_json
from ..config.numbers import may_change
from ..config.registry import system_of
from ..machine import processes
from ..machine.errors import UserError, reason
from ..machine.files import write_json
from ..machine.hub import folder_of


class Run:
    """One run's directory: `Run.create` it for training, `Run.open` it for reading."""

    def __init__(self, directory: Path, config: Any, class_names: tuple[str, ...]):
        self.directory, self.config, self.class_names = directory, config, class_names

    @classmethod
    def create(cls, directory: str | Path, config: Any, class_names: tuple[str, ...]) -> "Run":
        """Start a run, or continue the existing one; a run without a checkpoint is started over.

        Raises:
            UserError: the directory cannot be written, or its name is not UTF-8, or it holds a run with another config
                or other classes, or a config.json that is no run's.
        """
        run = cls(_directory(directory), config, tuple(class_names))
        run._expect_own_config()
        if run._config_file.exists() and run.steps():
            existing = cls.open(directory)
            if existing.is_packed:
                raise UserError(
                    f"{directory} holds a packed run, which is not trained further; start from it with --model.weights "
                    f"{directory} and another --workdir."
                )
            changed = run.differences(existing)
            if changed:
                raise UserError(
                    f"{directory} holds a run with other settings ({', '.join(changed)}); "
                    "choose another --workdir, or delete this one to start again."
                )
        if processes.is_first():
            values = {"kind": run.kind, "class_names": run.class_names, "config": to_json(config)}
            write_json(run._config_file, values)
        return run

    @classmethod
    def open(cls, directory: str | Path) -> "Run":
        """Open an existing run, or a packed one: a folder, or hf:OWNER/NAME on the Hugging Face Hub.

        Raises:
            UserError: there is no run, or its config cannot be read, or its name is not UTF-8; see `hub.folder_of`.
        """
        folder = folder_of(directory)
        return cls(_directory(folder), *read_config(folder))

    @property
    def kind(self) -> str:
        """Kind of the system that was trained, as in the registry."""
        return self.config.kind

    @property
    def system(self) -> Any:
        """The system that was trained, a `systems.base.System`."""
        return system_of(self.config)

    def with_inference(self, inference: Any) -> Self:
        """A copy of the run with other inference settings."""
        return type(self)(self.directory, dataclasses.replace(self.config, inference=inference), self.class_names)

    def expect(self, kind: str) -> "Run":
        """Return the run itself; raise UserError if it is of another kind."""
        if self.kind != kind:
            raise UserError(f"{self.directory} holds a run of kind {self.kind}, not {kind}; name another --workdir.")
        return self

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending; UserError if a packed run does not say its own."""
        if self.is_packed:
            return [_step_of(self.packed_file)]
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.checkpoints.iterdir() if entry.name.isdigit())

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def packed_file(self) -> Path:
        """What a packed run has instead of checkpoints (`training.packed`)."""
        return self.directory / "model.safetensors"

    @property
    def is_packed(self) -> bool:
        """Whether this is a packed run."""
        return self.packed_file.is_file()

    @property
    def metrics_file(self) -> Path:
        """The log of training."""
        return self.directory / "metrics.jsonl"

    @property
    def _config_file(self) -> Path:
        return self.directory / "config.json"

    def _expect_own_config(self) -> None:
        """UserError where the directory has a config.json of another program, such as one beside its weights."""
        try:
            values = json.loads(self._config_file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError):
            values = None
        if not (isinstance(values, dict) and {"class_names", "config"} <= values.keys()):
            raise UserError(f"{self._config_file} is not of this program; choose another --workdir.")

    def differences(self, before: "Run") -> list[str]:
        """The settings in which this run differs from an earlier one, as far as they influence training."""
        if before.kind != self.kind:
            return [f"{before.kind} -> {self.kind}"]
        changed = [] if before.class_names == self.class_names else ["class names"]
        new, old = to_json(self.config), to_json(before.config)
        for part in ("data", "model", "head", "labels", "training"):
            settings = getattr(self.config, part, None)
            free = may_change(type(settings)) if settings is not None else ()
            changed += [
                f"{part}.{name} {old[part].get(name)!r} -> {value!r}"
                for name, value in new.get(part, {}).items()
                if json.dumps(old[part].get(name)) != json.dumps(value) and name not in free
            ]
        more, had = self.system.also_learns_from(self.config), before.system.also_learns_from(before.config)
        changed += [f"{name} {had.get(name)!r} -> {value!r}" for name, value in more.items() if had.get(name) != value]
        return changed + [name for name in ("seed", "limit") if new[name] != old[name]]


def _step_of(file: Path) -> int:
    """The step in the header of a packed run's parameters."""
    from safetensors import safe_open

    try:
        with safe_open(file, "numpy") as content:
            return int(content.metadata()["step"])
    except Exception as error:  # of different kinds in each version
        raise UserError(f"{file} is not that of a packed run ({reason(error)}); pack or download it again.") from None


def _directory(name: str | Path) -> Path:
    """The absolute path; UserError when it is not UTF-8, for then Orbax can write and read no checkpoint there."""
    path = Path(name).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{str(path)!r} is not UTF-8, and checkpoints cannot be kept below such a name; rename it, or choose "
            "another --workdir."
        ) from None
    return path


class Job(NamedTuple):
    """The context of a training stage or of inference.

    Attributes:
        run: directory and config.
        devices: the mesh over all processes.
    """

    run: Run
    devices: Mesh
