"""The classifier as pure dicts: a graph that never changes, and the arrays that do."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..config import Config
from ..devices import abstract_on
from ..models.classifier import build_classifier
from ..models.weights import load_backbone
from .checkpoints import Run, TrainState


def graph_of(config: Config, classes: int) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The classifier without memory: its graph, and the shapes of parameters and batch statistics as nested dicts."""
    model = nnx.eval_shape(partial(build_classifier, config.model, classes))
    graph, parameters, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)


def initial_state(config: Config, classes: int, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0, random; to be called inside `jax.jit` or `jax.eval_shape`."""
    model = build_classifier(config.model, classes, head_init=config.training.head_init, seed=config.seed)
    _, parameters, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    parameters, batch_stats = nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)
    if starts_blind(config):
        parameters = _without_branches(parameters)
    return TrainState(jnp.zeros((), jnp.int32), parameters, batch_stats, optimizer.init(parameters))


def starts_blind(config: Config) -> bool:
    """Whether a random network is trained with frozen batch norm: good for a dry run, and for nothing else."""
    return not config.model.weights and config.training.batch_norm == "frozen"


def with_weights(state: TrainState, path: str) -> TrainState:
    """The state with the backbone's parameters and statistics of a file (`load_backbone`), and a line that says so."""
    parameters, batch_stats = state.parameters["backbone"], state.batch_stats["backbone"]
    loaded = load_backbone(path, _united(parameters, batch_stats))
    tqdm.write(f"weights {path}: {loaded}")
    return state._replace(
        parameters={**state.parameters, "backbone": _chosen(parameters, loaded.backbone)},
        batch_stats={**state.batch_stats, "backbone": _chosen(batch_stats, loaded.backbone)},
    )


def trained_state(run: Run, *, devices: Mesh) -> TrainState:
    """The newest checkpoint of a run on every device, without the optimizer's state.

    Raises:
        UserError: as `Run.restore`.
    """
    _, parameters, batch_stats = graph_of(run.config, len(run.class_names))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return run.restore(abstract_on(TrainState(step, parameters, batch_stats, None), devices))


def _without_branches(parameters: dict[str, Any]) -> dict[str, Any]:
    """Every block starts as its shortcut: statistics that are frozen keep no random network's activations in bounds."""

    def off(path, leaf):
        return jnp.zeros_like(leaf) if [entry.key for entry in path[-2:]] == ["bn3", "scale"] else leaf

    return jax.tree_util.tree_map_with_path(off, parameters)


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
