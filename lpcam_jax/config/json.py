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
        ValueError: a field is unknown.
        UserError: see `class_for`.
    """
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
        system = load_system(values.get("kind", DEFAULT))
        values["config"]["data"].setdefault("longest", None)  # runs that do not say it have shrunk no picture
        return from_json(values["config"], system.config), tuple(values["class_names"])
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{directory} holds no run (no config.json); train.py --workdir makes one.") from None
    except UserError as error:  # a system or a backbone that is not installed here
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); train again into another --workdir.") from None


def _value(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint)
    return tuple(value) if isinstance(value, list) else value  # configs have no lists
