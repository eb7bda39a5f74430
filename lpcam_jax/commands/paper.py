"""The paper's tables beside what was run here: each number, the stage of a chain that it is of, and ours.

    python -m lpcam_jax paper --table 2
    python -m lpcam_jax paper --table 2 --data voc12 --results runs/paper_voc12
    python -m lpcam_jax paper --figure 5 --results runs/paper_voc12

The chains are configs/paper/voc12.py and configs/paper/coco14.py; a row is run by `chain` with --only and its stage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..chain.numbers import part_of, read_object
from ..chain.paper import ENTRIES, FIGURE_5, TABLE_1, TITLES, DataSet, Entry, errors, found, sensitivity
from ..config.command_line import parse_flags
from ..config.registry import title
from ..machine.errors import UserError

Row = list[str]
_PARAMETERS = {
    "threshold": "τ, `--prototypes.threshold`",
    "mu_f": "μ_f, `--prototypes.mu-f`",
    "mu_b": "μ_b, the upper `--prototypes.context`",
    "clusters": "K, `--prototypes.clusters`",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which numbers, and where ours are."""

    table: Literal[1, 2, 3, 4] | None = None
    """number of the paper's table"""
    figure: Literal[5] | None = None
    """number of the paper's figure; without --table and --figure, all are printed"""
    data: Literal["voc12", "coco14"] | None = None
    """data set; none: both"""
    results: str = ""
    """--workdir of the chain of this data set; empty: only the paper's numbers"""


def main(words: list[str]) -> None:
    """Print the tables.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such results.
    """
    arguments = parse_flags(Arguments, words, command="paper", description=__doc__)
    if arguments.results and not Path(arguments.results, "chain.json").is_file():
        raise UserError(f"--results {arguments.results} is not the --workdir of a chain: it has no chain.json.")
    results = Path(arguments.results) if arguments.results else None
    if arguments.data == "coco14" and (arguments.table == 1 or arguments.figure):
        raise UserError(f"the paper's Table 1 and Figure 5 have nothing on {TITLES['coco14']}.")
    whole = arguments.table is None and arguments.figure is None
    of_voc12 = arguments.data in (None, "voc12")
    of_all = whole or arguments.table in (2, 3, 4)
    if results:
        if of_all and arguments.data is None:
            raise UserError("--results is of one data set; name it with --data voc12 or --data coco14.")
        _expect(arguments.data or "voc12", results)
    tables = []
    if of_all:
        tables.append(table(_chosen(arguments.table, arguments.data), results))
    if of_voc12 and (whole or arguments.table == 1):
        tables.append(table_1(results))
    if of_voc12 and (whole or arguments.figure == 5):
        tables.append(figure_5(results))
    print("\n\n".join("\n".join(lines) for lines in tables))


def _expect(data: DataSet, results: Path) -> None:
    """Raise UserError if a run of a chain is of another data set."""
    for file in sorted(results.glob("*/run/config.json")):
        source = part_of(part_of(read_object(file), "config"), "data").get("source")
        if source not in (None, data):
            raise UserError(f"--results {results} is not of {TITLES[data]}: {file} is of {TITLES.get(source, source)}.")


def table(entries: Sequence[Entry], results: Path | None) -> list[str]:
    """Lines of Tables 2 to 4 in Markdown.

    Args:
        entries: the rows.
        results: folder of the chain; None: the columns of our numbers are left out.
    """
    ours = ["CAM, ours", "LPCAM, ours", "difference"] if results else []
    head = ["table", "data", "system", "what", "CAM", "LPCAM", *ours, "stage, CAM", "stage, LPCAM"]
    return _markdown(head, (_row(entry, results) for entry in entries))


def table_1(results: Path | None) -> list[str]:
    """Lines of Table 1 in Markdown; arguments as of `table`."""
    rows = []
    for method, numbers in TABLE_1.items():
        rows.append(["1", title(method), *map(_number, numbers)])
        if results:
            ours = errors(method, results)
            rows.append(["", f"{title(method)}, ours", *map(_number, ours or [None] * len(numbers))])
    return _markdown(["table", f"seeds, {TITLES['voc12']} train", "FP", "FN", "mIoU", "precision", "recall"], rows)


def figure_5(results: Path | None) -> list[str]:
    """Lines of Figure 5 in Markdown; arguments as of `table`."""
    ours, rows = sensitivity(results) if results else None, []
    for parameter, (best, said) in FIGURE_5.items():
        row = ["5", _PARAMETERS[parameter], f"{best:g}", said]
        if results:
            row.append(
                ", ".join(f"{value:g}: {_number(miou)}" for value, miou in ours[parameter].items()) if ours else ""
            )
        rows.append(row)
    return _markdown(["figure", "parameter", "best", "others", *(["mIoU, ours"] if results else [])], rows)


def _chosen(number: int | None, data: str | None) -> list[Entry]:
    """The entries of a table and a data set; None: of all."""
    chosen = [entry for entry in ENTRIES if number in (None, *entry.tables) and data in (None, entry.data)]
    if not chosen:
        raise UserError(f"table {number} of the paper has nothing on {TITLES[data]}.")
    return chosen


def _row(entry: Entry, results: Path | None) -> Row:
    """One line of Tables 2 to 4."""
    numbers = [_number(value) for value in entry.numbers]
    if results:
        found_here = found(entry, results)
        numbers += [_number(value) for value in found_here]
        pairs = zip(found_here, entry.numbers, strict=True)
        numbers.append(" / ".join("" if None in pair else f"{pair[0] - pair[1]:+.1f}" for pair in pairs))
    tables = ", ".join(map(str, entry.tables))
    return [tables, TITLES[entry.data], entry.system, entry.what, *numbers, *(f"`{stage}`" for stage in entry.stages)]


def _markdown(head: Row, rows: Iterator[Row] | Sequence[Row]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
