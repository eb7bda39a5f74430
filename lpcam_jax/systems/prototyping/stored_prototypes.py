"""The stored prototypes of a run: prototypes.npz in its folder, without pickle; keys as in `Prototypes`, and more.

    step, network    of the checkpoint they were clustered with, and a fingerprint of its network
    settings         of the clustering, as JSON
    pictures         a digest of the pictures' names and labels

Those of former versions do not say of which network and of which pictures they are, and are taken as they are.
"""

import json
from pathlib import Path

import jax
import numpy as np

from ...config import to_json
from ...machine.devices import mesh
from ...machine.errors import UserError
from ...machine.files import read_arrays, write_arrays
from ...prototypes import ENOUGH_CLASSES, Prototypes
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import trained_state
from ..protocol import model_fingerprint


def save_prototypes(
    run: Run, prototypes: Prototypes, *, step: int, state: TrainState | None = None, pictures: str = ""
) -> None:
    """Add the prototypes to a run.

    Args:
        run: its folder and config.
        prototypes: of its classes.
        step: of the checkpoint they were clustered with.
        state: the network they were clustered with; None: not known.
        pictures: `data.records.census` of the pictures they were clustered from; empty: not known.
    """
    arrays = {name: np.asarray(value) for name, value in prototypes._asdict().items() if value is not None}
    network = "" if state is None else model_fingerprint(state)
    values = {"step": step, "network": network, "settings": _settings(run), "pictures": pictures}
    write_arrays(prototypes_file(run), **values, **arrays)


def load_prototypes(run: Run, state: TrainState | None = None) -> Prototypes:
    """Load a run's prototypes.

    Args:
        run: its folder and config.
        state: its trained network; None: the checkpoint is read, to compare it.

    Raises:
        UserError: there are none yet, they cannot be read, or they belong to another checkpoint or to other classes; or
            the checkpoint cannot be read.
    """
    file, again = prototypes_file(run), f"run train.py with --workdir {run.directory} --stages prototypes."
    try:
        values = read_arrays(file)
        step, _, _ = int(values.pop("step")), values.pop("settings"), values.pop("pictures", None)
        network = str(values.pop("network", ""))
        prototypes = Prototypes(**values)
        classes = _classes(prototypes)
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
    if classes != len(run.class_names):
        raise UserError(
            f"the prototypes of {run.directory} are of {classes} classes, and it has {len(run.class_names)}; {again}"
        )
    if network and network != model_fingerprint(state or trained_state(run, devices=mesh())):
        raise UserError(f"the prototypes of {run.directory} are of another network than its checkpoint; {again}")
    return prototypes


def has_prototypes(run: Run, pictures: str) -> bool:
    """Whether the run has prototypes of these pictures, of its newest checkpoint, with the settings of its config.

    Args:
        run: its folder and config.
        pictures: `data.records.census` of the pictures; those of a run that does not know its own count as the same.
    """
    try:
        values = read_arrays(prototypes_file(run))
        known = str(values.get("pictures", "")) in ("", pictures)
        stored, now = json.loads(str(values["settings"])), json.loads(_settings(run))
        if "taught_at" in now:  # runs of before do not say it
            stored.setdefault("taught_at", now["taught_at"])
        same = stored == now  # in any order
        return known and same and bool(load_prototypes(run))
    except Exception:  # missing, damaged or of another network: they are made again
        return False


def prototypes_file(run: Run) -> Path:
    """Path of a run's prototypes, whether or not they exist."""
    return run.directory / "prototypes.npz"


def _classes(prototypes: Prototypes) -> int:
    """The number of classes; ValueError when the arrays are not those of as many classes, each with its centres."""
    shapes = {name: np.shape(value) for name, value in prototypes._asdict().items() if value is not None}
    classes, _, channels = shapes["class_centres"]
    expected = {
        "class_mask": shapes["class_centres"][:2],
        "context_centres": (classes, *shapes["context_centres"][1:2], channels),
        "context_mask": shapes["context_centres"][:2],
        "taught": (classes, channels),
    }
    for name, shape in shapes.items():
        if shape != expected.get(name, shape):
            raise ValueError(f"{name} of shape {shape} beside centres of shape {shapes['class_centres']}")
    return classes


def _settings(run: Run) -> str:
    """What they depend on besides the checkpoint, as JSON."""
    values = to_json(run.config)
    if tuple(values["prototypes"].get("teachers", ())) == ("crf",):  # the only one there was when older runs were made
        del values["prototypes"]["teachers"]
    rule = {"compared": "with the best"} if len(run.class_names) < ENOUGH_CLASSES else {}  # `prototypes.own_scores`
    taught = {}
    if values["prototypes"].get("taught"):  # from the seeds of inference
        taught = {"taught_at": [values["inference"]["background"], values["inference"]["scales"]]}
    return json.dumps({"seed": values["seed"], **values["prototypes"], **rule, **taught})
