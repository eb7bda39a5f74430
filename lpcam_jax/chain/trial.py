"""How long a chain will take, and how much memory: its steps are tried on a few pictures, and what is seen is scaled.

A command shows its work on progress bars, each of which counts something: pictures, the pictures of all training steps,
classes. What the bars of a step say, and when, gives the time of one picture; the rest of its time is that of starting
and compiling, and stays. So a step that took T seconds, with bars of n_i things at r_i seconds each, is taken to need

    T - sum_i r_i n_i + sum_i r_i N_i

where N_i is what a bar will count to in the whole. r_i is measured from a bar's first update to its last, because what
comes before the first is compiling; the time of another bar in between, as that of a validation, is the other's.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from ..config.recipes import trained_config, value_of_flag
from ..config.registry import system_of
from ..data.sources import seed_source, training_sources
from ..machine.files import write_json
from .flags import Flag, group
from .plan import Step
from .watched import Bar, Watched

PICTURES = 16
STEPS = 5

_FILE = "trial.json"


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
    """The flags that make a trial of a chain with these steps: few pictures, few steps of training.

    Raises:
        UserError: the flags of a step cannot be parsed.
    """
    words = ["--pages", "none"]
    for step in steps:
        if step.action in ("train", "sweep"):
            limit = _limit(step)
            words += [f"--{step.stage}.limit", str(PICTURES if limit is None else min(limit, PICTURES))]
        if step.action == "train":
            training = trained_config(step.words[1:]).training
            few = str(max(STEPS, PICTURES // training.batch_size + 1))  # so that they take more pictures than there are
            amount = {"steps": few} if hasattr(training, "steps") else {"epochs": "1", "least-steps": few}
            words += [word for name, value in amount.items() for word in (f"--{step.stage}.training.{name}", value)]
    return group(words)


# What the bars of training are about, by their names.
_BARS = {"validation": "validated", "labels": "learned", "pooled features": "learned", "refined seeds": "taught"}


class _Amounts(NamedTuple):
    """How much a stage has to do.

    Attributes:
        trained: pictures, or pairs, of all its training steps.
        learned: pictures that it learns from.
        validated: pictures of all its validations.
        mapped: pictures that its network is applied to.
        taught: of these, those whose refined seeds teach LPCAM-T.
    """

    trained: int
    learned: int
    validated: int
    mapped: int
    taught: int


def estimates(watched: Mapping[str, Watched], tried: Sequence[Step], steps: Sequence[Step]) -> dict[str, Estimate]:
    """What each step of the whole chain is taken to need, by its key.

    Args:
        watched: the trials, by the key of the step.
        tried: the steps of the trial.
        steps: of the whole chain.

    Raises:
        UserError: the data set cannot be used.
    """
    found = {}
    for few, step in zip(tried, steps, strict=True):
        one, few_amounts, amounts = watched[step.key], _amounts(few, tried), _amounts(step, steps)
        rest = one.seconds - sum(bar.seconds * bar.total for bar in one.bars)
        scaled = sum(bar.seconds * bar.total * _times_more(bar, step, few_amounts, amounts) for bar in one.bars)
        found[step.key] = Estimate(max(rest, 0) + scaled, one.memory)
    return found


def _times_more(bar: Bar, step: Step, few: _Amounts, whole: _Amounts) -> float:
    """How many times more a bar of a step counts in the whole."""
    if bar.of not in ("img", "pair"):
        return 1
    of = "mapped"
    if step.action == "train":
        of = "trained" if bar.total == few.trained else _BARS.get(bar.what, of)
    return getattr(whole, of) / max(getattr(few, of), 1)


def _amounts(step: Step, steps: Sequence[Step]) -> _Amounts:
    """How much the stage of a step has to do; steps: of its chain."""
    from ..training.loop import steps_of

    swept = step.action == "sweep"
    trains = next(
        one for one in steps if one.action == "train" and (one.out in step.takes if swept else one.stage == step.stage)
    )
    config = trained_config(trains.words[1:])
    data = dataclasses.replace(config.data, masks="")  # which are not there yet
    if split := value_of_flag("--split", step.words):
        data = dataclasses.replace(data, seeds=split)
    limit = _limit(step)
    config = dataclasses.replace(config, data=data, limit=config.limit if limit is None else limit)
    training = config.training
    learned, held_out = map(len, training_sources(config, masks=False))
    units = -(-learned // system_of(config).pictures_of_one)
    number = training.steps if hasattr(training, "steps") else steps_of(training, units)
    every = training.validate_every if hasattr(training, "validate_every") else max(number // training.epochs, 1)
    mapped = len(seed_source(config))
    taught = min(getattr(getattr(config, "prototypes", None), "taught", None) or 0, mapped)
    return _Amounts(number * training.batch_size, learned, held_out * -(-number // every), mapped, taught)


def _limit(step: Step) -> int | None:
    """The --limit of a step; None: it has none."""
    value = value_of_flag("--limit", step.words)
    return None if value is None or value.lower() == "none" else int(value)


def save_estimates(workdir: Path, found: Mapping[str, Estimate], steps: Sequence[Step]) -> None:
    """Keep the estimates of these steps with a chain.

    Raises:
        UserError: the folder cannot be written.
    """
    values = {step.key: {**found[step.key]._asdict(), "command": _said(step, workdir)} for step in steps}
    write_json(workdir / _FILE, values)


def saved_estimates(workdir: Path, steps: Sequence[Step]) -> dict[str, Estimate]:
    """The estimates for these steps of a chain; none without a trial, or for a step with other settings than then."""
    try:
        values = json.loads((workdir / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {}
    for step in steps:
        with suppress(KeyError, TypeError, ValueError, OverflowError):  # it is another's, or damaged
            value = values[step.key]
            if value["command"] == _said(step, workdir):
                seconds, memory = float(value["seconds"]), int(value["memory"])
                if 0 <= seconds < math.inf:
                    found[step.key] = Estimate(seconds, memory)
    return found


def _said(step: Step, workdir: Path) -> str:
    """The command of a step, which is the same in a folder that was moved."""
    return step.command().replace(str(workdir), ".")
