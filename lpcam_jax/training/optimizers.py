"""Parameter groups and the poly schedule, in plain optax on nested dicts.

Which parameters are in which group the systems say, each in its `training`; what is a backbone's part or a norm is
asked of the network. A frozen parameter has no update, and no gradient is computed: nothing asks for it.

rate(step) = initial * (1 - step / steps) ** power
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import optax
from flax import nnx

from ..backbones.layers import BatchNorm
from ..machine.errors import UserError

Path = tuple[str | int, ...]
FROZEN = "frozen"


class Group(NamedTuple):
    """A group of parameters.

    Attributes:
        multiplier: of the learning rate.
        decay: of the parameters.
    """

    multiplier: float
    decay: float


class Schedule(Protocol):
    """What a training config says of the poly schedule."""

    optimizer: str
    learning_rate: float
    momentum: float
    power: float


Rule = Callable[[Group], optax.GradientTransformation]


def poly(training: Schedule, *, steps: int, hold: int = 1) -> Rule:
    """The poly schedule for each group.

    "sgd": L2 decay is added to the gradient, then comes momentum, then the rate, as torch does. "adamw" decouples the
    decay.

    Args:
        training: optimizer, initial rate, momentum, power.
        steps: after which the rate is 0.
        hold: the rate changes every so many steps.

    Returns:
        Group -> optax.GradientTransformation.

    Source: the references' "PolyOptimizer" (its constructor's momentum is the power of the schedule).
    """

    def rule(group: Group) -> optax.GradientTransformation:
        every_step = optax.polynomial_schedule(training.learning_rate * group.multiplier, 0.0, training.power, steps)

        def schedule(step):
            return every_step(step // hold * hold)

        if training.optimizer == "adamw":
            return optax.adamw(schedule, weight_decay=group.decay)
        decay = optax.add_decayed_weights(group.decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=training.momentum))

    return rule


def grouped(groups: Mapping[str, Group], group_of: Callable[[Path], str], rule: Rule) -> optax.GradientTransformation:
    """An optimizer for each group of parameters.

    Args:
        groups: by name.
        group_of: path of a parameter -> name of its group, or FROZEN.
        rule: the optimizer of a group.

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
    """Names for the parameters of a network with a backbone: "backbone", FROZEN in its frozen parts, "head" elsewhere.

    Args:
        network: with a `backbone`.
        frozen: names among `backbone.parts`.

    Returns:
        Path of a parameter -> name of its group.

    Raises:
        UserError: the backbone has no such part.
    """
    parts = network.backbone.parts
    if unknown := [name for name in frozen if name not in parts]:
        raise UserError(f"--training.frozen {unknown[0]}: the backbone has no such part; it has {', '.join(parts)}.")

    def group_of(path: Path) -> str:
        if path[0] != "backbone":
            return "head"
        return FROZEN if path[1] in frozen else "backbone"

    return group_of


def is_in_norm(network: nnx.Module) -> Callable[[Path], bool]:
    """Path of a parameter -> whether it is a batch norm's."""
    norms = {path for path, module in nnx.iter_modules(network) if isinstance(module, BatchNorm)}
    return lambda path: path[:-1] in norms
