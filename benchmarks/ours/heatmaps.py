"""`infer.py` as a user runs it: everything from photographs to maps, overlays, seeds and pages."""

from pathlib import Path

from benchmarks import draws
from benchmarks.commands import WORK, command, start_command
from benchmarks.contestant import Ready
from benchmarks.ours.trained import write_run


def infer(pictures: int, width: int) -> Ready:
    """On drawn photographs, four scales with mirror images; what it compiles is kept in .bench/ for the next time."""
    out, run, cache = (WORK / f"{kind}_{width}_{pictures}" for kind in ("ours", "run", "compiled"))
    write_run(run, draws.photographs(pictures), width)
    words = ["infer.py", "--ckpt", str(run), "--out", str(out), "--refine", "none"]
    compiled_for = cache / "done"

    def warm_up():
        if not compiled_for.exists() or compiled_for.stat().st_mtime < _last_change():
            start_command(words, out, cache=cache)()
            compiled_for.touch()

    return command(words, out, warm_up=warm_up, cache=cache)


def _last_change() -> float:
    """When a line of the package was last changed: what was compiled before may be compiled again."""
    return max(file.stat().st_mtime for file in Path("lpcam_jax").rglob("*.py"))
