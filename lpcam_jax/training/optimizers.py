"""Parameter groups and the poly schedule, in plain optax on nested dicts.

head:      learning_rate * head_multiplier
backbone:  learning_rate
frozen:    no update (and no gradient is computed: nothing asks for it)

rate(step) = initial * (1 - step / steps) ** power
"""

from typing import Any

import jax
import optax

from ..config import Training


def make_optimizer(training: Training, *, steps: int) -> optax.GradientTransformation:
    """The optimizer a config describes, for parameters {"backbone": ..., "head": ...}.

    "sgd" is the family's optimizer: L2 decay added to the gradient of every parameter, then momentum (next to none),
    then the rate. "adamw" decouples the decay.

    Args:
        training: rates, groups, decay.
        steps: after which the rate is 0.

    Returns:
        optax.GradientTransformation.

    Source: the reference's "PolyOptimizer" (its constructor's momentum is the power of the schedule).
    """

    def rule(rate: float) -> optax.GradientTransformation:
        schedule = optax.polynomial_schedule(rate, 0.0, training.power, steps)
        if training.optimizer == "adamw":
            return optax.adamw(schedule, weight_decay=training.weight_decay)
        return optax.chain(
            optax.add_decayed_weights(training.weight_decay), optax.sgd(schedule, momentum=training.momentum)
        )

    groups = {
        "head": rule(training.learning_rate * training.head_multiplier),
        "backbone": rule(training.learning_rate),
        "frozen": optax.set_to_zero(),
    }
    return optax.partition(groups, lambda parameters: parameter_groups(parameters, training.frozen))


def parameter_groups(parameters: dict[str, Any], frozen: tuple[str, ...]) -> dict[str, Any]:
    """The group of every parameter, by the part of the model it is in.

    Args:
        parameters: {"backbone": {part: ...}, "head": array}.
        frozen: names of parts of the backbone.

    Returns:
        The same structure with "head", "backbone" or "frozen" as leaves.
    """

    def group(path, _):
        if path[0].key != "backbone":
            return "head"
        return "frozen" if path[1].key in frozen else "backbone"

    return jax.tree_util.tree_map_with_path(group, parameters)
