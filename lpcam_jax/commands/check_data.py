"""Check a folder of pictures before training on it: counts, and everything wrong or suspicious, with how to fix it.

    python -m lpcam_jax check-data my_data

Labels are detected as for training: labels.csv, COCO, VOC, LabelMe, YOLO, Label Studio, CVAT or one folder per class;
without labels, only the pictures are checked. Every file is read.

exit code 0: no findings, or only notes (handled automatically); 1: warnings; 2: errors, which training or
infer.py would reject
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ..config import Data
from ..config.command_line import parse_flags
from ..data.checks import Checked, Severity, check_folder
from ..data.findings import shown
from ..data.folder import Contents
from ..report.names import shorten

_COLUMNS = 12  # up to this many classes a table of class pairs is printed
_PAIRS = 10  # number of pairs listed if there are more classes
_WIDTH = 24  # maximum width of a class name
_FEW = 200  # pictures, with which a recipe of its own does better


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A data set."""

    root: tyro.conf.Positional[str]
    """folder of the data set, as --data.root of train.py"""


def main(words: list[str]) -> None:
    """Check the folder and print the findings; exits with the highest severity as exit code.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there is no such folder.
    """
    arguments = parse_flags(Arguments, words, command="check-data", description=__doc__)
    checked = check_folder(arguments.root)
    for line in describe(checked):
        print(line)
    if code := max((finding.severity for finding in checked.findings), default=0):
        sys.exit(int(code))


def describe(checked: Checked) -> Iterator[str]:
    """Describe the data set and the findings, line by line."""
    contents = checked.contents
    count = len(contents.pictures) + len(contents.unlabelled)
    origin = f", {len(contents.class_names)} classes, labels from {shown(contents.origin)}" if contents.origin else ""
    yield f"{count} pictures{origin}"
    if checked.sizes:
        sizes = sorted(checked.sizes, key=lambda size: size[0] * size[1])
        yield "sizes (width x height): {1}x{0} to {3}x{2}".format(*sizes[0], *sizes[-1])
        if large := sum(max(size) > Data.longest for size in sizes):
            yield f"{large} of them are shrunk to {Data.longest} pixels for the networks (--data.longest)"
    if drawn := sum(not isinstance(mask, Path | None) for mask in contents.masks):
        yield f"{drawn} of them have masks, drawn by the labels"
    if contents.class_names:
        yield ""
        yield from _counts(contents)
    if 0 < len(contents.ids) < _FEW:
        yield ""
        yield f"fewer than {_FEW} pictures: a whole network learns them by heart; see configs/folder_few_chain.py"
    if checked.findings:
        yield ""
    for finding in checked.findings:
        yield f"{finding.severity.name.lower():<9}{finding}"
    severities = Counter(finding.severity for finding in checked.findings)
    counts = [f"{severities[kind]} {kind.name.lower()}{'s' * (severities[kind] != 1)}" for kind in reversed(Severity)]
    yield ", ".join(counts)


def _counts(contents: Contents) -> Iterator[str]:
    """Number of pictures of each class and of each pair of classes."""
    names, together = contents.class_names, (contents.labels.T @ contents.labels).astype(int)
    header = [_fit(name, 8) for name in names] if len(names) <= _COLUMNS else []
    width = max(map(len, ["class", "(none)", *(_fit(name, _WIDTH) for name in names)]))
    yield " ".join(["class".ljust(width), "pictures", *(f"{f'+{name}':>9}" for name in header)])
    for row, name in enumerate(names):
        cells = ["-" if column == row else str(together[row, column]) for column in range(len(header))]
        yield " ".join([_fit(name, _WIDTH).ljust(width), f"{together[row, row]:8}", *(cell.rjust(9) for cell in cells)])
    if none := int((contents.labels.sum(axis=1) == 0).sum()):
        yield f"{'(none)'.ljust(width)} {none:8}"
    if not header:
        pairs = np.argwhere(np.triu(together, 1))
        pairs = sorted(pairs.tolist(), key=lambda pair: -together[tuple(pair)])[:_PAIRS]
        yield from ["", "most often together"] if pairs else []
        for first, second in pairs:
            yield f"{together[first, second]:8} {_fit(names[first], _WIDTH)} + {_fit(names[second], _WIDTH)}"


def _fit(name: str, width: int) -> str:
    return shorten(name, lambda text: len(text) <= width)
