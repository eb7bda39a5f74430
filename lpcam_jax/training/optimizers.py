"""Parameter groups and the poly schedule, in plain optax on nested dicts.

Each system assigns parameters to groups in its module `training`; the network tells which belong to a part of the
backbone or to a norm. Frozen parameters get no update, so their unused gradients are never computed.

rate(step) = initial * (1 - step / steps) ** power;   while warming up, times a factor that rises linearly to 1
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ..backbones.layers.norms import BatchNorm
from ..machine.errors import UserError

Path = tuple[str | int, ...]
FROZEN, EVERYTHING, STEM = "frozen", "all", "stem"
_WARM_UP_FROM = 1e-6


class Group(NamedTuple):
    """Settings of a parameter group.

    Attributes:
        multiplier: factor on the learning rate.
        decay: weight decay.
    """

    multiplier: float
    decay: float


class Schedule(Protocol):
    """The fields of a training config that define optimizer and poly schedule."""

    optimizer: str
    learning_rate: float
    momentum: float
    power: float


Rule = Callable[[Group], optax.GradientTransformation]


def poly(training: Schedule, *, steps: int, hold: int = 1, warm_up: int = 0) -> Rule:
    """An optimizer with the poly schedule for each group.

    "sgd": L2 decay is added to the gradient, then momentum and learning rate are applied, as in torch. "adamw" uses
    decoupled decay.

    Args:
        training: optimizer, initial learning rate, momentum, power.
        steps: number of steps after which the learning rate is 0.
        hold: steps between updates of the learning rate.
        warm_up: steps in which a factor on the learning rate rises from 1e-6 to 1.

    Returns:
        Group -> optax.GradientTransformation.

    Source: the references' "PolyOptimizer" (its constructor's momentum is the power of the schedule); the warm-up is
    mmcv's.
    """

    def rule(group: Group) -> optax.GradientTransformation:
        unheld = optax.polynomial_schedule(training.learning_rate * group.multiplier, 0.0, training.power, steps)

        def schedule(step):
            rate = unheld(step // hold * hold)
            if not warm_up:
                return rate
            risen = jnp.minimum(step / warm_up, 1)
            return rate * (risen + _WARM_UP_FROM * (1 - risen))

        return on_schedule(training, group, schedule)

    return rule


def on_schedule(training: Schedule, group: Group, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a group, as `poly` describes it, with any schedule: step -> learning rate."""
    if training.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=group.decay)
    decay = optax.add_decayed_weights(group.decay)
    return optax.chain(decay, optax.sgd(schedule, momentum=training.momentum))


def grouped(groups: Mapping[str, Group], group_of: Callable[[Path], str], rule: Rule) -> optax.GradientTransformation:
    """Combine one optimizer per parameter group.

    Args:
        groups: the groups, by name.
        group_of: path of a parameter -> name of its group, or FROZEN.
        rule: group -> its optimizer.

    Returns:
        optax.GradientTransformation on nested dicts.
    """

    def label(parameters: dict[str, Any]) -> dict[str, Any]:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: group_of(tuple(entry.key for entry in path)), parameters
        )

    rules = {name: rule(group) for name, group in groups.items()}
    return optax.partition(rules | {FROZEN: optax.set_to_zero()}, label)


def backbone_groups(network: nnx.Module, frozen: tuple[str, ...]) -> Callable[[Path], str]:
    """Assign parameters to groups: FROZEN in the frozen parts of the backbone, "backbone" in the others, else "head".

    Args:
        network: a network with a `backbone`.
        frozen: frozen parts, among `backbone.parts`; "stem": those of `backbone.stem`; ("all",): all of them.

    Returns:
        Path of a parameter -> name of its group.

    Raises:
        UserError: the backbone has no such part.
    """
    parts = network.backbone.parts
    if frozen == (EVERYTHING,):
        frozen = parts
    if STEM in frozen:
        frozen = (*network.backbone.stem, *(name for name in frozen if name != STEM))
    if unknown := [name for name in frozen if name not in parts]:
        raise UserError(f"--training.frozen {unknown[0]}: the backbone has no such part; it has {', '.join(parts)}.")

    def group_of(path: Path) -> str:
        if path[0] != "backbone":
            return "head"
        return FROZEN if path[1] in frozen else "backbone"

    return group_of


def layers_from_the_head(network: nnx.Module) -> dict[Path, int]:
    """Number the layers of the backbone: 1 for the last one. A layer is a block of a part, or a part without blocks.

    Args:
        network: a network with a `backbone`.

    Returns:
        Path of each parameter of the backbone -> number of its layer. What a part has beside its blocks is of its last,
        or of its first if a module declares it as `before_blocks`.
    """
    parts = network.backbone.parts
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(network.backbone, nnx.Param)))
    paths = [tuple(entry.key for entry in path) for path, _ in leaves]
    blocks = {path: path[2] for path in paths if path[1] == "blocks"}
    last = {path[0]: block for path, block in sorted(blocks.items(), key=lambda one: one[1])}
    before = declared(network.backbone, "before_blocks")
    beside = {path: 0 if path[:2] in before else last.get(path[0], 0) for path in paths}
    layer = {path: (parts.index(path[0]), blocks.get(path, beside[path])) for path in paths}
    order = sorted(set(layer.values()), reverse=True)
    return {("backbone", *path): 1 + order.index(layer[path]) for path in paths}


def without_decay(network: nnx.Module) -> set[Path]:
    """Paths of the parameters whose modules declare that they have no weight decay (`backbones.base.Backbone`)."""
    return declared(network, "undecayed")


def declared(network: nnx.Module, attribute: str) -> set[Path]:
    """Paths of what modules name in this attribute of their class."""
    modules = nnx.iter_modules(network)
    return {(*path, name) for path, module in modules for name in getattr(module, attribute, ())}


def is_in_norm(network: nnx.Module) -> Callable[[Path], bool]:
    """Return a function: path of a parameter -> whether it belongs to a batch norm."""
    norms = {path for path, module in nnx.iter_modules(network) if isinstance(module, BatchNorm)}
    return lambda path: path[:-1] in norms
