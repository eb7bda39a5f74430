"""What a chain is made of: stages, each a system's recipe, in the order in which they feed one another.

    labels -> classifier -> heat maps -> AMN -> heat maps -> IRN -> pseudo masks -> network -> masks

A stage is trained and then applied to pictures. What it learns from is what the stages before it made last: heat maps
for AMN, IRN and psa, masks for a segmentation network. So a stage that is left out needs no other change. Where stages
branch, as when two refinements of the same heat maps are compared, a stage names what it takes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config.recipes import get_from_recipe
from ..machine.errors import UserError

# Folders beside those of the stages.
_TAKEN = ("replaced", "trial")


@dataclass(frozen=True)
class Stage:
    """One system of a chain.

    Attributes:
        name: its name on the command line and on the page, and its folder.
        recipe: a recipe file, relative to the chain's.
        flags: flags of train.py and infer.py for this stage; `{NAME}` stands for the run of an earlier stage.
        takes: the stage whose results it learns from; "": the last that made such.
        after: more flags, by the name of that stage.
        optional: it is run only where it is asked for.
        sweeps: nothing is trained: the parameters of the stage that it takes are varied (`sweep`).
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()
    takes: str = ""
    after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: bool = False
    sweeps: bool = False

    def __post_init__(self) -> None:
        if self.sweeps and not self.takes:
            raise ValueError(f"the stage {self.name!r} sweeps, and takes no stage")


@dataclass(frozen=True)
class Chain:
    """Stages, in order.

    Attributes:
        stages: with distinct names.
        folder: of the chain's file, where the recipes are looked for.
    """

    stages: tuple[Stage, ...]
    folder: Path = Path()

    def __post_init__(self) -> None:
        names = self.names()
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two stages are called {twice[0]!r}")
        for stage in self.stages:
            if stage.name in _TAKEN:
                raise ValueError(f"a stage cannot be called {stage.name!r}, a folder of the chain's own")
            if stage.takes in names[names.index(stage.name) :]:
                raise ValueError(f"the stage {stage.name!r} takes {stage.takes!r}, which is not before it")
            if stage.takes in [other.name for other in self.stages if other.sweeps]:
                raise ValueError(f"the stage {stage.name!r} takes {stage.takes!r}, which sweeps and makes nothing")

    def names(self) -> list[str]:
        """The stages' names."""
        return [stage.name for stage in self.stages]

    def chosen(self, *, without: Iterable[str] = (), also: Iterable[str] = ()) -> "Chain":
        """The chain without some of its stages, and with the optional ones that are asked for.

        Raises:
            UserError: it has no such stage, or no other.
        """
        without, also = self._known(without, "--without"), self._known(also, "--also")
        left = [stage for stage in self.stages if stage.name not in without]
        left = tuple(stage for stage in left if not stage.optional or stage.name in also)
        if not left:
            raise UserError("--without names every stage of this chain, which leaves nothing to do.")
        return Chain(left, self.folder)

    def only(self, names: Iterable[str]) -> "Chain":
        """The chain of some stages, and all that they build on.

        Raises:
            UserError: it has no such stage.
        """
        wanted = self._known(names, "--only")
        for stage in reversed(self.stages):
            if stage.name in wanted:
                wanted |= {stage.takes, *(word[1:-1] for word in stage.flags if word.startswith("{"))}
                if not stage.takes:  # it takes what was made last, and that may be any of those before
                    wanted |= set(self.names()[: self.names().index(stage.name)])
        return Chain(tuple(stage for stage in self.stages if stage.name in wanted), self.folder)

    def _known(self, names: Iterable[str], flag: str) -> set[str]:
        names = set(names)
        if unknown := sorted(names - set(self.names())):
            raise UserError(f"{flag} {unknown[0]}: the stages of this chain are {', '.join(self.names())}.")
        return names


def load_chain(path: str) -> Chain:
    """The chain returned by `get_chain()` of a file.

    The file is executed as Python code: load only recipes you trust.

    Raises:
        UserError: there is no such file, or it does not return a chain.
    """
    file, chain = get_from_recipe(path, "get_chain")
    if not isinstance(chain, Chain):
        raise UserError(f"get_chain() of {path} returns {type(chain).__name__}, not a Chain.")
    return Chain(chain.stages, file.parent)
