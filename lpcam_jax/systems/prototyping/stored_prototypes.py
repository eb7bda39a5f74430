"""The stored prototypes of a run: prototypes.npz in its folder, without pickle; keys as in `Prototypes`, and `step`."""

import json
from pathlib import Path

import jax
import numpy as np

from ...config import to_json
from ...machine.errors import UserError
from ...machine.files import read_arrays, write_arrays
from ...prototypes import ENOUGH_CLASSES, Prototypes
from ...training.run import Run


def save_prototypes(run: Run, prototypes: Prototypes, *, step: int, pictures: str = "") -> None:
    """Add the prototypes to a run.

    Args:
        run: its folder and config.
        prototypes: of its classes.
        step: of the checkpoint they were clustered with.
        pictures: `data.records.census` of the pictures they were clustered from; empty: not known.
    """
    arrays = {name: np.asarray(value) for name, value in prototypes._asdict().items() if value is not None}
    write_arrays(prototypes_file(run), step=step, settings=_settings(run), pictures=pictures, **arrays)


def load_prototypes(run: Run) -> Prototypes:
    """Load a run's prototypes.

    Raises:
        UserError: there are none yet, they cannot be read, or they belong to another checkpoint.
    """
    file, again = prototypes_file(run), f"run train.py with --workdir {run.directory} --stages prototypes."
    try:
        values = read_arrays(file)
        step, _, _ = int(values.pop("step")), values.pop("settings"), values.pop("pictures", None)
        prototypes = Prototypes(**values)
        if not all(np.isfinite(array).all() for array in jax.tree.leaves(prototypes)):
            raise ValueError("values that are not finite")
    except FileNotFoundError:
        if not run.steps():
            raise UserError(f"{run.directory} has no checkpoint yet; run train.py with this --workdir first.") from None
        raise UserError(f"{run.directory} has no prototypes yet; {again}") from None
    except Exception as error:  # a damaged zip file may raise anything
        raise UserError(f"{file} cannot be read ({error}); delete it and {again}") from None
    if step not in run.steps()[-1:]:
        raise UserError(f"the prototypes of {run.directory} are of step {step}, not of its checkpoint; {again}")
    return prototypes


def has_prototypes(run: Run, pictures: str) -> bool:
    """Whether the run has prototypes of these pictures, from its newest checkpoint with the settings of its config.

    Args:
        run: its folder and config.
        pictures: `data.records.census` of the pictures; those of a run that does not know its own count as the same.
    """
    try:
        values = read_arrays(prototypes_file(run))
        known = str(values.get("pictures", "")) in ("", pictures)
        same = json.loads(str(values["settings"])) == json.loads(_settings(run))  # in any order
        return known and int(values["step"]) in run.steps()[-1:] and same
    except Exception:  # missing or damaged: they are made again
        return False


def prototypes_file(run: Run) -> Path:
    """Path of a run's prototypes, whether or not they exist."""
    return run.directory / "prototypes.npz"


def _settings(run: Run) -> str:
    """What they depend on besides the checkpoint, as JSON."""
    values = to_json(run.config)
    if tuple(values["prototypes"].get("teachers", ())) == ("crf",):  # the only one there was when older runs were made
        del values["prototypes"]["teachers"]
    rule = {"compared": "with the best"} if len(run.class_names) < ENOUGH_CLASSES else {}  # `prototypes.own_scores`
    return json.dumps({"seed": values["seed"], **values["prototypes"], **rule})
