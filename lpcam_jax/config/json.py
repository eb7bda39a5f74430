"""A config as plain JSON values, and back: what config.json of a run holds."""

import dataclasses
from typing import Any, get_origin, get_type_hints


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any], kind: type) -> Any:
    """Rebuild a config from `to_json`.

    Args:
        values: what `to_json` gave; fields that are absent take their default.
        kind: the dataclass; one that has subclasses to choose from does so in its `class_for(values)`.

    Returns:
        A `kind`.

    Raises:
        ValueError: a field is not known.
        UserError: as `class_for`.
    """
    if class_for := getattr(kind, "class_for", None):
        kind = class_for(values)
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - names):
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    return kind(**{name: _value(value, hints[name]) for name, value in values.items()})


def _value(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint)
    if get_origin(hint) is tuple:
        return tuple(value)
    return value
