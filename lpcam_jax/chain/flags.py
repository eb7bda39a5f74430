"""Which stage a flag of the command line is for.

--data.root my_data          all stages that have such a flag
--irn.training.epochs 2      the stage irn
--irn.recipe my_irn.py       another recipe for the stage irn
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..config.registry import system_of
from ..machine.errors import UserError

# Of the command that runs a chain.
OWN = ("workdir", "without", "also", "only", "dry_run", "no_dry_run", "trial", "no_trial", "help")
# What the chain decides.
_TAKEN = ("workdir", "ckpt", "out", "maps", "distributed", "stages", "data.maps", "data.masks")


class Flag(NamedTuple):
    """A flag and its values, as words.

    Attributes:
        name: without the dashes, fields in Python's spelling.
        words: as they were given.
    """

    name: str
    words: tuple[str, ...]

    def values(self) -> list[str]:
        """Its values."""
        _, equals, value = self.words[0].partition("=")
        return [*([value] if equals else []), *self.words[1:]]

    def of(self, name: str) -> "Flag":
        """The same values, of another flag."""
        _, equals, value = self.words[0].partition("=")
        return Flag(name, (f"--{name.replace('_', '-')}{equals}{value}", *self.words[1:]))


def group(words: Sequence[str]) -> list[Flag]:
    """Flags of a command line, each with the values that follow it.

    Raises:
        UserError: it begins with a value.
    """
    flags: list[Flag] = []
    for word in words:
        if word.startswith("--"):
            flags.append(Flag(word[2:].partition("=")[0].replace("-", "_"), (word,)))
        elif flags:
            flags[-1] = flags[-1]._replace(words=(*flags[-1].words, word))
        else:
            raise UserError(f"{word!r} belongs to no flag; a chain takes one recipe, and flags.")
    return flags


class StageFlags(NamedTuple):
    """The words of a stage's two commands.

    Attributes:
        train: of train.py.
        infer: of infer.py.
    """

    train: tuple[str, ...]
    infer: tuple[str, ...]


def share_out(flags: Sequence[Flag], configs: Mapping[str, Any], recipes: Mapping[str, str]) -> dict[str, StageFlags]:
    """The words of every stage.

    A flag of the recipe's config goes to train.py, and one of `inference` to infer.py as well; other flags of infer.py
    go there.

    Args:
        flags: of the command line.
        configs: name of each stage -> config of its recipe.
        recipes: name of each stage -> name of its recipe.

    Returns:
        Name of each stage -> its words.

    Raises:
        UserError: no stage has such a flag, or the chain sets it.
    """
    shared: dict[str, StageFlags] = {name: StageFlags((), ()) for name in configs}
    for flag in flags:
        first, _, rest = flag.name.partition(".")
        of_recipe = [name for name, recipe in recipes.items() if recipe == first]
        named = [first] if first in configs else of_recipe
        mine = flag.of(rest) if named else flag
        if mine.name in _TAKEN:
            raise UserError(f"--{flag.name} is set by the chain, which knows where its stages are; omit it.")
        known = False
        for name in named or configs:
            config = configs[name]
            infers = _infers(config, mine.name)
            trains = _has(config, mine.name)
            known |= trains or infers
            train, infer = shared[name]
            shared[name] = StageFlags(train + mine.words * trains, infer + mine.words * infers)
        if not known:
            raise UserError(_unknown(flag, first if named else "", configs))
    return shared


def _has(config: Any, name: str) -> bool:
    """Whether a flag sets a field of a config."""
    for part in name.split("."):
        known = {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
        part = part if part in known else part.removeprefix("no_")  # --training.no-displacement
        if part not in known:
            # A field that only another kind of backbone has; train.py explains it if there is none.
            return name.startswith("model.") and hasattr(config, "backbone")
        config = getattr(config, part)
    return True


def _infers(config: Any, name: str) -> bool:
    """Whether infer.py has the flag for a run with this config."""
    own = {field.name for field in dataclasses.fields(system_of(config).flags)}
    return (name.startswith("inference.") and _has(config, name)) or (name in own and name not in _TAKEN)


def _unknown(flag: Flag, first: str, configs: Mapping[str, Any]) -> str:
    """What to say of a flag that no stage has."""
    said = f"{first} has no such flag" if first else "no stage has such a flag"
    known = [
        *OWN,
        *_all_names(configs),
        *(f"{name}.{field}" for name in configs for field in _all_names({name: configs[name]})),
    ]
    near = difflib.get_close_matches(flag.name, [*configs, *known], n=1)
    advice = f"; did you mean --{near[0].replace('_', '-')}?" if near else f"; stages are {', '.join(configs)}."
    return f"{flag.words[0]}: {said}{advice}"


def _all_names(configs: Mapping[str, Any]) -> Iterator[str]:
    """Names of all fields of some configs."""
    for config in configs.values():
        yield from _fields(config, "")


def _fields(config: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
