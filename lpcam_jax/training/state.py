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

from ..config import AMNConfig, AnyConfig, IRNConfig, SegmentationConfig
from ..devices import abstract_on, replicate
from ..errors import UserError
from ..models.amn import AMN, build_amn
from ..models.classifier import Classifier, build_classifier
from ..models.deeplab import DeepLabV2, DeepLabV3Plus, build_deeplab
from ..models.folding import fold_batch_norm
from ..models.irnet import IRNet, build_irnet
from ..models.weights import load_deeplab
from .checkpoints import TrainState, restore
from .run import Run


def graph_of(config: AnyConfig, classes: int) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The network without memory: its graph, and the shapes of parameters and batch statistics as nested dicts."""
    graph, parameters, batch_stats = nnx.split(
        nnx.eval_shape(partial(_build, config, classes)), nnx.Param, nnx.BatchStat
    )
    return graph, nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)


def folded_network(config: AnyConfig, state: TrainState, classes: int, *, devices: Mesh) -> tuple[nnx.GraphDef, tuple]:
    """The trained network ready for inference: its graph, and its parameters and statistics on every device."""
    graph, *_ = graph_of(config, classes)
    graph, *folded = fold_batch_norm(graph, *replicate((state.parameters, state.batch_stats), devices))
    return graph, replicate(tuple(folded), devices)


def initial_state(config: AnyConfig, classes: int, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0, random; to be called inside `jax.jit` or `jax.eval_shape`."""
    _, parameters, batch_stats = nnx.split(_build(config, classes), nnx.Param, nnx.BatchStat)
    parameters, batch_stats = nnx.to_pure_dict(parameters), nnx.to_pure_dict(batch_stats)
    if starts_blind(config):
        parameters = _without_branches(parameters)
    average = jax.tree.map(jnp.copy, parameters) if keeps_average(config) else None
    return TrainState(jnp.zeros((), jnp.int32), parameters, batch_stats, optimizer.init(parameters), average)


def keeps_average(config: AnyConfig) -> bool:
    """Whether training keeps a running mean of the parameters, which is then what is used."""
    return isinstance(config, SegmentationConfig) and config.training.average > 0


def starts_blind(config: AnyConfig) -> bool:
    """Whether a random network is trained with frozen batch norm: good for a dry run, and for nothing else."""
    if isinstance(config, IRNConfig | AMNConfig):
        return not config.model.weights
    return not config.model.weights and config.training.batch_norm != "train"


def with_weights(state: TrainState, path: str, *, devices: Mesh) -> TrainState:
    """The state with pretrained parameters and statistics, and a line that says so.

    Args:
        state: of a new run.
        path: a file of weights (`load_deeplab`), or the folder of another run, whose backbone is taken.
        devices: the mesh.

    Returns:
        TrainState.

    Raises:
        UserError: as `load_deeplab` and `restore`, or the run's backbone is another.
    """
    if Path(path).is_dir():
        network, said = _backbone_of(Run.open(path), state, devices), "its backbone"
    else:
        loaded = load_deeplab(path, _united(state.parameters, state.batch_stats))
        network, said = loaded.network, str(loaded)
    tqdm.write(f"weights {path}: {said}")
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
    average = parameters if keeps_average(run.config) else None
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = restore(run, abstract_on(TrainState(step, parameters, batch_stats, None, average), devices))
    return in_use(state)._replace(average=None)


def in_use(state: TrainState) -> TrainState:
    """The state whose parameters are their running mean, where one is kept."""
    return state if state.average is None else state._replace(parameters=state.average)


def _backbone_of(run: Run, state: TrainState, devices: Mesh) -> dict[str, Any]:
    """{"backbone": the run's, parameters and statistics}."""
    theirs = trained_state(run, devices=devices)
    backbones = [_united(one.parameters["backbone"], one.batch_stats["backbone"]) for one in (theirs, state)]
    shapes = [jax.tree.map(jnp.shape, one) for one in backbones]
    if shapes[0] != shapes[1]:
        blocks = " ".join(map(str, run.config.model.blocks))
        raise UserError(
            f"{run.directory} has another backbone: use --model.blocks {blocks} --model.width {run.config.model.width} "
            f"--model.stem-width {run.config.model.stem_width}."
        )
    return {"backbone": backbones[0]}


def _build(config: AnyConfig, classes: int) -> Classifier | IRNet | AMN | DeepLabV2 | DeepLabV3Plus:
    if isinstance(config, SegmentationConfig):
        return build_deeplab(config.model, classes + 1, seed=config.seed)
    if isinstance(config, IRNConfig):
        return build_irnet(config.model, seed=config.seed)
    if isinstance(config, AMNConfig):
        return build_amn(config.model, classes, seed=config.seed)
    return build_classifier(config.model, classes, head_init=config.training.head_init, seed=config.seed)


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
