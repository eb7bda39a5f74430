"""The paper's tables beside what was run here: each number, the stage of a chain that it is of, and ours.

    python -m lpcam_jax paper --table 2
    python -m lpcam_jax paper --table 2 --data voc12 --results runs/paper_voc12

The chains are configs/paper/voc12.py and configs/paper/coco14.py; a row is run by `chain` with --only and its stage.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ..chain.paper import ENTRIES, TITLES, Entry, found
from ..machine.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which numbers, and where ours are."""

    table: Literal[1, 2, 3, 4] | None = None
    """number of the paper's table; none: all"""
    data: Literal["voc12", "coco14"] | None = None
    """data set; none: both"""
    results: str = ""
    """--workdir of the chain of this data set; empty: only the paper's numbers"""


def main(words: list[str]) -> None:
    """Print the table.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such results.
    """
    arguments = tyro.cli(Arguments, args=words, prog="python -m lpcam_jax paper", description=__doc__)
    if arguments.results and arguments.data is None:
        raise UserError("--results is of one data set; name it with --data voc12 or --data coco14.")
    if arguments.results and not Path(arguments.results, "chain.json").is_file():
        raise UserError(f"--results {arguments.results} is not the --workdir of a chain: it has no chain.json.")
    chosen = [
        entry for entry in ENTRIES if arguments.table in (None, *entry.tables) and arguments.data in (None, entry.data)
    ]
    if not chosen:
        raise UserError(f"table {arguments.table} of the paper has nothing on {TITLES[arguments.data]}.")
    for line in table(chosen, Path(arguments.results) if arguments.results else None):
        print(line)


def table(entries: list[Entry], results: Path | None) -> list[str]:
    """Lines of a Markdown table.

    Args:
        entries: its rows.
        results: folder of the chain; None: the columns of our numbers are left out.
    """
    ours = ["CAM, ours", "LPCAM, ours", "difference"] if results else []
    head = ["table", "data", "system", "what", "CAM", "LPCAM", *ours, "stage, CAM", "stage, LPCAM"]
    lines = [head, ["---"] * len(head)]
    for entry in entries:
        numbers = [_number(value) for value in entry.numbers]
        if results:
            found_here = found(entry, results)
            numbers += [_number(value) for value in found_here]
            pairs = zip(found_here, entry.numbers, strict=True)
            numbers.append(" / ".join("" if None in pair else f"{pair[0] - pair[1]:+.1f}" for pair in pairs))
        tables = ", ".join(map(str, entry.tables))
        lines.append([tables, TITLES[entry.data], entry.system, entry.what, *numbers, *map(_code, entry.stages)])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _code(stage: str) -> str:
    return f"`{stage}`"
