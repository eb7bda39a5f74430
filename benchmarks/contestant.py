"""One side of a contest, in a process of its own: set up once, then run when told.

    python -m benchmarks.contestant MODULE:FUNCTION '{"option": 1}'

FUNCTION(**options) returns `Ready`. One JSON object a line: on stdin {"run": n} or {"answer": FILE}, on stdout what
came of it. Whatever the libraries print goes to stderr.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_LONG = 3  # seconds: what takes longer warms up once


class Ready(NamedTuple):
    """A contestant after its set-up.

    run:     does the work once, to the end
    answer:  what the last run gave -> the arrays or numbers that are compared
    facts:   what is known beside the time, such as bytes of memory; may grow with every run
    clock:   what the last run gave -> its seconds; None: the time that `run` took
    warm_up: done once instead of a first run
    """

    run: Callable[[], Any]
    answer: Callable[[Any], dict[str, Any]] = lambda _: {}
    facts: dict[str, Any] = {}  # noqa: RUF012 (replaced, never filled)
    clock: Callable[[Any], float] | None = None
    warm_up: Callable[[], None] | None = None


def main() -> None:
    """Set up, then serve."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, _, function = sys.argv[1].partition(":")
    ready = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))

    def run(times):
        start = time.perf_counter()
        for _ in range(times):
            result = ready.run()
        seconds = (time.perf_counter() - start) / times
        return result, seconds if ready.clock is None else ready.clock(result)

    def say(**values):
        print(json.dumps(values), file=pipe, flush=True)

    result = None
    if ready.warm_up:
        ready.warm_up()
        say(seconds=None, facts=ready.facts)
    else:
        result, seconds = run(1)
        if seconds < _LONG:  # the first one compiled
            result, seconds = run(1)
        say(seconds=seconds, facts=ready.facts)
    for line in sys.stdin:
        told = json.loads(line)
        if "run" in told:
            result, seconds = run(told["run"])
            say(seconds=seconds, facts=ready.facts)
        else:
            np.savez(told["answer"], **ready.answer(result))
            say()


if __name__ == "__main__":
    main()
