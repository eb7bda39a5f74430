"""Configs as plain JSON values and back, as stored in config.json of a run."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

from ..machine.errors import UserError
from .registry import DEFAULT, load_system


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any], kind: type) -> Any:
    """Rebuild a config from the result of `to_json`.

    Args:
        values: the result of `to_json`; missing fields take their default.
        kind: the dataclass; if it has a method `class_for(values)`, that chooses the subclass.

    Returns:
        An instance of `kind`.

    Raises:
        ValueError: a field is unknown, or the values are no dict.
        UserError: see `class_for`.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is no object of fields")
    if class_for := getattr(kind, "class_for", None):
        kind = class_for(values)
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - names):
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    return kind(**{name: _value(value, hints[name]) for name, value in values.items()})


def read_config(directory: str | Path) -> tuple[Any, tuple[str, ...]]:
    """Read config and class names from config.json of a run.

    Raises:
        UserError: there is no run, or its config cannot be read.
    """
    path = Path(directory).absolute() / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        class_names = class_names_in(values)
        system = load_system(values.get("kind", DEFAULT))
        if isinstance(data := values["config"]["data"], dict):
            data.setdefault("longest", None)  # runs that do not say it have shrunk no picture
        return from_json(values["config"], system.config), class_names
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} holds no run (no config.json); train.py --workdir makes one.") from None
    except UserError as error:  # a system or a backbone that is not installed here
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); train again into another --workdir.") from None


def class_names_in(values: Any) -> tuple[str, ...]:
    """The class names in what was read from config.json of a run, or from protocol.json; ValueError if it has none."""
    names = values.get("class_names") if isinstance(values, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class_names are no list of texts")
    return tuple(names)


def _value(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint)
    return tuple(value) if isinstance(value, list) else value  # configs have no lists
