"""What the installed package requires, and what of it is there."""

import operator
import re
from importlib import metadata
from typing import NamedTuple

_OPERATORS = {">=": operator.ge, "<": operator.lt, "==": operator.eq}  # those that our requirements use


class Requirement(NamedTuple):
    """A package that ours requires.

    Attributes:
        name: of the package, as pip knows it.
        versions: that will do, such as "<3,>=2.6".
        extra: the extra of ours that requires it; "": it is always required.
        installed: its version here; None: it is not installed.
    """

    name: str
    versions: str
    extra: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is here, in a version that will do."""
        return self.installed is not None and within(self.installed, self.versions)


def requirements() -> list[Requirement]:
    """All requirements of the package, as its installation noted them; none where it runs without being installed."""
    try:
        lines = metadata.requires("lpcam_jax") or []
    except metadata.PackageNotFoundError:
        return []
    pattern = r"""([\w.-]+)(?:\[.*?\])? *([^; ]*)(?: *; *extra == ["'](.*)["'])?"""
    parsed = [re.fullmatch(pattern, line).groups("") for line in lines]
    return [Requirement(*words, installed=version_of(words[0])) for words in parsed]


def version_of(package: str) -> str | None:
    """The version of an installed package; None: it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def within(version: str, versions: str) -> bool:
    """Whether a version will do.

    Args:
        version: such as "2.13.0+cpu"; what follows the release's numbers does not count.
        versions: limits that all hold, such as "<3,>=2.6".
    """
    limits = [re.match(r"([<>=]+)(.*)", limit).groups() for limit in versions.split(",") if limit]
    return all(_OPERATORS[relation](_release(version), _release(limit)) for relation, limit in limits)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; 2.0 is the same as 2."""
    text = re.match(r"\d+(\.\d+)*", version)[0]
    return tuple(map(int, re.sub(r"(\.0+)+$", "", text).split(".")))
