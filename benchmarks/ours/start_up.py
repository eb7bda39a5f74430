"""The embedded data set's commands: how long until something is seen, and how much memory."""

import shutil

from benchmarks.commands import WORK, start_command, until_first_map
from benchmarks.contestant import Ready

SCENES = "48"


def first_map(cold: bool) -> Ready:
    """From the start of infer.py until the first heat map is on the disk.

    Cold: without compiled programs, of the run that was trained for the other contestant.
    """
    run, out, cache = (WORK / "start_up" / part for part in ("run", "maps", "cold" if cold else "warm"))
    facts = {}
    if not cold:
        words = ["configs/shapes.py", "--workdir", str(run), "--data.scenes", SCENES, "--training.epochs", "1"]
        facts["peak memory of train.py, MiB"] = start_command(["train.py", *words], run, cache=cache)()
    words = ["infer.py", "--ckpt", str(run), "--out", str(out), "--refine", "none"]

    def run_once():
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        seconds, facts["peak memory, MiB"] = until_first_map(words, out, cache=cache)
        return seconds

    warm_up = (lambda: None) if cold else None
    return Ready(run_once, facts=facts, clock=lambda seconds: seconds, warm_up=warm_up)
