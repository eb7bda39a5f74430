"""Command lines: flags of a dataclass, by tyro; a wrong one is told the flag that is meant."""

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..machine.errors import UserError
from ..machine.programs import as_called, called

T = TypeVar("T")

_types = ConstructorRegistry()


@_types.primitive_rule
def _none(found: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
    """No value is "none" in lower case, as in all texts; tyro wants Python's own word."""
    if found.type is not type(None):
        return None

    def parse(words: list[str]) -> None:
        if words[0].lower() != "none":
            raise ValueError(f"{words[0]!r} is not 'none'")

    return PrimitiveConstructorSpec(1, "none", parse, lambda value: value is None, lambda _: ["none"])


def parse_flags(
    flags: type[T],
    words: Sequence[str],
    *,
    command: str,
    description: str,
    default: T | None = None,
    chosen_by: Sequence[str] = (),
) -> T:
    """Parse the words of a command.

    Args:
        flags: dataclass of its flags.
        words: what follows the command's name.
        command: its name, such as "refine".
        description: text at the top of --help.
        default: values of the flags that are not given; None: those of the dataclass.
        chosen_by: the words that decide which flags there are, such as a recipe.

    Returns:
        The flags.

    Raises:
        UserError: there is no such flag. (tyro itself explains other mistakes, and exits with code 2.)
    """
    defaults = {} if default is None else {"default": default}
    try:
        texts = {"prog": called(command), "description": as_called(description)}
        return tyro.cli(flags, args=list(words), registry=_types, **texts, **defaults)
    except SystemExit as end:
        if end.code == 2:
            known = ["--help", *_names(flags if default is None else default)]
            _expect_known(words, known, shlex.join([*called(command).split(), *chosen_by, "--help"]))
        raise


def near(word: str, known: Sequence[str]) -> str:
    """The end of a sentence that says there is no such word: with the one that may be meant, or a full stop."""
    parts = [name for name in known if name.endswith(f".{word.lstrip('-')}")]  # --crop for --training.crop
    matches = parts or get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else "."


def _names(flags: Any, prefix: str = "") -> Iterator[str]:
    """The flags that tyro makes of a dataclass, or of an instance of it."""
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name, field.default_factory)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _names(value, f"{prefix}{name}.")
            continue
        yield f"--{prefix}{name}"
        if isinstance(value, bool):
            yield f"--{prefix}no-{name}"


def _expect_known(words: Sequence[str], known: Sequence[str], help_command: str) -> None:
    """Raise UserError for a word that looks like a flag and is none."""
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            raise UserError(f"there is no flag {name}{near(name, known)} All are in: {help_command}")
