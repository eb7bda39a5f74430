"""`infer.py` as a user runs it: everything from photographs to maps, overlays, seeds and pages."""

import shutil
import time

from benchmarks import draws
from benchmarks.commands import WORK, command, start_command
from benchmarks.contestant import Ready
from benchmarks.ours.trained import write_run


def infer(pictures: int) -> Ready:
    """On drawn photographs, four scales with mirror images; the first run compiles, which is a fact of its own."""
    out, run, cache = (WORK / f"{kind}_{pictures}" for kind in ("ours", "run", "compiled"))
    shutil.rmtree(cache, ignore_errors=True)
    write_run(run, draws.photographs(pictures))
    words = ["infer.py", "--ckpt", str(run), "--out", str(out), "--refine", "none"]
    ready = command(words, out, cache=cache)

    def warm_up():
        start = time.perf_counter()
        start_command(words, out, cache=cache)()
        ready.facts["first run, which compiles, s"] = time.perf_counter() - start

    return ready._replace(warm_up=warm_up)
