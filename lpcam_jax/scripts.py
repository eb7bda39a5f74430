"""What the command-line programs share: recipes with overrides, and errors of one line."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .config import Config
from .errors import UserError


def load_recipe(path: str) -> Config:
    """The Config that `get_config()` of a recipe file returns.

    The file is a Python program and is run: give only recipes you trust.

    Raises:
        UserError: there is no such file, or it does not return a Config.
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
    if not isinstance(config, Config):
        raise UserError(f"get_config() of {path} returns {type(config).__name__}, not lpcam_jax.config.Config.")
    return config


def run_program(main: Callable[[], None]) -> None:
    """Run a program: a UserError is one line on stderr and exit code 2; Ctrl-C is exit code 130."""
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("stopped; the same command continues where it was.", file=sys.stderr)
        sys.exit(130)


def value_of_flag(flag: str, words: list[str]) -> str | None:
    """The value given to a flag, before the defaults of all other flags are known: `--flag value` or `--flag=value`."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
