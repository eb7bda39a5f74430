"""Every stage beside the peer that a user would otherwise pick, in one run on one machine.

    python -m benchmarks
    python -m benchmarks --only kernel kmeans
    python -m benchmarks --short            # what CI runs: kernel, and k-means of 20,000 points
    python -m benchmarks --short --worse 100   # on a machine that others load, too
    python -m benchmarks --write            # replace results.json, the section of RESULTS.md, and the plots

Ends with exit code 1, and a line for each, when a ratio is more than 20 % (--worse) worse than in the committed results
of the same kind of machine (measured twice before it is believed), or when answers disagree. Peers live in .venv-bench
(`make .venv-bench/ready`); one that is missing has a row that says so.
"""

import datetime
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from benchmarks import machine, report
from benchmarks.contest import REPOSITORY, Contest, hold
from benchmarks.regression import errors, slower
from benchmarks.stages import SHORT_STAGES, STAGES, contests

RESULTS = REPOSITORY / "benchmarks" / "results.json"
Stage = Literal["kernel", "kmeans", "network", "inference", "start-up", "scaling"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    only: tuple[Stage, ...] = ()
    """these stages; empty: all"""
    short: bool = False
    """less than a minute: what CI runs; compared with short results"""
    worse: float = 20
    """per cent that a ratio may be worse than the committed one"""
    write: bool = False
    """replace the committed results"""


def main() -> int:
    """Measure, print, compare; the exit code."""
    arguments = tyro.cli(Arguments, description=__doc__)
    kind = "short" if arguments.short else "full"
    stages = SHORT_STAGES if arguments.short else STAGES
    stages = tuple(stage for stage in stages if not arguments.only or stage in arguments.only)
    start, here = time.perf_counter(), machine.describe()
    committed = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = comparable(committed.get(kind), here)
    results, problems = [], []
    for contest in contests(stages, short=arguments.short):
        result, found = measured(contest, before.get(contest.title), allowed=arguments.worse)
        print("\n".join(["", *report.table(result), ""]), flush=True)
        results.append(result)
        problems += found
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    made = {
        "machine": here,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "contests": results,
    }
    if arguments.write:
        kept = [one for one in before.values() if one["stage"] not in stages]
        made["contests"] = sorted([*kept, *results], key=lambda one: STAGES.index(one["stage"]))
        made["command"] = "python -m benchmarks --only STAGE, stage by stage" if kept else command
        write({**committed, kind: made}, made, short=arguments.short)
    print(f"{len(results)} contests in {time.perf_counter() - start:.0f} s.")
    if not before:
        print(
            f"nothing was compared: {RESULTS.name} has no {kind} results of this kind of machine "
            f"({here['cpu']}, {here['cores']} cores)."
        )
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    return 1 if problems else 0


def comparable(committed: dict[str, Any] | None, here: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Committed results by title, when they are of this kind of machine."""
    if not committed or not machine.is_same_kind(committed["machine"], here):
        return {}
    return {result["title"]: result for result in committed["contests"]}


def measured(
    contest: Contest, before: dict[str, Any] | None, *, allowed: float = 20
) -> tuple[dict[str, Any], list[str]]:
    """The result, and what is wrong with it: a ratio that got worse is measured once again before it is believed."""
    result = hold(contest, say=progress)
    if before and slower(result, before, allowed=allowed):
        progress(f"{contest.title}: slower than before; once again")
        again = hold(contest, say=progress)
        if not slower(again, before, allowed=allowed):
            result = again
    return result, errors(result) + (slower(result, before, allowed=allowed) if before else [])


def progress(text: str) -> None:
    """A line for who waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def write(everything: dict[str, Any], made: dict[str, Any], *, short: bool) -> None:
    """Results, and of the full ones the section and the plots."""
    RESULTS.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if short:
        return
    docs = REPOSITORY / "docs"
    report.put_into(RESULTS.with_name("RESULTS.md"), report.markdown(made))
    report.plot_ratios(docs / "beside_the_peers.png", made["contests"])
    for result in made["contests"]:
        if result["stage"] == "scaling":
            report.plot_scaling(docs / "picture_count.png", result)


if __name__ == "__main__":
    sys.exit(main())
