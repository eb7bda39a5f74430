"""Limits of the numbers in a config, declared in the types of its fields.

crop: Count = 512                                                       at least 1
root: Annotated[str, MAY_CHANGE] = ""                                   has no influence on what training computes
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from ..machine.errors import UserError


class Limit(NamedTuple):
    """A condition on a value.

    Attributes:
        holds: value -> whether it is valid.
        advice: what to give instead, for the error message.
    """

    holds: Callable[[Any], bool]
    advice: str


_AT_LEAST_ONE = Limit(lambda value: value is None or value >= 1, "use at least 1")

Count = Annotated[int, _AT_LEAST_ONE]
OptionalCount = Annotated[int | None, _AT_LEAST_ONE]
NotNegative = Annotated[int, Limit(lambda value: value >= 0, "use at least 0")]
Seed = NotNegative
Share = Annotated[float, Limit(lambda value: 0 <= value < 1, "give a share, at least 0 and below 1")]
Scales = Annotated[
    tuple[float, ...],
    Limit(lambda value: bool(value) and min(value) > 0, "give at least one scale, each above 0"),
]
PixelRange = Annotated[
    tuple[int, int],
    Limit(lambda value: 1 <= value[0] <= value[1], "give the smallest and the largest, at least 1"),
]
OptionalPixelRange = Annotated[
    tuple[int, int] | None,
    Limit(lambda value: value is None or 1 <= value[0] <= value[1], "give the smaller and the larger, at least 1"),
]
ScaleRange = Annotated[
    tuple[float, float],
    Limit(lambda value: 0 < value[0] <= value[1], "give the smallest and the largest, above 0"),
]

Level = Annotated[float, Limit(lambda value: 0 <= value <= 1, "give a number from 0 to 1")]
Factor = Annotated[float, Limit(lambda value: 0 < value <= 1, "give a number above 0, at most 1")]
Exponent = Annotated[float, Limit(lambda value: 0 < value < math.inf, "give a number above 0")]
Radius = Annotated[int, Limit(lambda value: 2 <= value <= 64, "give a number from 2 to 64")]
Jitter = Annotated[
    tuple[float, float, float, float],
    Limit(
        lambda value: all(0 <= one <= 1 for one in value) and value[3] <= 0.5,
        "give four numbers from 0 to 1, the last at most 0.5",
    ),
]
ChannelMeans = Annotated[
    tuple[float, float, float],
    Limit(
        lambda value: all(0 <= one <= 255 for one in value) and (max(value) > 1 or not any(value)),
        "give means of pictures from 0 to 255, those of pictures from 0 to 1 times 255",
    ),
]
ChannelDivisors = Annotated[
    tuple[float, float, float],
    Limit(
        lambda value: all(1 <= one <= 255 for one in value),
        "give divisors of pictures from 0 to 255, those of pictures from 0 to 1 times 255; 1 1 1 divides by nothing",
    ),
]

MAY_CHANGE = "may change"
"""Marks a field that has no influence on what training computes: a run may be resumed with another value."""


def check_numbers(values: Any, prefix: str = "") -> None:
    """Check all values of a config, or of a part of one, against the limits in their types.

    Args:
        values: a dataclass; nested dataclasses are checked as well.
        prefix: prefix of its flags, such as "training."; empty for a whole config.

    Raises:
        UserError: a value is outside its limits; the message names the flag.
    """
    for name, annotations in _annotated(type(values)):
        value, flag = getattr(values, name), f"--{prefix}{name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{prefix}{name}.")
        for limit in annotations:
            if isinstance(limit, Limit) and not limit.holds(value):
                is_several = isinstance(value, tuple)
                text = "".join(f" {number:g}" for number in value) + ":" if is_several else f" is {value:g};"
                raise UserError(f"{flag}{text} {limit.advice}.")


def may_change(part: type) -> set[str]:
    """Names of the fields of a dataclass that may differ when a run is resumed."""
    return {name for name, annotations in _annotated(part) if MAY_CHANGE in annotations}


def _annotated(part: type) -> Iterator[tuple[str, tuple]]:
    """Name and annotations of every field of a dataclass."""
    hints = get_type_hints(part, include_extras=True)
    for field in dataclasses.fields(part):
        yield field.name, get_args(hints[field.name])[1:] if hasattr(hints[field.name], "__metadata__") else ()
