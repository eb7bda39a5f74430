"""Picture files in a folder or by a glob, without opening one: what is passed over is said, with what to do."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import NamedTuple

from ..machine.errors import UserError
from .findings import Finding, Severity, say, shown
from .formats import COMPANIONS, SUFFIXES, UNREAD, how_to_read, suffix_of_content
from .walk import Walk, apart, walk


class Search(NamedTuple):
    """What a search for pictures found.

    Attributes:
        pictures: sorted.
        passed_over: what else is there, and was left out.
    """

    pictures: list[Path]
    passed_over: list[Finding]


def find_pictures(pattern: str | Path) -> list[Path]:
    """Find pictures by their extension, as `search` does, and print what was passed over.

    Raises:
        UserError: there are none.
    """
    pictures, passed_over = search(pattern)
    if not pictures:
        raise UserError(no_picture(pattern, passed_over))
    say(passed_over)
    return pictures


def search(pattern: str | Path) -> Search:
    """Find pictures by their extension; hidden files are skipped, and what this program wrote is passed over.

    Args:
        pattern: a folder (searched with its subfolders, each real folder once), a glob (`**` allowed), or a single file
            of any extension.
    """
    if os.path.isfile(path := Path(pattern)):
        return Search([path], [])
    if os.path.isdir(path):
        return among(walk(path), path)
    base = re.match(r"[^*?[]*(?=/|$)", str(pattern))[0] or ("/" if str(pattern).startswith("/") else ".")
    if (wanted := path.parts[len(Path(base).parts) :]) and "**" in wanted:  # `glob` would go in the circles of links
        found = walk(base)
        files = [file for file in found.files if _matches(file.relative_to(base).parts, wanted)]
        return among(found._replace(files=files), base)
    real = {}  # each file once, though links may lead to its folder
    for file in sorted(map(Path, glob(str(pattern))), key=lambda file: (len(file.parts), file)):
        if not file.is_dir():
            real.setdefault((os.path.realpath(file.parent), file.name), file)
    files, own = apart(sorted(real.values()), base)
    return among(Walk(files, own, [], []), base)


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob, in which `**` stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        ends = len(wanted) == 1 or any(_matches(parts[start:], wanted[1:]) for start in range(len(parts)))
        return bool(parts) and ends
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])


def among(found: Walk, base: str | Path) -> Search:
    """The pictures among files.

    Args:
        found: the files, and what was not entered.
        base: the folder that names are shown relative to.
    """
    pictures, unread, misnamed, others = [], [], [], []
    for path in found.files:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            (pictures if path.is_file() or path.is_symlink() else others).append(path)
        elif suffix in UNREAD:
            unread.append(path)
        elif suffix not in COMPANIONS:
            (misnamed if suffix_of_content(path) else others).append(path)
    return Search(pictures, list(_passed_over(found, unread, misnamed, others, base)))


def _passed_over(
    found: Walk, unread: Sequence[Path], misnamed: Sequence[Path], others: Sequence[Path], base: str | Path
) -> Iterator[Finding]:
    def names(paths: Sequence[Path]) -> tuple[str, ...]:
        return tuple(Path(os.path.relpath(path, base)).as_posix() for path in paths)

    if found.own:
        fix = "left out: this program wrote them"
        yield Finding(Severity.NOTE, f"results of this program in {shown(base)}", names(found.own), fix)
    if found.again:
        fix = "not followed: each folder is read once"
        yield Finding(Severity.NOTE, "links to folders that are read already", names(found.again), fix)
    if found.closed:
        yield Finding(Severity.WARNING, "folders that cannot be read", names(found.closed), "change their permissions")
    if unread:
        kinds = Counter(path.suffix.lower() for path in unread)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())[:8])
        yield Finding(
            Severity.WARNING,
            f"pictures in formats that are not read ({counts})",
            names(unread),
            f"{how_to_read(kinds)}: they are left out",
        )
    if misnamed:
        fix = f"give them the extension of their format, such as {suffix_of_content(misnamed[0])}"
        yield Finding(Severity.WARNING, "pictures without a picture's extension", names(misnamed), fix)
    if others:
        yield Finding(Severity.NOTE, "files that are no pictures", names(others), "left out")


def no_picture(pattern: str | Path, passed_over: Sequence[Finding]) -> str:
    """That a search found nothing, and what there is instead, as the text of an error."""
    problem = "no picture in this folder" if os.path.isdir(Path(pattern)) else "no such picture, folder or match"
    for finding in sorted(passed_over, key=lambda finding: -finding.severity):
        if not finding.what.startswith("files"):
            return f"{shown(pattern)}: {problem}, only {str(finding)[:1].lower()}{str(finding)[1:]}"
    return f"{shown(pattern)}: {problem}; name a picture, a folder of pictures or a quoted glob like 'my/*.jpg'"


def unique_ids(names: Sequence[str]) -> list[str]:
    """Distinct names without their extension; those that would collide keep it (`a.jpg`, `a.png`)."""
    stems = [os.path.splitext(name)[0] for name in names]
    count = Counter(stems)
    ids = [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    # `a.jpg`, which kept its extension, can collide with the stem of `a.jpg.png`.
    return ids if len(set(ids)) == len(ids) else list(names)
