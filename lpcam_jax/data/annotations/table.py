"""labels.csv: a line for each picture.

    name,labels                   labels in one cell, with one separator in the whole file: ; , | or the space
    name,labels                   or as a list: ['cat', 'dog']
    name,cat,dog                  or a column for each class, with 1 and 0

What can be read in two ways is refused, with both.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..findings import Finding, Severity, listed, shown
from ..formats import SUFFIXES
from .rows import Report, Row, checked_name

_HEADER = ["name", "labels"]
_MARKS = {";": "the semicolon", ",": "the comma", "|": "the bar", " ": "the space"}
_NOTHING = {"nan", "none", "null", "na", "n/a", "#n/a", "<na>"}  # in any case
_EMPTY = {"", "[]", "()", "{}", "set()"}
_BOOLEANS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""


class _Line(NamedTuple):
    """A line of the file.

    Attributes:
        where: the line, for messages.
        cells: of the line.
    """

    where: str
    cells: list[str]


def read_table(path: Path, report: Report) -> tuple[list[Row], list[str], list[Finding]]:
    """The rows of a labels.csv, the classes that are in none, and remarks; defects go to `report`."""
    lines: list[_Line] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            lines.extend(_Line(f"{shown(path)}, line {reader.line_num}", cells) for cells in reader if any(cells))
    except UnicodeDecodeError:
        report(f"{shown(path)}: not UTF-8 text; save it as CSV in UTF-8")
        return [], [], []
    except (OSError, csv.Error) as error:
        report(f"{shown(path)}: cannot be read as CSV ({error}); save it as CSV in UTF-8")
        return [], [], []
    if _has_index(header, lines):
        header = header[1:]
        lines = [_Line(line.where, line.cells[1:]) for line in lines]
    if [cell.casefold() for cell in header] == _HEADER:
        rows, remarks = _rows_of_cells(path, lines, report)
        unused = []
    elif _is_table_of_classes(header, lines):
        rows, remarks = _rows_of_columns(path, header, lines, report), []
        unused = sorted(set(header[1:]).difference(*(row.labels for row in rows)))
    else:
        first = listed([",".join(header)])
        report(
            f"{shown(path)}: the first line is {first!r}; it must be 'name,labels', or 'name' and a column for each "
            "class that holds only 0 and 1"
        )
        return [], [], []
    if not lines:
        report(f"{shown(path)}: no picture after the header; write one line per picture: name,labels")
    return rows, unused, remarks


def _has_index(header: Sequence[str], lines: Sequence[_Line]) -> bool:
    """Whether the first column is the numbers of the lines that pandas writes, and not the names of the pictures."""
    if len(header) < 3 or not (not header[0] or header[0].startswith("Unnamed")):
        return False
    return not all(_boolean(line.cells[1]) is not None for line in lines if len(line.cells) > 1)


# A column for each class


def _is_table_of_classes(header: Sequence[str], lines: Sequence[_Line]) -> bool:
    """Whether all columns but the first hold 0 and 1; a first line that is itself a picture's is no header."""
    if len(header) < 2 or not all(header[1:]) or Path(header[0]).suffix.lower() in SUFFIXES:
        return False
    if any(_boolean(cell) is not None for cell in header):
        return False
    cells = [cell for line in lines for cell in line.cells[1:]]
    known = sum(_boolean(cell) is not None for cell in cells)
    return bool(cells) and (known == len(cells) or (header[0].casefold() == "name" and known > len(cells) / 2))


def _boolean(cell: str) -> bool | None:
    return _BOOLEANS.get(cell.strip().casefold())


def _rows_of_columns(path: Path, header: Sequence[str], lines: Sequence[_Line], report: Report) -> list[Row]:
    names, rows = header[1:], []
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        report(f"{shown(path)}: two columns for {listed(twice)}; keep one for each class")
        return []
    for where, cells in lines:
        values = [_boolean(cell) for cell in cells[1:]]
        if len(cells) != len(header):
            report(f"{where}: fields: {len(cells)} instead of {len(header)}; write one for each column")
        elif None in values:
            column = values.index(None)
            report(f"{where}: {listed([cells[1 + column]])!r} for {listed([names[column]])}; write 0 or 1")
        elif name := _name(cells[0], where, report):
            rows.append(Row(name, [label for label, value in zip(names, values, strict=True) if value]))
    return rows


# Labels in one cell


def _rows_of_cells(path: Path, lines: Sequence[_Line], report: Report) -> tuple[list[Row], list[Finding]]:
    found: list[tuple[str, str | list[str]]] = []  # names; cells that are to be split, or lists of labels
    nothing = Counter()
    for where, cells in lines:
        if len(cells) > 2 and _in_brackets(whole := ",".join(cells[1:]).strip()):  # a list without quotes around it
            cells = [cells[0], whole]
        if len(cells) != 2:
            report(f"{where}: fields: {len(cells)} instead of 2; separate labels by spaces, ; or |")
            continue
        name, cell = _name(cells[0], where, report), cells[1].strip()
        if not name:
            continue
        if cell in _EMPTY or cell.casefold() in _NOTHING:
            nothing[cell] += cell not in _EMPTY
            found.append((name, []))
        elif _in_brackets(cell):
            labels = _labels_of_list(cell)
            if labels is None:
                report(f"{where}: {listed([cell])} is no list of labels; write them with ; between them")
            else:
                found.append((name, labels))
        else:
            found.append((name, cell))
    split = _separated([cell for _, cell in found if isinstance(cell, str)], shown(path), report)
    if split is None:
        return [], []
    rows = [Row(name, cell if isinstance(cell, list) else split[cell]) for name, cell in found]
    nothing = +nothing
    if not nothing:
        return rows, []
    what = f"{shown(path)}: {nothing.total()} pictures with {' or '.join(nothing)} for a label"
    fix = "read as none of the classes; leave out the lines of pictures whose classes are not known"
    return rows, [Finding(Severity.NOTE, what, (), fix)]


