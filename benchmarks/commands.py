"""Whole commands as contestants: started, waited for, their time and memory measured."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.contestant import Ready

WORK = Path(__file__).parents[1] / ".bench"


def command(words: list[str], out: Path, *, warm_up: Callable[[], None], cache: Path | None = None) -> Ready:
    """`python WORDS`, which writes OUT/maps/*.npz; OUT is removed before. The answer is the first pictures' maps."""
    facts = {}

    def run():
        start_command(words, out, cache=cache)()
        facts["peak memory, MB"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024

    return Ready(run, lambda _: first_maps(out), facts, warm_up=warm_up)


def start_command(words: list[str], out: Path, *, cache: Path | None = None) -> Callable[[], None]:
    """Start it; the result waits for its end, and raises what it said when it failed."""
    shutil.rmtree(out, ignore_errors=True)
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {})
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)

    def wait():
        if process.wait():
            raise SystemExit(f"{' '.join(words[:3])} ended with exit code {process.returncode}")

    return wait


def seconds_until_first_map(words: list[str], out: Path, *, cache: Path) -> float:
    """From the start of the command until there is a heat map."""
    start = time.perf_counter()
    wait = start_command(words, out, cache=cache)
    seconds = None
    while seconds is None and time.perf_counter() - start < 300:
        if any((out / "maps").glob("*.npz")):
            seconds = time.perf_counter() - start
        time.sleep(0.01)
    wait()
    return seconds


def first_maps(out: Path, count: int = 3) -> dict[str, np.ndarray]:
    """The maps of the first pictures, float32 (values,) of each method."""
    maps = {"cam": [], "lpcam_f": [], "lpcam": []}
    for file in sorted((out / "maps").glob("*.npz"))[:count]:
        with np.load(file) as arrays:
            for name, values in maps.items():
                values.append(arrays[name].astype(np.float32).ravel())
    return {name: np.concatenate(values) for name, values in maps.items()}
