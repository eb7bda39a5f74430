"""One part of the benchmark, in a process of its own: a row for each of its programs; one that fails has a row, too.

    python -m benchmarks.accelerator.part MODULE:FUNCTION [--short]

FUNCTION(sizes) yields (name, work), and work() is the row. One JSON object a line on stdout: {"begins": name}, then
{"row": {...}}; what libraries print there is dropped. It imports neither JAX nor torch: the function does.
"""

import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.accelerator.sizes import FULL, SHORT, Sizes

Row = dict[str, Any]
Programs = Iterator[tuple[str, Callable[[], Row]]]

_TURNS, _MOST_A_TURN = 9, 100
_LONG = 20  # times the least time: what would take longer has three turns


def main() -> None:
    """Run the part."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for line in said(sys.argv[1], SHORT if "--short" in sys.argv else FULL):
        print(json.dumps(line), file=pipe, flush=True)


def said(start: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The lines of a part, as they come."""
    module, _, function = start.partition(":")
    for name, work in getattr(importlib.import_module(module), function)(sizes):
        yield {"begins": name}
        try:
            row = work()
        except Exception as error:  # whatever it is, the rest goes on
            traceback.print_exc()
            row = {"error": _first_line(error)}
        yield {"row": {"name": name, **row}}


def timed(run: Callable[[int], Any], *, least: float) -> Row:
    """Median and quartiles of the seconds that something takes, after a warm-up.

    Args:
        run: does the work so many times, to the end.
        least: seconds of all turns together; short work is done several times a turn.
    """

    def seconds(times: int) -> float:
        start = time.perf_counter()
        run(times)
        return (time.perf_counter() - start) / times

    run(1)  # the first one may compile
    once = seconds(1)
    times = int(min(max(least / _TURNS / once, 1), _MOST_A_TURN))
    turns = [seconds(times) for _ in range(_TURNS if once * _TURNS < _LONG * least else 3)]
    low, median, high = statistics.quantiles(turns, n=4)
    return {"seconds": median, "low": low, "high": high, "turns": len(turns)}


def _first_line(error: Exception) -> str:
    """What is before the C++ of an error, not too much of it."""
    line = next(iter(str(error).split("\n")), "").strip()
    return f"{type(error).__name__}: {line}"[:200]


if __name__ == "__main__":
    main()
