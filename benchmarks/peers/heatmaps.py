"""The torch script beside `infer.py`, as a whole command."""

from benchmarks import draws
from benchmarks.commands import WORK, command, start_command
from benchmarks.contestant import Ready


def infer(pictures: int, compiled: bool) -> Ready:
    """Eager, or compiled for any size of picture; torch keeps what it compiled in its own cache."""
    draws.photographs(pictures)
    out = WORK / f"torch_{pictures}{'_compiled' * compiled}"
    words = ["-m", "benchmarks.peers.infer_torch", "--pictures", str(pictures), "--out", str(out)]
    words += ["--compile"] * compiled
    shown = len(draws.SIZES) if compiled else 1  # all sizes are compiled
    return command(words, out)._replace(warm_up=lambda: start_command([*words, "--limit", str(shown)], out)())
