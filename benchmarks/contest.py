"""Contestants take turns: A, B, C, A, B, C, ..., each in a process of its own, only one of them at work.

What they answer is compared with the first one's, which is ours: nobody wins by doing less.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REPOSITORY = Path(__file__).parents[1]
PEERS_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"
THREADS = os.cpu_count()
_PATIENCE = 900  # seconds for one answer
_TURN = 0.05  # seconds: shorter work is done several times a turn
_MOST_A_TURN = 20


class Goal(NamedTuple):
    """text: in the table. least, most: of the ratio to ours."""

    text: str
    least: float = 0.0
    most: float = float("inf")

    def is_met(self, value: float) -> bool:
        """Whether a ratio is within."""
        return self.least <= value <= self.most


class Entry(NamedTuple):
    """One contestant.

    name:      in the table
    start:     MODULE:FUNCTION, see `contestant`; those of benchmarks.peers run in .venv-bench
    options:   of the function
    goal:      of its time in units of ours
    turns:     fewer than the contest's, for the slow; None: all
    tolerance: how far its answer may be from ours; None: the contest's
    """

    name: str
    start: str
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    goal: Goal | None = None
    turns: int | None = None
    tolerance: float | None = None


class Contest(NamedTuple):
    """Entries that are timed in turn, the first of which is ours.

    stage:     what --only names
    title:     on top of the table
    turns:     rounds
    tolerance: of an answer, relative to the largest value of ours
    per:       name of the answer that times are divided by, such as "iterations"
    better:    which way ratios should go: "up" for peers, "down" for costs in units of the first entry, "" if neither
    goals:     of ours' facts
    note:      below the table
    """

    stage: str
    title: str
    entries: tuple[Entry, ...]
    turns: int = 7
    tolerance: float = 1e-5
    per: str = ""
    better: str = "up"
    goals: dict[str, Goal] = {}  # noqa: RUF012 (never changed)
    note: str = ""


class OutOfContest(Exception):
    """A contestant that did not install, failed, or does not answer; its text goes into its row."""


class Contestant:
    """The process of an entry, set up."""

    def __init__(self, entry: Entry, folder: Path):
        python = PEERS_PYTHON if entry.start.startswith("benchmarks.peers.") else Path(sys.executable)
        if not python.exists():
            raise OutOfContest("not installed: make .venv-bench/ready")
        self._errors = folder / "stderr.txt"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.contestant", entry.start, json.dumps(entry.options)],
                cwd=REPOSITORY,
                env=os.environ | threads,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answer = folder / "answer.npz"
        try:
            ready = self._read()
        except OutOfContest:
            self.close()
            raise
        self._times, self.facts = 1, ready["facts"]
        if ready["seconds"]:
            self._times = int(np.clip(_TURN / ready["seconds"], 1, _MOST_A_TURN))

    def turn(self) -> float:
        """Seconds of one run."""
        told = self._ask(run=self._times)
        self.facts = told["facts"]
        return told["seconds"]

    def answer(self) -> dict[str, np.ndarray]:
        """What the last run gave."""
        self._ask(answer=str(self._answer))
        with np.load(self._answer) as arrays:
            return dict(arrays)

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):  # it may have ended before
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, **what) -> dict[str, Any]:
        try:
            print(json.dumps(what), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise OutOfContest(self._last_words()) from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            self._process.kill()
            raise OutOfContest(f"no answer within {_PATIENCE} s")
        line = self._process.stdout.readline()
        if not line:
            raise OutOfContest(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        return f"failed: {lines[-1].strip()[:200]}" if lines else "failed without a word"


def hold(contest: Contest, say=print) -> dict[str, Any]:
    """Hold a contest.

    Args:
        contest: what is timed.
        say: gets a line now and then.

    Returns:
        {"stage", "title", "per", "better", "note", "rows": one of each entry, "facts"}, plain JSON values. A row has
        its name, and "error", or else median, low and high (quartiles) in seconds, turns, count (of `per`), ratio (to
        ours), facts, goal and met.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        present, rows = {}, [{"name": entry.name} for entry in contest.entries]
        times: dict[int, list[float]] = {}
        for number, entry in enumerate(contest.entries):
            (folder / str(number)).mkdir()
            say(f"{contest.title}: setting up {entry.name}")
            try:
                present[number] = Contestant(entry, folder / str(number))
                stack.callback(present[number].close)
            except OutOfContest as error:
                rows[number]["error"] = str(error)
        for turn in range(contest.turns):
            for number, contestant in [*present.items()]:
                if turn >= (contest.entries[number].turns or contest.turns):
                    continue
                try:
                    times.setdefault(number, []).append(contestant.turn())
                except OutOfContest as error:
                    rows[number]["error"] = str(error)
                    del present[number]
        answers = {}
        for number, contestant in [*present.items()]:
            try:
                answers[number] = contestant.answer()
                rows[number]["facts"] = contestant.facts
            except OutOfContest as error:
                rows[number]["error"] = str(error)
    first: dict[str, np.ndarray] = {}  # of each array, that of the first who answers it
    for number, answer in answers.items():
        entry, row = contest.entries[number], rows[number]
        low, median, high = np.quantile(times[number], (0.25, 0.5, 0.75))
        row |= {"median": median, "low": low, "high": high, "turns": len(times[number])}
        if contest.per:
            row["count"] = float(answer[contest.per])
        if wrong := _disagreement(answer, first, entry.tolerance or contest.tolerance):
            row["error"] = f"disagrees: {wrong}"
        first = answer | first
    ours = _unit(rows[0])
    for entry, row in zip(contest.entries, rows, strict=True):
        if "error" not in row and ours:
            row["ratio"] = _unit(row) / ours
            if entry.goal:
                row |= {"goal": entry.goal.text, "met": bool(entry.goal.is_met(row["ratio"]))}
    facts = [
        {"name": name, "value": value}
        | ({"goal": goal.text, "met": goal.is_met(value)} if (goal := contest.goals.get(name)) else {})
        for name, value in rows[0].get("facts", {}).items()
    ]
    return {
        "stage": contest.stage,
        "title": contest.title,
        "per": contest.per,
        "better": contest.better,
        "note": contest.note,
        "rows": rows,
        "facts": facts,
    }


def _unit(row: dict[str, Any]) -> float | None:
    """Seconds, of one iteration where these are counted."""
    return row["median"] / row.get("count", 1.0) if "median" in row and "error" not in row else None


def _disagreement(answer: dict[str, np.ndarray], ours: dict[str, np.ndarray], tolerance: float) -> str:
    """The first array that both have and that differs; what only counts work is not compared."""
    for name in sorted((answer.keys() & ours.keys()) - {"iterations"}):
        one, other = np.asarray(answer[name], np.float64), np.asarray(ours[name], np.float64)
        if one.shape != other.shape:
            return f"{name} has shape {one.shape}, not {other.shape}"
        difference = np.abs(one - other).max() / max(np.abs(other).max(), 1e-30)
        if not difference <= tolerance:
            return f"{name} differs by {difference:.1e} of its largest value, {tolerance:g} allowed"
    return ""
