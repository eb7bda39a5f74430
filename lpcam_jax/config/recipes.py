"""Recipes: files that return a config, and the flags of a command line over them."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from ..machine.errors import UserError
from .json import read_config
from .numbers import check_numbers
from .registry import DEFAULT, kinds, load_system


def load_recipe(path: str) -> Any:
    """The config that `get_config()` of a recipe file returns.

    The file is a Python program and is run: give only recipes you trust.

    Raises:
        UserError: there is no such file, or it does not return a config.
    """
    if not Path(path).is_file():
        known = ", ".join(sorted(str(file) for file in Path("configs").glob("*.py"))) or "none in ./configs"
        raise UserError(f"recipe {path} does not exist; there are: {known}.")
    try:
        spec = importlib.util.spec_from_file_location("recipe", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"recipe {path} cannot be used: {type(error).__name__}: {error}") from None
    kind = getattr(type(config), "kind", None)
    if kind is None or not isinstance(config, load_system(kind).config):
        raise UserError(
            f"get_config() of {path} returns {type(config).__name__}, not the config of a system: {', '.join(kinds())}."
        )
    return config


def parse_with_recipe(
    flags: type, words: Sequence[str], *, prog: str | None = None, description: str
) -> tuple[Any, Any]:
    """Flags over the recipe they name.

    Args:
        flags: dataclass of the program's own flags, with a positional `recipe`; those without a default have to be
            given.
        words: the command line.
        prog: name of the program in --help; None: the script's.
        description: on top of --help.

    Returns:
        The recipe with the overrides, and the program's own flags with them.

    Raises:
        UserError: as `load_recipe`. (tyro itself explains wrong flags and exits with code 2.)
    """
    recipe = next((word for word in words if not word.startswith("-") and word.endswith(".py")), None)
    config = load_recipe(recipe) if recipe else load_system(DEFAULT).config()
    config = dataclasses.replace(config, model=_with_backbone(config, words))
    weights = value_of_flag("--model.weights", words) or ""
    if Path(weights, "config.json").is_file():  # a run knows its network: no flag has to repeat it
        config = dataclasses.replace(config, model=config.model.like(read_config(weights)[0].model))
    # The recipe says which flags there are: those of its config, beside the program's own.
    kind = type(config)
    both = dataclasses.make_dataclass("Arguments", (), bases=(flags, kind), frozen=True, kw_only=True)
    own = {field.name: field.default for field in dataclasses.fields(flags)}
    defaults = {name: tyro.MISSING if value is dataclasses.MISSING else value for name, value in own.items()}
    names = [field.name for field in dataclasses.fields(kind)]
    defaults |= {name: getattr(config, name) for name in names}
    arguments = tyro.cli(both, args=list(words), prog=prog, description=description, default=both(**defaults))
    config = kind(**{name: getattr(arguments, name) for name in names})
    check_numbers(config)
    return config, arguments


def _with_backbone(config: Any, words: Sequence[str]) -> Any:
    """The model of a config with the backbone that --model.backbone asks for.

    Raises:
        UserError: the recipe's system has no other backbone than its own.
    """
    kind = value_of_flag("--model.backbone", words)
    if kind in (None, config.model.backbone):
        return config.model
    model = get_type_hints(type(config))["model"].class_for({"backbone": kind})()
    if model.backbone != kind:
        raise UserError(f"--model.backbone {kind}: this recipe's network has a {config.model.backbone}.")
    return model


def value_of_flag(flag: str, words: Sequence[str]) -> str | None:
    """The value given to a flag, before the defaults of all other flags are known: `--flag value` or `--flag=value`."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
