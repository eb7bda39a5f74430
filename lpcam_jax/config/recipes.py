"""Recipes, files that return a config, and command-line flags that override them."""

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
    """Load the config returned by `get_config()` of a recipe file.

    The file is executed as Python code: load only recipes you trust.

    Raises:
        UserError: there is no such file, or it does not return a config.
    """
    _, config = get_from_recipe(path, "get_config")
    kind = getattr(type(config), "kind", None)
    if kind is None or not isinstance(config, load_system(kind).config):
        raise UserError(
            f"get_config() of {path} returns {type(config).__name__}, not the config of a system: {', '.join(kinds())}."
        )
    return config


def get_from_recipe(path: str, function: str) -> tuple[Path, Any]:
    """Execute a recipe file and call a function of it.

    Args:
        path: the file.
        function: name of a function without arguments.

    Returns:
        The file, and what the function returned.

    Raises:
        UserError: there is no such file, or it cannot be executed, or has no such function.
    """
    if not Path(path).is_file():
        recipes = ", ".join(sorted(str(file) for file in Path("configs").glob("*.py"))) or "none in ./configs"
        raise UserError(f"recipe {path} does not exist; there are: {recipes}.")
    try:
        spec = importlib.util.spec_from_file_location("recipe", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, function) and (other := _OTHER.get(function)) and hasattr(module, other[0]):
            raise UserError(f"recipe {path} is for {other[1]}: it has {other[0]}(), not {function}().")
        return Path(path), getattr(module, function)()
    except UserError:
        raise
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"recipe {path} cannot be used: {type(error).__name__}: {error}") from None


_OTHER = {
    "get_config": ("get_chain", "python -m lpcam_jax chain"),
    "get_chain": ("get_config", "train.py"),
}


def parse_with_recipe(
    flags: type, words: Sequence[str], *, prog: str | None = None, description: str
) -> tuple[Any, Any]:
    """Parse a command line that names a recipe and overrides fields of its config.

    Args:
        flags: dataclass of the program's own flags, with a positional `recipe`; flags without a default are required.
        words: the command line.
        prog: name of the program in --help; None: the script's.
        description: text at the top of --help.

    Returns:
        The recipe's config with the overrides, and an object with all flags, including the program's own.

    Raises:
        UserError: see `load_recipe` and `check_numbers`. (tyro itself explains wrong flags and exits with code 2.)
    """
    recipe = next((word for word in words if not word.startswith("-") and word.endswith(".py")), None)
    config = load_recipe(recipe) if recipe else load_system(DEFAULT).config()
    config = dataclasses.replace(config, model=_with_backbone(config, words))
    weights = value_of_flag("--model.weights", words) or ""
    if Path(
        weights, "config.json"
    ).is_file():  # take the network's settings from the run, so no flag has to repeat them
        config = dataclasses.replace(config, model=config.model.like(read_config(weights)[0].model))
    # The flags are the program's own and the fields of the recipe's config.
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
    """The model of a config with the backbone requested by --model.backbone.

    Raises:
        UserError: the recipe's system does not support another backbone.
    """
    kind = value_of_flag("--model.backbone", words)
    if kind in (None, config.model.backbone):
        return config.model
    declared = get_type_hints(type(config))["model"]
    model = declared.class_for({"backbone": kind})()
    if model.backbone != kind:
        raise UserError(f"--model.backbone {kind}: this recipe's network has a {config.model.backbone}.")
    names = {field.name for field in dataclasses.fields(declared)}
    if "backbone" in names:
        return model
    # What stands on the backbone, of any kind, stays as it is.
    return dataclasses.replace(model, **{name: getattr(config.model, name) for name in names})


def value_of_flag(flag: str, words: Sequence[str]) -> str | None:
    """The value of a flag (`--flag value` or `--flag=value`) without parsing the others; None if it is not given."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
