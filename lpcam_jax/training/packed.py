"""A finished run to hand on: one folder, for any disk or the Hugging Face Hub, that is used like the run itself.

    config.json        as in a run, without the folders of absolute paths, and `files`, the names of the others
    model.safetensors  parameters and batch statistics, float32, under their paths; in the header, `step`
    prototypes.npz     as in a run, of systems that have prototypes

Nothing is left of training: no state of the optimizer, no log, no picture. `exports.model_card` writes the README.md.
"""

from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors.numpy import save

from .. import __version__
from ..backbones.weights.files import read_weight_file
from ..config.json import to_json
from ..machine.devices import replicate
from ..machine.errors import UserError
from ..machine.files import write_atomically, write_json
from .checkpoints import TrainState, differences, path_name, shapes_of
from .run import Run


def expect_new(directory: Path) -> None:
    """Raise UserError unless a packed run may be written into this folder: it is to be new, or empty."""
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty; choose a new folder, so that nothing in it is lost.")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; choose a new folder, so that it is not lost.")


def pack(run: Run, state: TrainState, directory: Path) -> Run:
    """Write a packed run, and return it.

    Args:
        run: a finished run.
        state: its network, as `state.trained_state` returns it.
        directory: a new folder.

    Raises:
        UserError: the run lacks a file, the folder is not new, or it cannot be written.
    """
    expect_new(directory)
    companions = run.system.companions(run)
    arrays = {
        path_name(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(_network(state.parameters, state.batch_stats))
    }
    name = run.packed_file.name
    write_atomically(directory / name, save(arrays, {"step": str(int(state.step)), "lpcam_jax": __version__}))
    for file in companions:
        write_atomically(directory / file.name, file.read_bytes())
    values = {"kind": run.kind, "class_names": run.class_names, "config": _without_folders(to_json(run.config))}
    # Last: without it, the folder is no run.
    write_json(directory / "config.json", {**values, "files": [name, *(file.name for file in companions)]})
    return Run.open(directory)


def unpack(run: Run, parameters: dict[str, Any], batch_stats: dict[str, Any], *, devices: Mesh) -> TrainState:
    """The network of a packed run, on all devices.

    Args:
        run: a packed run.
        parameters: nested dict of shapes.
        batch_stats: nested dict of shapes.
        devices: the mesh.

    Returns:
        TrainState without optimizer state; the arrays have the bits that were packed.

    Raises:
        UserError: the file is damaged, or of another network.
    """
    file, again, step = run.packed_file, "pack or download it again.", np.int32(run.steps()[-1])
    arrays, expected = read_weight_file(file), _network(parameters, batch_stats)
    if problems := differences(shapes_of(expected), {name: array.shape for name, array in arrays.items()}):
        others = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(f"{file} is of another model than its config.json: {problems[0]}{others}; {again}")
    if wrong := [name for name, array in arrays.items() if not jnp.issubdtype(array.dtype, np.number)]:
        raise UserError(f"{file} holds no numbers in {wrong[0]}; {again}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{file} holds values that are not finite; {again}")
    network = jax.tree_util.tree_map_with_path(lambda path, leaf: arrays[path_name(path)].astype(leaf.dtype), expected)
    step, parameters, batch_stats = replicate((step, network["parameters"], network["batch_stats"]), devices)
    return TrainState(step, parameters, batch_stats, None)


def _network(parameters: dict[str, Any], batch_stats: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": parameters, "batch_stats": batch_stats}


def _without_folders(value: Any) -> Any:
    """Plain JSON values in which absolute paths, which tell others of a disk that they do not have, are only names."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
