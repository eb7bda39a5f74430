"""Which steps of a chain are finished, and which have to be done again: chain.json.

A step is finished for good as long as what it was made from is the same: its command, its recipe, the pictures and
labels, and the results of the steps it reads. The result of a training is what its last checkpoint holds, so a training
that comes to the same parameters makes nothing after it out of date.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ..config.recipes import trained_config
from ..machine.errors import UserError
from ..machine.files import write_json
from ..training.checksums import NAME as CHECKSUMS
from ..training.run import Run
from .dataset import dataset_digest
from .plan import Step

# Flags that change how much is done, not what.
_AMOUNT = ("limit", "pages")


class Verdict(NamedTuple):
    """What is to be done about a step.

    Attributes:
        finished: nothing.
        again: why it is done again; "": it never was.
        aside: whether what its folder holds cannot be continued.
    """

    finished: bool
    again: str = ""
    aside: bool = False


class Progress:
    """The progress of a chain.

    Args:
        workdir: the chain's folder.

    Raises:
        UserError: chain.json cannot be read.
    """

    def __init__(self, workdir: Path):
        self._workdir, self._file = workdir, workdir / "chain.json"
        try:
            self._steps: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))["steps"]
        except (FileNotFoundError, NotADirectoryError):
            self._steps = {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._file} cannot be read ({error}); choose another --workdir or delete it.") from None

    def verdicts(self, steps: Sequence[Step]) -> dict[str, Verdict]:
        """What is to be done about each step, by its key."""
        found: dict[str, Verdict] = {}
        for step in steps:
            found[step.key] = self._verdict(step, steps, found)
        return found

    def begin(self, step: Step, steps: Sequence[Step]) -> None:
        """Note that a step begins."""
        seconds = self._steps.get(step.key, {}).get("seconds", 0.0)
        self._steps[step.key] = {"from": self._made_from(step, steps), "finished": False, "seconds": seconds}
        self._write()

    def end(self, step: Step, *, finished: bool, seconds: float) -> None:
        """Note that it ended, and how long this took."""
        noted = self._steps[step.key]
        noted["finished"], noted["seconds"] = finished, round(noted["seconds"] + seconds, 1)
        self._write()

    def time(self, step: Step) -> timedelta | None:
        """How long a step took so far; None: it has not begun."""
        noted = self._steps.get(step.key)
        return None if noted is None else timedelta(seconds=round(noted["seconds"]))

    def set_aside(self, step: Step) -> Path | None:
        """Move what a step has made out of the way; where to, or None if there is nothing."""
        self._steps.pop(step.key, None)
        self._write()
        if not step.out.exists():
            return None
        number = 1
        while (aside := self._workdir / "replaced" / f"{step.stage}_{step.action}_{number}").exists():
            number += 1
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(step.out, aside)
        except OSError as error:
            raise UserError(f"cannot move {step.out} to {aside}: {error.strerror or error}.") from None
        return aside

    def _verdict(self, step: Step, steps: Sequence[Step], earlier: Mapping[str, Verdict]) -> Verdict:
        again = [other.key for other in steps if other.out in step.takes and not earlier[other.key].finished]
        noted = self._steps.get(step.key)
        if noted is None:
            return Verdict(False)
        before, now = noted["from"], self._made_from(step, steps)
        if again:  # of a step that is done first, the result is not known yet
            redone = [key for key in again if earlier[key].again]
            if not any(earlier[key].aside for key in redone):
                return Verdict(False, f"unless {', '.join(redone)} comes to the same" if redone else "")
            return Verdict(False, f"after {', '.join(redone)}", step.action != "score")
        if before == now:
            return Verdict(noted["finished"])
        if before["takes"] != now["takes"]:
            changed = [key for key in now["takes"] if before["takes"].get(key) != now["takes"][key]]
            return Verdict(False, f"{', '.join(changed)} is another", step.action != "score")
        if before["data"] != now["data"]:
            return Verdict(False, "the pictures or labels have changed", step.action == "train")
        what = _changed_words(before["words"], now["words"])
        return Verdict(False, ", ".join(what) or "its recipe has changed", self._starts_over(step, what))

    def _starts_over(self, step: Step, changed: Sequence[str]) -> bool:
        """Whether other settings need another folder."""
        if step.action == "train":
            return _other_training(step)
        amounts = tuple(f"--{name}" for name in _AMOUNT)
        return step.action == "apply" and not (changed and all(what.startswith(amounts) for what in changed))

    def _made_from(self, step: Step, steps: Sequence[Step]) -> dict[str, Any]:
        """All that a step's result depends on, as plain JSON values."""
        home = str(self._workdir)
        words = [" ".join(flag.words).replace(home, ".") for flag in step.flags() if flag.name != "data.root"]
        takes = {other.key: self._result(other) for other in steps if other.out in step.takes}
        data = dataset_digest(step.data, self._workdir)
        return {"words": words, "recipe": step.recipe, "takes": takes, "data": data}

    def _result(self, step: Step) -> str:
        """Digest of what a step made; "": nothing yet."""
        noted = self._steps.get(step.key)
        if noted is None or not noted["finished"]:
            return ""
        if step.action == "train":
            return _trained(step.out)
        return hashlib.blake2b(json.dumps(noted["from"], sort_keys=True).encode(), digest_size=8).hexdigest()

    def _write(self) -> None:
        write_json(self._file, {"steps": self._steps})


def _changed_words(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The flags that differ, as they are now, or as they were with a minus."""
    return [word for word in now if word not in before] + [f"no {word}" for word in before if word not in now]


def _other_training(step: Step) -> bool:
    """Whether train.py would refuse to continue the run."""
    try:
        run = Run.open(step.out)
    except UserError:
        return step.out.exists()
    config = trained_config(step.words[1:])
    return bool(run.steps()) and bool(Run(run.directory, config, run.class_names).differences(run))


def _trained(directory: Path) -> str:
    """Digest of the parameters and prototypes of a run; "": there are none."""
    try:
        run = Run.open(directory)
    except UserError:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for file in (*(run.checkpoints / str(step) / CHECKSUMS for step in run.steps()[-1:]), directory / "prototypes.npz"):
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return digest.hexdigest()
