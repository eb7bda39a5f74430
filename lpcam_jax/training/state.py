"""The network of a config as pure dicts: a graph that never changes, and the arrays that do."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..backbones.config import BackboneConfig
from ..backbones.folding import fold_batch_norm
from ..config import at_precision
from ..config.registry import system_of
from ..inference.forward import Network
from ..machine.devices import abstract_on, replicate
from ..machine.errors import UserError
from .checkpoints import TrainState, restore
from .run import Run


def network_of(config: Any, classes: int) -> nnx.Module:
    """The network of a config without memory: what it says of itself, and shapes in place of arrays."""
    return nnx.eval_shape(partial(system_of(config).build, config, classes))


def graph_of(config: Any, classes: int) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The network without memory: its graph, and the shapes of parameters and batch statistics as nested dicts."""
    graph, parameters, batch_stats = nnx.split(network_of(config, classes), nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)


def inference_network(config: Any, state: TrainState, classes: int, *, devices: Mesh) -> Network:
    """The trained network as results are computed with it: batch norm folded, at `inference.precision`.

    Args:
        config: of the run.
        state: its parameters and statistics.
        classes: c, without a background.
        devices: the mesh of this process.

    Returns:
        Network, on all devices.
    """
    graph, *_ = graph_of(at_precision(config), classes)
    graph, *folded = fold_batch_norm(graph, *replicate((state.parameters, state.batch_stats), devices))
    return Network(graph, replicate(tuple(folded), devices), devices)


def initial_state(config: Any, classes: int, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0, random; to be called inside `jax.jit` or `jax.eval_shape`."""
    network, system = system_of(config).build(config, classes), system_of(config)
    if starts_blind(config):
        _zero_branches(network)
    _, parameters, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    parameters, batch_stats = nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)
    average = jax.tree.map(jnp.copy, parameters) if system.average(config) else None
    return TrainState(jnp.zeros((), jnp.int32), parameters, batch_stats, optimizer.init(parameters), average)


def starts_blind(config: Any) -> bool:
    """Whether a random network is trained with frozen batch norm: good for a dry run, and for nothing else."""
    return not config.model.weights and system_of(config).uses_stored_statistics(config)


def with_weights(state: TrainState, model: BackboneConfig, *, devices: Mesh) -> TrainState:
    """The state with pretrained parameters and statistics, and a line that says so.

    Args:
        state: of a new run.
        model: what `--model.weights` is for: the description of the backbone, and a file of weights or the folder of
            another run, whose backbone is taken.
        devices: the mesh.

    Returns:
        TrainState.

    Raises:
        UserError: as `BackboneConfig.load` and `restore`, or the run's backbone is another.
    """
    path = model.weights
    if Path(path).is_dir():
        network, report = _backbone_of(Run.open(path), state, devices), "its backbone"
    else:
        loaded = model.load(path, _united(state.parameters, state.batch_stats))
        network, report = loaded.network, str(loaded)
    tqdm.write(f"weights {path}: {report}")
    parameters, batch_stats = (
        {**tree, **{part: _chosen(tree[part], values) for part, values in network.items() if part in tree}}
        for tree in (state.parameters, state.batch_stats)
    )
    average = None if state.average is None else jax.tree.map(jnp.copy, parameters)  # both will be donated
    return state._replace(parameters=parameters, batch_stats=batch_stats, average=average)


def trained_state(run: Run, *, devices: Mesh) -> TrainState:
    """What the newest checkpoint of a run computes with, on every device: without the optimizer's state, and with the
    running mean of the parameters where one is kept.

    Raises:
        UserError: as `restore`.
    """
    _, parameters, batch_stats = graph_of(run.config, len(run.class_names))
    average = parameters if run.system.average(run.config) else None
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = restore(run, abstract_on(TrainState(step, parameters, batch_stats, None, average), devices))
    return in_use(state)._replace(average=None)


def in_use(state: TrainState) -> TrainState:
    """The state whose parameters are their running mean, where one is kept."""
    return state if state.average is None else state._replace(parameters=state.average)


def _backbone_of(run: Run, state: TrainState, devices: Mesh) -> dict[str, Any]:
    """{"backbone": the run's, parameters and statistics}."""
    theirs = trained_state(run, devices=devices)
    backbones = [_united(part.parameters["backbone"], part.batch_stats.get("backbone", {})) for part in (theirs, state)]
    shapes = [jax.tree.map(jnp.shape, backbone) for backbone in backbones]
    if shapes[0] != shapes[1]:
        raise UserError(f"{run.directory} has another backbone: use {run.config.model.flags()}.")
    return {"backbone": backbones[0]}


def _zero_branches(network: nnx.Module) -> None:
    """Every block starts as its shortcut: statistics that are frozen keep no random network's activations in bounds."""
    for _, module in nnx.iter_modules(network):
        if end := getattr(module, "branch_end", None):
            parameter = getattr(getattr(module, end[0]), end[1])
            parameter[...] = jnp.zeros_like(parameter[...])


def _united(one: Any, other: Any) -> Any:
    """Two nested dicts with different leaves as one."""
    if not isinstance(one, dict):
        return one
    return {
        key: _united(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
        for key in {**one, **other}
    }


def _chosen(tree: Any, values: Any) -> Any:
    """The leaves of `values` that `tree` has."""
    if not isinstance(tree, dict):
        return jnp.asarray(values)
    return {key: _chosen(one, values[key]) for key, one in tree.items()}
