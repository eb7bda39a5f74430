"""Finds everything that is wrong or odd in a data set at once, and says how to fix it."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..machine.errors import UserError
from ..seeds import IGNORE
from .annotations.regions import Truth
from .findings import Finding, Severity, listed, quoted, shown
from .folder import Contents, look_into, same_elsewhere
from .masks import check_size, check_values, read_mask
from .pictures import oddities, picture_size, read_picture
from .records import RecordSource

_MAX_DEFECTS = 20  # defects of the labels that are listed
_FEW_PICTURES = 10  # a class with fewer is rare
_TINY, _HUGE = 32, 100_000_000  # shortest side, number of pixels


class Checked(NamedTuple):
    """The result of checking a folder.

    Attributes:
        contents: what the folder holds.
        findings: the problems, worst first.
        sizes: (H, W) of every picture that could be opened.
    """

    contents: Contents
    findings: list[Finding]
    sizes: list[tuple[int, int]]


def check_labels(source: RecordSource) -> None:
    """Check that a classifier can be trained on the labels; problems that may be intended are printed as warnings.

    Raises:
        UserError: no picture has a label, or all have the same labels.
    """
    for finding in _of_labels(source.labels, source.class_names):
        if finding.severity == Severity.ERROR:
            raise UserError(f"the pictures to train on: {finding}.")
        tqdm.write(f"warning: the pictures to train on: {finding}")


def check_folder(root: str | Path) -> Checked:
    """Find everything that is wrong or odd in a folder; every file is read.

    Raises:
        UserError: there is no such folder.
    """
    root = Path(root)
    defects: list[str] = []
    contents = look_into(root, defects.append)
    findings = [*_of_defects(defects), *contents.remarks, *_of_contents(contents, root)]
    if contents.ids:
        findings += _of_labels(contents.labels, contents.class_names)
        findings += _of_rare_classes(contents.labels, contents.class_names)
    findings += _of_names(contents, root)
    of_files, sizes = _of_files(contents, root)
    return Checked(contents, sorted([*findings, *of_files], key=lambda finding: -finding.severity), sizes)


def _of_defects(defects: Sequence[str]) -> Iterator[Finding]:
    """What the reader of the labels reported."""
    for defect in defects[:_MAX_DEFECTS]:
        problem, _, fix = defect.rpartition("; ")
        yield Finding(Severity.ERROR, problem, (), fix)
    if (omitted := len(defects) - _MAX_DEFECTS) > 0:
        yield Finding(Severity.ERROR, f"{omitted} more of the labels", (), "correct those above first")


def _of_labels(labels: np.ndarray, class_names: Sequence[str]) -> Iterator[Finding]:
    """Problems that show in labels (n, c) alone, without opening the pictures."""
    pictures, counts = len(labels), labels.sum(axis=0)
    if not counts.any():
        fix = "label some, or choose a larger part"
        if len(class_names):  # otherwise the reader of the labels has reported it
            yield Finding(Severity.ERROR, f"none of the {pictures} pictures has a label", (), fix)
        return
    everywhere = tuple(name for name, count in zip(class_names, counts, strict=True) if count == pictures)
    nowhere = tuple(name for name, count in zip(class_names, counts, strict=True) if not count)
    if pictures > 1 and len(everywhere) + len(nowhere) == len(class_names):
        problem = f"nothing to tell apart, all {pictures} pictures have the same labels"
        yield Finding(Severity.ERROR, problem, everywhere, "add pictures with other labels or with none")
        return
    if everywhere and pictures > 1:
        fix = "add pictures without them: a class that is always present cannot be learned"
        yield Finding(Severity.WARNING, f"in all {pictures} pictures", everywhere, fix)
    if nowhere:
        fix = "their heat maps will be empty: add pictures of them, or leave the classes out"
        yield Finding(Severity.WARNING, "classes in no picture", nowhere, fix)


def _of_rare_classes(labels: np.ndarray, class_names: Sequence[str]) -> Iterator[Finding]:
    counts = labels.sum(axis=0).astype(int)
    rare = [f"{name} ({n})" for name, n in zip(class_names, counts, strict=True) if 0 < n < _FEW_PICTURES]
    if rare:
        fix = "add pictures of them: little can be learned from so few"
        yield Finding(Severity.WARNING, f"classes in fewer than {_FEW_PICTURES} pictures", tuple(rare), fix)


def _of_contents(contents: Contents, root: Path) -> Iterator[Finding]:
    """Labels, pictures and masks without a counterpart."""
    if contents.origin is None and contents.unlabelled:
        fix = f"infer.py --images {shown(root)} maps them; to train, add labels.csv with the header name,labels"
        yield Finding(Severity.NOTE, "the pictures have no labels", (), fix)
    elif contents.unlabelled and contents.ids:  # if none has labels, the label file is at fault
        names = _names(contents.unlabelled, root)
        yield Finding(Severity.WARNING, "pictures without labels", names, "label them; otherwise they are left out")
    if contents.unused:
        yield Finding(Severity.NOTE, "named, but in no picture", tuple(contents.unused), "they are left out")
    if contents.spare_masks and (any(contents.masks) or not contents.ids):
        fix = "name a mask like its picture, ID.png, or remove it"
        yield Finding(Severity.WARNING, "masks of no picture", _names(contents.spare_masks, root), fix)
    without = [path for path, mask in zip(contents.pictures, contents.masks, strict=True) if mask is None]
    if any(contents.masks) and without:
        fix = "only the others are scored"
        yield Finding(Severity.NOTE, "pictures without a mask", _names(without, root), fix)


def _of_names(contents: Contents, root: Path) -> Iterator[Finding]:
    """Names that other operating systems cannot tell apart, or that probably mean the same."""
    pictures = [path.relative_to(root).as_posix() for path in [*contents.pictures, *contents.unlabelled]]
    for kind, names in (("file names", pictures), ("classes", contents.class_names)):
        alike = defaultdict(list)
        for name in sorted(names):
            alike[same_elsewhere(name)].append(name)
        groups = [[quoted(name) for name in group] for group in alike.values() if len(group) > 1]
        if groups:
            fix = "rename all but one" if kind == "file names" else "spell each class in one way"
            where = tuple(listed(group, " and ") for group in groups)
            yield Finding(Severity.WARNING, f"{kind} that differ only in case or Unicode form", where, fix)


# Files


class _File(NamedTuple):
    """A picture, its mask, and the classes of its labels, numbered 1..c; None where it has none."""

    picture: Path
    mask: Path | Truth | None
    classes: frozenset[int] | None


class _Read(NamedTuple):
    """The size, SHA-256 and findings of a picture; None where it cannot be read."""

    size: tuple[int, int] | None
    digest: bytes | None
    findings: list[Finding]


def _of_files(contents: Contents, root: Path) -> tuple[list[Finding], list[tuple[int, int]]]:
    labelled = zip(contents.pictures, contents.masks, contents.labels, strict=True)
    files = [_File(path, mask, frozenset((np.flatnonzero(row) + 1).tolist())) for path, mask, row in labelled]
    files += [_File(path, None, None) for path in contents.unlabelled]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda file: _read(file, contents.class_names, root), files)
        results = list(tqdm(results, "checking", len(files), unit="img"))
    findings = _merged(finding for result in results for finding in result.findings)
    findings += _of_duplicates(files, results, root)
    return findings, [result.size for result in results if result.size]


def _read(file: _File, class_names: Sequence[str], root: Path) -> _Read:
    """Check one picture and its mask; each finding names one file."""
    (name,) = _names([file.picture], root)
    findings: list[Finding] = []
    digest = None

    def attempt(function: Callable, *arguments: Any, path: Path) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            problem, _, fix = str(error).removeprefix(f"{shown(path)}: ").rpartition("; ")
            findings.append(Finding(Severity.ERROR, problem, _names([path], root), fix))
            return None

    size = attempt(picture_size, file.picture, path=file.picture)
    if size:
        if min(size) < _TINY:
            fix = "leave them out: they are too small to show an object"
            findings.append(Finding(Severity.WARNING, f"pictures less than {_TINY} pixels wide or high", (name,), fix))
        if size[0] * size[1] >= _HUGE:
            fix = "scale them down: they take a lot of memory and time"
            findings.append(Finding(Severity.WARNING, "pictures of 100 megapixels and more", (name,), fix))
        if attempt(read_picture, file.picture, path=file.picture) is not None:
            digest = hashlib.sha256(file.picture.read_bytes()).digest()
            odd = oddities(file.picture)
            findings += [Finding(Severity.NOTE, f"pictures {oddity}", (name,), how) for oddity, how in odd]
    if isinstance(file.mask, Path):
        mask = attempt(read_mask, file.mask, path=file.mask)
        if mask is not None:
            if size:
                attempt(check_size, mask, size, file.mask, path=file.mask)
            faults = len(findings)
            attempt(check_values, mask, len(class_names), file.mask, path=file.mask)
            if len(findings) == faults:
                findings += _of_classes(mask, file, class_names, root)
    elif file.mask and size:
        findings += _of_drawn(file, size, class_names, name)
    return _Read(size, digest, findings)


def _of_classes(mask: np.ndarray, file: _File, class_names: Sequence[str], root: Path) -> Iterator[Finding]:
    """Classes on which a mask and the labels of its picture disagree."""
    drawn = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:IGNORE]).tolist()) - {0}
    for problem, classes in (
        ("masks with classes that are not in the labels", drawn - file.classes),
        ("masks without a class that is in the labels", file.classes - drawn),
    ):
        if classes:
            names = listed([class_names[number - 1] for number in sorted(classes)])
            where = f"{file.mask.relative_to(root).as_posix()} ({names})"
            fix = "correct the labels or the mask; classes are numbered from 1 in alphabetical order"
            yield Finding(Severity.WARNING, problem, (where,), fix)


def _of_drawn(file: _File, size: tuple[int, int], class_names: Sequence[str], name: str) -> Iterator[Finding]:
    """What is wrong with the mask that the label file of a picture draws; its labels may be used all the same."""
    try:
        mask = file.mask.read(size, class_names)
    except UserError as error:
        problem, _, fix = str(error).removeprefix(f"{file.mask.where}: ").rpartition("; ")
        yield Finding(Severity.WARNING, problem, (name,), f"{fix}: until then these pictures have no masks")
        return
    if hidden := sorted(file.classes - set(np.unique(mask).tolist())):
        where = f"{name} ({listed([class_names[number - 1] for number in hidden])})"
        fix = "correct the outlines, or remove the label"
        yield Finding(Severity.WARNING, "labels whose regions have no pixel", (where,), fix)


def _of_duplicates(files: Sequence[_File], results: Sequence[_Read], root: Path) -> Iterator[Finding]:
    """Picture files with identical bytes."""
    same = defaultdict(list)
    for file, result in zip(files, results, strict=True):
        if result.digest:
            same[result.digest].append(file)
    groups = [group for group in same.values() if len(group) > 1]
    agree = [group for group in groups if len({file.classes for file in group}) == 1]
    differ = [group for group in groups if len({file.classes for file in group}) > 1]
    for problem, duplicates in (
        ("the same picture twice", agree),
        ("the same picture twice, with different labels", differ),
    ):
        if duplicates:
            where = tuple(listed(_names([file.picture for file in group], root), " = ") for group in duplicates)
            yield Finding(Severity.WARNING, problem, where, "keep one, with all its labels")


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """Merge findings that differ only in names and numbers, in the words of the first."""
    groups = defaultdict(list)
    for finding in findings:
        groups[finding.severity, re.sub(r"\d+", "0", finding.what)].append(finding)
    return [
        group[0]._replace(where=tuple(name for finding in group for name in finding.where)) for group in groups.values()
    ]


def _names(paths: Sequence[Path], root: Path) -> tuple[str, ...]:
    return tuple(path.relative_to(root).as_posix() for path in paths)
