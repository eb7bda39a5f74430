"""How long a chain will take, and how much memory: its steps are tried on a few pictures, and what is seen is scaled.

A command shows its work on progress bars, each of which counts something: pictures, the pictures of all training steps,
classes. What the bars of a step say, and when, gives the time of one picture; the rest of its time is that of starting
and compiling, and stays. So a step that took T seconds, with bars of n_i things at r_i seconds each, is taken to need

    T - sum_i r_i n_i + sum_i r_i N_i

where N_i is what a bar will count to in the whole. r_i is measured from a bar's first update to its last, because what
comes before the first is compiling.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ..config.recipes import parse_with_recipe, value_of_flag
from ..data.sources import seed_source, training_sources
from ..machine.files import write_json
from .flags import Flag, group
from .plan import Step

PICTURES = 16
STEPS = 5

_FILE = "trial.json"
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


class Estimate(NamedTuple):
    """What a step of the whole is taken to need.

    Attributes:
        seconds: of time.
        memory: bytes of the machine's memory.
    """

    seconds: float
    memory: int

    def __str__(self) -> str:
        return f"about {timedelta(seconds=round(self.seconds))}, {self.memory / 1e9:.1f} GB of memory"


def small(steps: Sequence[Step]) -> list[Flag]:
    """The flags that make a trial of a chain with these steps: few pictures, few steps of training."""
    words = ["--limit", str(PICTURES), "--pages", "none"]
    for step in steps:
        if step.action == "train":
            training = step.config.training
            few = str(max(STEPS, PICTURES // training.batch_size + 1))  # so that they take more pictures than there are
            amount = {"steps": few} if hasattr(training, "steps") else {"epochs": "1", "least-steps": few}
            words += [word for name, value in amount.items() for word in (f"--{step.stage}.training.{name}", value)]
    return group(words)


def watch(command: Sequence[str], **options: Any) -> Watched:
    """Run a command, show what it says on stderr, and watch its progress bars.

    Args:
        command: as for `subprocess.Popen`.
        options: more of its arguments.
    """
    began, seen = time.monotonic(), _Bars()
    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as process:
        while said := os.read(process.stderr.fileno(), 1 << 16):
            text = said.decode(errors="replace")
            sys.stderr.write(text)
            sys.stderr.flush()
            seen.read(text, time.monotonic())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Watched(process.returncode, time.monotonic() - began, memory, seen.ended())


class _Bars:
    """The progress bars in what a command says."""

    def __init__(self) -> None:
        self._rest = ""
        self._seen: list[tuple[tuple[str, str, int], list[tuple[float, int]]]] = []  # which bar; time and done

    def read(self, text: str, now: float) -> None:
        """Note what arrives at this time."""
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + text)
        for line in (*lines, self._rest):
            if found := _BAR.match(line):
                bar = found["what"].strip(), found["slow"] or found["fast"], int(found["total"])
                if not self._seen or self._seen[-1][0] != bar or int(found["done"]) < self._seen[-1][1][-1][1]:
                    self._seen.append((bar, []))
                self._seen[-1][1].append((now, int(found["done"])))

    def ended(self) -> tuple[Bar, ...]:
        """Those that have counted anything."""
        return tuple(Bar(*bar, rate) for bar, times in self._seen if (rate := _rate(times)) is not None)


def _rate(times: Sequence[tuple[float, int]]) -> float | None:
    """Seconds of one thing, from (time, done) of a bar; None: nothing was done."""
    begun = [(at, done) for at, done in times if done]
    if not begun:
        return None
    (first, before), (last, after) = begun[0], begun[-1]
    if after > before:
        return (last - first) / (after - before)
    return (last - times[0][0]) / after


def estimates(watched: Mapping[str, Watched], steps: Sequence[Step]) -> dict[str, Estimate]:
    """What each step of the whole chain is taken to need, by its key.

    Args:
        watched: the trials, by the key of the step.
        steps: of the whole chain.

    Raises:
        UserError: the data set cannot be used.
    """
    found = {}
    for step in steps:
        trains = next(one for one in steps if one.action == "train" and one.out in (*step.takes, step.out))
        one, whole = watched[step.key], _amounts(step, trains)
        rest = one.seconds - sum(bar.seconds * bar.total for bar in one.bars)
        found[step.key] = Estimate(max(rest, 0) + sum(bar.seconds * whole(bar) for bar in one.bars), one.memory)
    return found


def _amounts(step: Step, trains: Step) -> Callable[[Bar], float]:
    """What the bars of a step of the whole count to; trains: the step that trains the network."""
    from ..commands.train import Arguments
    from ..training.loop import steps_of

    config, _ = parse_with_recipe(Arguments, trains.words[1:], command="train", description="")
    data = dataclasses.replace(config.data, masks="")  # which are not there yet
    if split := value_of_flag("--split", step.words):
        data = dataclasses.replace(data, seeds=split)
    config, training = dataclasses.replace(config, data=data), config.training
    learned, seeds = len(training_sources(config)[0]), len(seed_source(config))
    steps = training.steps if hasattr(training, "steps") else steps_of(training, learned)
    validations = max(steps // training.validate_every, 1) if hasattr(training, "validate_every") else 1

    def whole(bar: Bar) -> float:
        if bar.of not in ("img", "pair"):
            return bar.total
        if bar.total > PICTURES:  # those of all steps
            return steps * training.batch_size
        pictures = learned if step.action == "train" and bar.what == "labels" else seeds
        return bar.total * max(pictures / PICTURES, 1) * (validations if bar.what == "validation" else 1)

    return whole


def save_estimates(workdir: Path, found: Mapping[str, Estimate]) -> None:
    """Keep the estimates with a chain.

    Raises:
        UserError: the folder cannot be written.
    """
    write_json(workdir / _FILE, {key: one._asdict() for key, one in found.items()})


def saved_estimates(workdir: Path) -> dict[str, Estimate]:
    """The estimates of a chain; none without a trial."""
    try:
        values = json.loads((workdir / _FILE).read_text(encoding="utf-8"))
        return {key: Estimate(**one) for key, one in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
