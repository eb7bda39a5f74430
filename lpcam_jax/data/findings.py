"""What is said about a folder of pictures: findings, each on one line of fitting length."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

_LONGEST_NAME, _LONGEST_PATH = 120, 1000  # characters


class Severity(IntEnum):
    """How bad it is; also the exit code of `check-data`."""

    NOTE = 0  # handled correctly
    WARNING = 1  # works, but is probably unintended
    ERROR = 2  # training or mapping would refuse it, or give wrong results


class Finding(NamedTuple):
    """A problem, the files or classes that have it (may be none), and the fix.

    Attributes:
        severity: how bad it is.
        what: the problem.
        where: names of files or classes.
        fix: what to do.
    """

    severity: Severity
    what: str
    where: tuple[str, ...]
    fix: str

    def __str__(self) -> str:
        total = f" ({len(self.where)} in all)" if len(self.where) > 3 else ""
        return f"{self.what}{': ' if self.where else ''}{listed(self.where, most=3 * _LONGEST_NAME)}{total}; {self.fix}"


def say(findings: Iterable[Finding]) -> None:
    """Print findings that end nothing, each once in a process however often its folder is opened."""
    for finding in findings:
        _say_once(f"{finding.severity.name.lower()}: {finding}")


@cache
def _say_once(line: str) -> None:
    tqdm.write(line)


def shown(name: Any) -> str:
    """A name for a message: as it is, or its `repr` if it contains unprintable characters; very long ones are cut."""
    text = str(name)
    return _cut(text if text.isprintable() else repr(text), _LONGEST_PATH)


def listed(names: Sequence[str | Path], separator: str = ", ", *, most: int = _LONGEST_NAME) -> str:
    """The first three names, for a message; the middle of one of more than `most` characters is left out."""
    first = [_cut(shown(name), most) for name in names[:3]]
    return separator.join([*first, "..."] if len(names) > 3 else first)


def choice(names: Sequence[str]) -> str:
    """Names for a message, all of them where people may choose from them and they are few."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(listed([name]) for name in names[:20]) + more


def quoted(name: str) -> str:
    """A name as an ASCII literal, in which names that look alike differ; the middle of a long one is left out."""
    return _cut(ascii(name), _LONGEST_NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
