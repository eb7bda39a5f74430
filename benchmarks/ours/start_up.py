"""The embedded data set's commands: how long until something is seen, and how much memory."""

import resource
import shutil

from benchmarks.commands import WORK, seconds_until_first_map, start_command
from benchmarks.contestant import Ready

SCENES = 48


def first_map(cold: bool) -> Ready:
    """From the start of infer.py until the first heat map is on the disk; cold: without compiled programs."""
    run, out = WORK / f"start_up_run_{cold}", WORK / f"start_up_maps_{cold}"
    cache = WORK / f"start_up_compiled_{cold}"
    shutil.rmtree(cache, ignore_errors=True)
    words = ["configs/shapes.py", "--workdir", str(run), "--data.scenes", str(SCENES), "--training.epochs", "1"]
    start_command(["train.py", *words], run, cache=cache)()
    facts = {"peak memory of train.py, MB": _peak()}
    words = ["infer.py", "--ckpt", str(run), "--out", str(out)]

    def run_once():
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        seconds = seconds_until_first_map(words, out, cache=cache)
        facts["peak memory of train.py or infer.py, MB"] = _peak()
        return seconds

    return Ready(run_once, facts=facts, clock=lambda seconds: seconds, warm_up=None if not cold else lambda: None)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
