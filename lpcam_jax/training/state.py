"""The network of a config in functional form: a static graph, and its arrays as pure dicts."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..backbones.folding import fold_batch_norm
from ..config import at_precision
from ..config.registry import system_of
from ..inference.forward import Network
from ..machine.devices import abstract_on, replicate
from ..machine.errors import UserError
from ..machine.hub import is_run
from .checkpoints import TrainState, restore
from .packed import unpack
from .run import Run


def network_of(config: Any, classes: int) -> nnx.Module:
    """The abstract network of a config: its attributes, with shapes in place of arrays."""
    return nnx.eval_shape(partial(system_of(config).build, config, classes))


def graph_of(config: Any, classes: int) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The abstract network of a config: its graph, and shapes of parameters and batch statistics as nested dicts."""
    graph, parameters, batch_stats = nnx.split(network_of(config, classes), nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)


def inference_network(config: Any, state: TrainState, classes: int, *, devices: Mesh) -> Network:
    """The trained network prepared for inference: batch norm folded, at `inference.precision`.

    Args:
        config: the run's config.
        state: its parameters and batch statistics.
        classes: c, without the background.
        devices: the mesh of this process.

    Returns:
        Network, on all devices.
    """
    graph, *_ = graph_of(at_precision(config), classes)
    graph, *folded = fold_batch_norm(graph, *replicate((state.parameters, state.batch_stats), devices))
    return Network(graph, replicate(tuple(folded), devices), devices, config.data.longest)


def network_in_training(config: Any, graph: nnx.GraphDef, state: TrainState, *, devices: Mesh) -> Network:
    """The network as it is trained, for what is computed in between: nothing is folded, at `model.precision`.

    Args:
        config: the run's config.
        graph: the network's, of `graph_of`; compilations are shared by calls with the same one.
        state: its parameters and batch statistics.
        devices: the mesh of this process.

    Returns:
        Network, on all devices.
    """
    return Network(graph, replicate((state.parameters, state.batch_stats), devices), devices, config.data.longest)


def initial_state(config: Any, classes: int, optimizer: optax.GradientTransformation) -> TrainState:
    """Random state at step 0; call it inside `jax.jit` or `jax.eval_shape`."""
    network, system = system_of(config).build(config, classes), system_of(config)
    if starts_blind(config, classes):
        _zero_branches(network)
    _, parameters, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)
    parameters, batch_stats = nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)
    average = jax.tree.map(jnp.copy, parameters) if system.average(config) else None
    return TrainState(jnp.zeros((), jnp.int32), parameters, batch_stats, optimizer.init(parameters), average)


def starts_blind(config: Any, classes: int) -> bool:
    """Whether a random network is trained with frozen batch norm, which is only good for a dry run."""
    if config.model.weights or not system_of(config).uses_stored_statistics(config):
        return False
    _, _, batch_stats = graph_of(config, classes)
    return "backbone" in batch_stats


def with_weights(state: TrainState, config: Any, *, devices: Mesh) -> TrainState:
    """Load pretrained parameters and statistics into the state, and print a report.

    Args:
        state: the state of a new run.
        config: the run's config; its `model.weights` name a file, or another run, whose backbone is used.
        devices: the mesh.

    Returns:
        TrainState.

    Raises:
        UserError: see `System.load` and `restore`; or the other run's backbone does not match.
    """
    path = config.model.weights
    if Path(path).is_dir() or is_run(path):
        network, report = _backbone_of(Run.open(path), state, devices)
    else:
        loaded = system_of(config).load(config, _merged(state.parameters, state.batch_stats))
        network, report = loaded.network, str(loaded)
    tqdm.write(f"weights {path}: {report}")
    parameters, batch_stats = (
        {**tree, **{part: _like(tree[part], values) for part, values in network.items() if part in tree}}
        for tree in (state.parameters, state.batch_stats)
    )
    average = None if state.average is None else jax.tree.map(jnp.copy, parameters)  # both will be donated
    return state._replace(parameters=parameters, batch_stats=batch_stats, average=average)


def trained_state(run: Run, *, devices: Mesh) -> TrainState:
    """The newest checkpoint of a run for inference, on all devices: without optimizer state, and with the running mean
    in place of the parameters, if there is one.

    Raises:
        UserError: see `restore` and `unpack`.
    """
    _, parameters, batch_stats = graph_of(run.config, len(run.class_names))
    if run.is_packed:
        return unpack(run, parameters, batch_stats, devices=devices)
    average = parameters if run.system.average(run.config) else None
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = restore(run, abstract_on(TrainState(step, parameters, batch_stats, None, average), devices))
    return in_use(state)._replace(average=None)


def in_use(state: TrainState) -> TrainState:
    """The state with its parameters replaced by their running mean, if there is one."""
    return state if state.average is None else state._replace(parameters=state.average)


def _backbone_of(run: Run, state: TrainState, devices: Mesh) -> tuple[dict[str, Any], str]:
    """{"backbone": parameters and statistics of another run's backbone}, and a report."""
    theirs, ours = (
        _merged(part.parameters["backbone"], part.batch_stats.get("backbone", {}))
        for part in (trained_state(run, devices=devices), state)
    )
    changes = []
    for stage, part in run.config.model.optional:
        here, there = ours.get(stage, {}), theirs[stage]
        if part in here and part not in there:
            there[part] = here[part]
            changes.append(f"{stage}'s {part} is new")
        elif part in there and part not in here:
            del there[part]
            changes.append(f"{stage}'s {part} is left out")
    if jax.tree.map(jnp.shape, theirs) != jax.tree.map(jnp.shape, ours):
        raise UserError(f"{run.directory} has another backbone: use {run.config.model.flags()}.")
    return {"backbone": theirs}, "; ".join(["its backbone", *changes])


def _zero_branches(network: nnx.Module) -> None:
    """Let every residual block start as its shortcut, since frozen statistics do not bound a random network's
    activations."""
    for _, module in nnx.iter_modules(network):
        if end := getattr(module, "branch_end", None):
            parameter = getattr(getattr(module, end[0]), end[1])
            parameter[...] = jnp.zeros_like(parameter[...])


def _merged(a: Any, b: Any) -> Any:
    """Merge two nested dicts with disjoint leaves."""
    if not isinstance(a, dict):
        return a
    return {key: _merged(a[key], b[key]) if key in a and key in b else a.get(key, b.get(key)) for key in {**a, **b}}


def _like(tree: Any, values: Any) -> Any:
    """The subtree of `values` with the structure of `tree`."""
    if not isinstance(tree, dict):
        return jnp.asarray(values)
    return {key: _like(branch, values[key]) for key, branch in tree.items()}