def _name(cell: str, where: str, report: Report) -> str | None:
    if not cell.strip():
        report(f"{where}: no name; write name,labels")
        return None
    return checked_name(cell.strip(), where, report)


def _in_brackets(cell: str) -> bool:
    return cell[:1] + cell[-1:] in ("[]", "()", "{}") and len(cell) > 1


def _labels_of_list(cell: str) -> list[str] | None:
    """The labels of a list as Python, NumPy or JSON writes it, or without quotes; None: it is no such list."""
    inside = cell[1:-1].strip()
    if re.fullmatch(rf"(?:(?:{_QUOTED})[,\s]*)+", inside, re.DOTALL):
        labels = [re.sub(r"\\(.)", r"\1", text[1:-1]) for text in re.findall(_QUOTED, inside, re.DOTALL)]
    elif re.search(r"""["'\[\](){}]""", inside):
        return None
    elif "," in inside or len(inside.split()) == 1:
        labels = inside.split(",")
    else:
        return None
    return [label.strip() for label in labels if label.strip()]


def _separated(cells: Sequence[str], where: str, report: Report) -> dict[str, list[str]] | None:
    """Split cells at the one separator of the file.

    Args:
        cells: the cells with labels, lists excepted.
        where: the file, for messages.
        report: gets both readings, if there are two.

    Returns:
        The labels of each cell; None if there are two readings.
    """
    distinct = set(cells)
    marks = [mark for mark in ";|," if any(mark in cell for cell in distinct)]
    if not marks:
        spaced = [cell for cell in distinct if len(cell.split()) > 1]
        if spaced and not _surely_separates(distinct, " "):
            return _two_readings(distinct, [" "], [], where, report)
        return {cell: cell.split() for cell in distinct}
    first, *others = marks
    pieces = {piece for cell in distinct for piece in _split(cell, first)}
    for other in others:
        if _recur(pieces, other):
            return _two_readings(distinct, [first, other], [first], where, report)
    if first == "," and not _surely_separates(distinct, ","):
        return _two_readings(distinct, [","], [], where, report)
    # A cell of several words and without the separator is the name of a class, unless its words are classes, too.
    sure = {piece for cell in distinct if first in cell for piece in _split(cell, first)}
    unsure = {cell for cell in distinct if first not in cell and len(cell.split()) > 1} - sure
    if any(word in pieces - {cell} for cell in unsure for word in cell.split()):
        return _two_readings(distinct, [first, " "], [first], where, report)
    return {cell: _split(cell, first) for cell in distinct}


def _split(cell: str, marks: Iterable[str]) -> list[str]:
    parts = [cell]
    for mark in marks:
        parts = [one for part in parts for one in (part.split() if mark == " " else part.split(mark))]
    return [part.strip() for part in parts if part.strip()]


def _recur(texts: Iterable[str], mark: str) -> bool:
    """Whether some part of a text that a separator divides is in another text, too: then it may separate."""
    parts = [
        (set(_split(text, mark)), mark in text.strip() or (mark == " " and len(text.split()) > 1)) for text in texts
    ]
    count = Counter(part for some, _ in parts for part in some)
    return any(count[part] > 1 for some, divided in parts if divided for part in some)


def _surely_separates(texts: Iterable[str], mark: str) -> bool:
    """Whether parts of some divided text are elsewhere alone, or at another place: for the space, all its parts.

    A traffic light and a traffic sign share a word, and so do a bear and a polar bear; neither are two labels.
    """
    enough = all if mark == " " else any
    divided = [_split(text, mark) for text in texts]
    places = defaultdict(set)
    for parts in divided:
        for place, part in enumerate(parts):
            places[part].add(None if len(parts) == 1 else place)
    return any(len(parts) > 1 and enough(len(places[part]) > 1 for part in parts) for parts in divided)


def _two_readings(cells: set[str], all_marks: Sequence[str], sure: Sequence[str], where: str, report: Report) -> None:
    counts = [len({label for cell in cells for label in _split(cell, marks)}) for marks in (all_marks, sure)]
    mark = all_marks[-1]
    example = next(cell for cell in sorted(cells) if any(one in part for part in _split(cell, sure) for one in mark))
    report(
        f"{where}: {counts[0]} classes if {_MARKS[mark]} separates labels, {counts[1]} if it does not, as in "
        f"{listed([example])!r}; write ; between all labels, and after one that stands alone and holds {_MARKS[mark]}"
    )
