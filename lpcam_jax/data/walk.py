"""The files of a folder of pictures: each real folder once, and never what this program wrote itself."""

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

# What train.py, infer.py and `python -m lpcam_jax` write into the folders that they are given.
_RESULTS = {
    "checkpoints", "gallery", "labels", "maps", "masks", "overlays", "prototypes", "pseudo_masks", "saliency",
    "seeds", "tensorboard", "confusion.png", "thresholds.png",
}  # fmt: skip
_MARK_BYTES = 1 << 24


class Walk(NamedTuple):
    """What is found in a folder and its subfolders; hidden files and folders are not.

    Attributes:
        files: sorted.
        own: folders and files that this program wrote; they are not entered.
        again: links to folders that are reached another way; they are not followed.
        closed: folders that cannot be read.
    """

    files: list[Path]
    own: list[Path]
    again: list[Path]
    closed: list[Path]


def walk(folder: str | Path) -> Walk:
    """Find all files, each real folder once: links are followed after all real folders, and not in circles.

    Args:
        folder: where to look. If this program wrote into it, too, its results are left out and the rest is found.
    """
    found, seen = Walk([], [], [], []), set()
    folders, links = [Path(folder)], []
    while folders or links:
        is_link = not folders
        path = links.pop() if is_link else folders.pop()
        real = os.path.realpath(path)
        if real in seen or (is_link and _is_above(real, path)):
            found.again.append(path)
            continue
        seen.add(real)
        is_own = wrote(path)
        if is_own and path != Path(folder):
            found.own.append(path)
            continue
        try:
            entries = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
        except OSError:
            found.closed.append(path)
            continue
        for entry in entries:
            inside = path / entry.name
            if is_own and entry.name in _RESULTS:
                found.own.append(inside)
            elif entry.is_symlink():
                (links if os.path.isdir(inside) else found.files).append(inside)
            else:
                (folders if entry.is_dir(follow_symlinks=False) else found.files).append(inside)
        links.sort(reverse=True)
    for paths in found:
        paths.sort()
    return found


def wrote(folder: str | Path) -> str:
    """The file by which a folder is known as one that this program wrote; "": it did not."""
    for name, is_ours in _MARKS.items():
        content = _beginning(Path(folder, name))
        if content is not None and is_ours(content, Path(folder)):
            return name
    return ""


def apart(paths: Sequence[Path], base: str | Path) -> tuple[list[Path], list[Path]]:
    """Part files from those in folders that this program wrote.

    Args:
        paths: of files.
        base: the folder above them: of its own files, only results count, as for `walk`.

    Returns:
        The other files; and the folders (or results in `base`), sorted.
    """
    known, others, own = cache(wrote), [], set()
    for path in paths:
        parts = Path(os.path.relpath(path, base)).parts
        above = (Path(base, *parts[:count]) for count in range(1, len(parts)))
        found = next((folder for folder in above if known(folder)), None)
        if found is None and parts[0] in _RESULTS and known(Path(base)):
            found = Path(base, parts[0])
        if found is None:
            others.append(path)
        else:
            own.add(found)
    return others, sorted(own)


def outside(found: Walk, folder: Path) -> Walk:
    """What was found outside of a folder."""
    return Walk(*([path for path in paths if folder != path and folder not in path.parents] for paths in found))


def entry(folder: str | Path, *names: str) -> Path | None:
    """The first of these names that a folder has an entry of, spelled like this or, if there is none, in another case.

    File systems and programs differ in the case of names: `Labels.CSV` is `labels.csv`, `Masks/` is `masks/`.
    """
    for name in names:
        if os.path.lexists(path := Path(folder, name)):
            return path
    try:
        known = {one.casefold(): one for one in sorted(os.listdir(folder), reverse=True)}
    except OSError:
        return None
    return next((Path(folder, known[name.casefold()]) for name in names if name.casefold() in known), None)


def _is_above(real: str, path: Path) -> bool:
    """Whether a real folder is the one that a link lies in, or one above it: following the link is going in circles."""
    inside = os.path.realpath(path.parent)
    return inside == real or inside.startswith(real.rstrip(os.sep) + os.sep)


def _beginning(path: Path) -> bytes | None:
    """Of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MARK_BYTES)
    except OSError:
        return None


def _has_keys(content: bytes, *keys: str) -> bool:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and all(key in values for key in keys)


# Of infer.py, refine, saliency, and IRNet's and AMN's labels; of train.py, twice; of evaluate; of sweep; of
# faithfulness.
_MARKS = {
    "protocol.json": lambda content, _: any(
        _has_keys(content, *keys) for keys in (("class_names",), ("maps", "method"), ("version", "saliency"))
    ),
    "config.json": lambda content, folder: (
        _has_keys(content, "class_names", "config") or (_has_keys(content) and (folder / "checkpoints").is_dir())
    ),
    "metrics.jsonl": lambda content, _: not content.strip() or re.match(rb'\{[^\n]*"step": ?\d', content) is not None,
    "metrics.json": lambda content, _: _has_keys(content, "protocol"),
    "sweep.json": lambda content, _: _has_keys(content, "protocol"),
    "faithfulness.json": lambda content, _: _has_keys(content, "protocol"),
}
