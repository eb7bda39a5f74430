"""Parameter groups and the poly schedule, in plain optax on nested dicts.

classifier     head 10x, backbone 1x
irn            displacement branch 10x, edge branch 1x, backbone frozen
amn            label encoder and convolutions 20x, backbone 1x
segmentation   head 10x, its biases 20x and without decay, backbone 1x
all            frozen: no update (and no gradient is computed: nothing asks for it)

rate(step) = initial * (1 - step / steps) ** power,      for amn initial
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from ..config import AMNTraining, IRNTraining, SegmentationTraining, Training

Path = tuple[str | int, ...]


class Group(NamedTuple):
    """multiplier: of the learning rate. decay: of the parameters."""

    multiplier: float
    decay: float


Rule = Callable[[Group], optax.GradientTransformation]


def classifier_optimizer(training: Training, *, steps: int) -> optax.GradientTransformation:
    """The optimizer of the classifier, for parameters {"backbone": ..., "head": ...}.

    Args:
        training: rates, groups, decay.
        steps: after which the rate is 0.

    Returns:
        optax.GradientTransformation.

    Source: the reference's "PolyOptimizer" (its constructor's momentum is the power of the schedule).
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}

    def group(path: Path) -> str:
        if path[0] != "backbone":
            return "head"
        return "frozen" if path[1] in training.frozen else "backbone"

    return _grouped(groups, group, _poly(training, steps=steps, hold=1))


def irn_optimizer(training: IRNTraining, *, steps: int) -> optax.GradientTransformation:
    """The optimizer of IRNet, for parameters {"backbone": ..., "edge": ..., "displacement": ...}.

    Args:
        training: rates, decay, whether the displacement branch is trained.
        steps: after which the rate is 0.

    Returns:
        optax.GradientTransformation.

    Source: IRN's "PolyOptimizer", as `classifier_optimizer`.
    """
    decay = training.weight_decay
    groups = {"edge": Group(1.0, decay), "displacement": Group(training.displacement_multiplier, decay)}
    trained = groups if training.displacement else ("edge",)

    def group(path: Path) -> str:
        return path[0] if path[0] in trained else "frozen"

    return _grouped(groups, group, _poly(training, steps=steps, hold=1))


def amn_optimizer(training: AMNTraining) -> optax.GradientTransformation:
    """The optimizer of AMN, for parameters {"backbone": ..., "labels": ..., "activation": ...}.

    Args:
        training: rates, groups, decay.

    Returns:
        optax.GradientTransformation.

    Source: AMN's, torch's Adam: the decay is added to the gradient, and so divided by its running size (not as in
    AdamW, which decouples it).
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}

    def group(path: Path) -> str:
        if path[0] != "backbone":
            return "head"
        return "frozen" if path[1] in training.frozen else "backbone"

    def rule(of_group: Group) -> optax.GradientTransformation:
        rate = training.learning_rate * of_group.multiplier
        return optax.chain(optax.add_decayed_weights(of_group.decay), optax.adam(rate))

    return _grouped(groups, group, rule)


def segmentation_optimizer(training: SegmentationTraining) -> optax.GradientTransformation:
    """The optimizer of a segmentation network, for parameters {"backbone": ..., parts of the head: ...}.

    Args:
        training: rates, groups, decay, steps.

    Returns:
        optax.GradientTransformation.

    Source: DeepLabV2's recipe, in which the norms are in no group.
    """
    decay = training.weight_decay
    groups = {
        "backbone": Group(1.0, decay),
        "head": Group(training.head_multiplier, decay),
        "bias": Group(training.bias_multiplier, 0.0),
    }

    def group(path: Path) -> str:
        is_norm = str(path[-2]).startswith("bn")
        if path[0] == "backbone":
            fixed = is_norm and training.batch_norm == "fixed"
            return "frozen" if fixed or path[1] in training.frozen else "backbone"
        return "bias" if path[-1] == "bias" and not is_norm else "head"

    return _grouped(groups, group, _poly(training, steps=training.steps, hold=training.hold))


def _poly(training: Training | IRNTraining | SegmentationTraining, *, steps: int, hold: int) -> Rule:
    """The poly schedule for each group, whose rate is held for `hold` steps.

    "sgd": L2 decay is added to the gradient, then comes momentum, then the rate, as torch does. "adamw" decouples the
    decay.
    """

    def rule(of_group: Group) -> optax.GradientTransformation:
        every_step = optax.polynomial_schedule(training.learning_rate * of_group.multiplier, 0.0, training.power, steps)

        def schedule(step):
            return every_step(step // hold * hold)

        if training.optimizer == "adamw":
            return optax.adamw(schedule, weight_decay=of_group.decay)
        decay = optax.add_decayed_weights(of_group.decay)
        return optax.chain(decay, optax.sgd(schedule, momentum=training.momentum))

    return rule


def _grouped(groups: dict[str, Group], group: Callable[[Path], str], rule: Rule) -> optax.GradientTransformation:
    """An optimizer for each group of parameters, told by their paths; those of "frozen" stay."""

    def label(parameters: dict[str, Any]) -> dict[str, Any]:
        return jax.tree_util.tree_map_with_path(lambda path, _: group(tuple(entry.key for entry in path)), parameters)

    rules = {name: rule(of_group) for name, of_group in groups.items()}
    return optax.partition(rules | {"frozen": optax.set_to_zero()}, label)
