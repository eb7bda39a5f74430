"""A command of which the progress bars are watched: what each counted, how fast, and how much memory it all took."""

import codecs
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

# A line of tqdm: description, share, bar, done and total, times, and the rate with its unit.
_BAR = re.compile(
    r"(?P<what>[^\r\n|]+?): +\d+%\|.*?\| *(?P<done>\d+)/(?P<total>\d+) \["
    r".*, *[\d.?]+(?:s/(?P<slow>\w+)|(?P<fast>\w+)/s)"
)


class Bar(NamedTuple):
    """A progress bar that has ended.

    Attributes:
        what: its description.
        of: what it counts, such as img.
        total: how many.
        seconds: of one of these.
    """

    what: str
    of: str
    total: int
    seconds: float


class Watched(NamedTuple):
    """A command that has ended.

    Attributes:
        code: its exit code.
        seconds: from start to end.
        memory: the most bytes of the machine's memory that it had at once.
        bars: its progress bars.
    """

    code: int
    seconds: float
    memory: int
    bars: tuple[Bar, ...]


def watch(command: Sequence[str], **options: Any) -> Watched:
    """Run a command, show what it says on stderr, and watch its progress bars.

    Args:
        command: as for `subprocess.Popen`.
        options: more of its arguments.
    """
    began, seen, decoder = time.monotonic(), ProgressBars(), codecs.getincrementaldecoder("utf-8")("replace")
    environment = {**os.environ, "TQDM_MININTERVAL": "0"}  # so that all that is done is seen when it is
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **options) as process:
        try:
            while said := os.read(process.stderr.fileno(), 1 << 16):
                text = decoder.decode(said)
                sys.stderr.write(text)
                sys.stderr.flush()
                seen.read(text, time.monotonic())
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # such as Ctrl-C, or a reader of stderr that has seen enough
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Watched(process.returncode, time.monotonic() - began, memory, seen.ended())


class ProgressBars:
    """The progress bars in what a command says, told as it arrives."""

    def __init__(self) -> None:
        self._rest = ""
        self._seen: list[tuple[tuple[str, str, int], list[tuple[float, int]]]] = []  # which bar; time and done
        self._times: dict[tuple[str, str, int], list[tuple[float, int]]] = {}  # of the last bar that looks so

    def read(self, text: str, now: float) -> None:
        """Note what arrives at this time."""
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + text)
        for line in (*lines, self._rest):
            if found := _BAR.match(line):
                bar = found["what"].strip(), found["slow"] or found["fast"], int(found["total"])
                done = int(found["done"])
                times = self._times.get(bar)
                if times is None or done < times[-1][1]:
                    times = self._times[bar] = []
                    self._seen.append((bar, times))
                if not times or done > times[-1][1]:  # what is printed once more, as at its end, says nothing
                    times.append((now, done))

    def ended(self) -> tuple[Bar, ...]:
        """Those that have counted anything."""
        spans = [(times[0][0], times[-1][0]) for _, times in self._seen]
        rates = (_rate(times, spans[:n] + spans[n + 1 :]) for n, (_, times) in enumerate(self._seen))
        return tuple(Bar(*bar, rate) for (bar, _), rate in zip(self._seen, rates, strict=True) if rate is not None)


def _rate(times: Sequence[tuple[float, int]], spans: Sequence[tuple[float, float]]) -> float | None:
    """Seconds of one thing, from (time, done) of a bar and the spans of the others; None: nothing was done."""
    begun = [(at, done) for at, done in times if done]
    if not begun:
        return None
    (first, before), (last, after) = begun[0], begun[-1]
    if after == before:
        first, before = times[0]
    within = sum(end - start for start, end in spans if first <= start and end <= last)
    return max(last - first - within, 0) / max(after - before, 1)
