"""Recipes, files that return a config, and command-line flags that override them."""

import dataclasses
import importlib.util
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from ..machine import hub
from ..machine.errors import UserError
from ..machine.programs import called
from .command_line import near, parse_flags
from .json import read_config
from .numbers import check_numbers
from .registry import DEFAULT, kinds, load_system

_PACKAGE = Path(__file__).parents[1]


def load_recipe(name: str) -> Any:
    """Load the config returned by `get_config()` of a recipe.

    Its file is executed as Python code: load only recipes you trust.

    Args:
        name: a file, or the name of a recipe of the package, such as "folder".

    Raises:
        UserError: there is no such recipe, or it does not return a config.
    """
    path, config = get_from_recipe(name, "get_config")
    kind = getattr(type(config), "kind", None)
    if kind is None or not isinstance(config, load_system(kind).config):
        raise UserError(
            f"get_config() of {path} returns {type(config).__name__}, not the config of a system: {', '.join(kinds())}."
        )
    return config


def get_from_recipe(name: str, function: str) -> tuple[Path, Any]:
    """Execute a recipe file and call a function of it.

    Args:
        name: a file, or the name of a recipe of the package.
        function: name of a function without arguments.

    Returns:
        The file, and what the function returned.

    Raises:
        UserError: there is no such recipe, or it cannot be executed, or has no such function.
    """
    path = _find(name)
    try:
        spec = importlib.util.spec_from_file_location("recipe", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, function) and (other := _OTHER.get(function)) and hasattr(module, other[0]):
            raise UserError(f"recipe {path} is for {other[1]}: it has {other[0]}(), not {function}().")
        return path, getattr(module, function)()
    except UserError:
        raise
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"recipe {path} cannot be used: {type(error).__name__}: {error}") from None


_OTHER = {
    "get_config": ("get_chain", "python -m lpcam_jax chain"),
    "get_chain": ("get_config", "train.py"),
}


def recipes() -> dict[str, Path]:
    """The files of the package's recipes, by name: "folder", "paper/voc12"."""
    installed, checkout = _PACKAGE / "recipes", _PACKAGE.parent / "configs"
    folder = installed if installed.is_dir() else checkout
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.py"))}


def _find(name: str) -> Path:
    """The file of a recipe; UserError if there is none.

    `configs/NAME.py`, as in a checkout, is the package's recipe where there is no folder configs.
    """
    path, known = Path(name), recipes()
    if path.is_file():
        return path
    in_configs = path.parts[:1] == ("configs",) and path.suffix == ".py"
    short = Path(*path.parts[1:]).with_suffix("").as_posix() if in_configs else name
    if name in known or (short in known and not Path("configs").is_dir()):
        return known[short]
    meant = near(short if in_configs else path.stem, [*known])
    others = "" if "?" in meant else f", or one of {', '.join(known)}"
    raise UserError(f"there is no recipe {name}{meant} Give the path of a file{others}.")


def parse_with_recipe(flags: type, words: Sequence[str], *, command: str, description: str) -> tuple[Any, Any]:
    """Parse a command line that names a recipe and overrides fields of its config.

    Args:
        flags: dataclass of the program's own flags, with a positional `recipe`; flags without a default are required.
        words: the command line.
        command: its name, such as "train".
        description: text at the top of --help.

    Returns:
        The recipe's config with the overrides, and an object with all flags, including the program's own.

    Raises:
        UserError: see `load_recipe`, `parse_flags` and `check_numbers`.
    """
    recipe = _recipe_in(words)
    if recipe is None and {"-h", "--help"} & {*words}:  # of which system, nobody knows: two hundred flags less
        parse_flags(flags, words, command=command, description=f"{description}\n{_more_help(command)}")
    config = load_recipe(recipe) if recipe else load_system(DEFAULT).config()
    config = dataclasses.replace(config, model=_with_backbone(config, words))
    weights = value_of_flag("--model.weights", words) or ""
    if hub.is_run(weights):  # the network's settings are the run's, so no flag has to repeat them
        config = dataclasses.replace(config, model=config.model.like(read_config(hub.folder_of(weights))[0].model))
    # The flags are the program's own and the fields of the recipe's config.
    kind = type(config)
    both = dataclasses.make_dataclass("Arguments", (), bases=(flags, kind), frozen=True, kw_only=True)
    own = {field.name: field.default for field in dataclasses.fields(flags)}
    defaults = {name: tyro.MISSING if value is dataclasses.MISSING else value for name, value in own.items()}
    names = [field.name for field in dataclasses.fields(kind)]
    defaults |= {name: getattr(config, name) for name in names}
    arguments = parse_flags(
        both,
        words,
        command=command,
        description=description,
        default=both(**defaults),
        chosen_by=[recipe] if recipe else [],
    )
    if arguments.recipe != recipe:
        load_recipe(arguments.recipe)
        raise UserError(f"{arguments.recipe} may be the value of the flag before it; give the recipe first.")
    config = kind(**{name: getattr(arguments, name) for name in names})
    check_numbers(config)
    return config, arguments


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """The flags of train.py besides those of the recipe's config: a recipe, and the folder of its run."""

    recipe: tyro.conf.Positional[str]
    """a recipe of the package, such as shapes or folder, or a file with get_config(), such as configs/shapes.py; the
    flags below override it"""
    workdir: str
    """folder for the run; give the same folder again to resume"""
    distributed: bool = False
    """run as one of several processes: see docs/many_devices.md"""
    stages: str = "all"
    """comma-separated stages of the recipe to run, such as classifier,prototypes"""


def trained_config(words: Sequence[str]) -> Any:
    """The config that train.py trains with, from the words after its name; raises as `parse_with_recipe`."""
    return parse_with_recipe(TrainFlags, words, command="train", description="")[0]


def _more_help(command: str) -> str:
    """What --help says of the flags that depend on the recipe."""
    configs = [name for name, file in recipes().items() if "def get_config" in file.read_text(encoding="utf-8")]
    names = textwrap.fill(", ".join(configs), 110, initial_indent="    ", subsequent_indent="    ")
    return (
        "Every setting of a recipe is a flag, too, such as --data.root or --model.weights; these list them all:\n\n"
        f"    {called(command)} RECIPE --help\n\nRECIPE is a file, or the name of one of the package's:\n\n{names}\n"
    )


def _recipe_in(words: Sequence[str]) -> str | None:
    """The word that names the recipe, among flags that are not known yet; None: it is not clear."""
    if words and not words[0].startswith("-"):
        return words[0]
    known, pairs = recipes(), list(pairwise(words))
    files = [word for _, word in pairs if word.endswith(".py") and not word.startswith("-")]
    names = [word for before, word in pairs if word in known and not before.startswith("-")]
    return next(iter(files + names), None)


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
    """The last value of a flag (`--flag value` or `--flag=value`), the one that counts; None if it is not given."""
    value = None
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value
