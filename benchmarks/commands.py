"""Whole commands as contestants: started, waited for, their time and memory measured."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.contestant import Ready

WORK = Path(__file__).parents[1] / ".bench"
_PATIENCE = 300  # seconds


def command(words: list[str], out: Path, *, cache: Path | None = None) -> Ready:
    """`python WORDS`, which writes OUT/maps/*.npz; OUT is removed before. The answer is the first pictures' maps."""
    facts = {}

    def run():
        facts["peak memory, MiB"] = start_command(words, out, cache=cache)()

    return Ready(run, lambda _: first_maps(out), facts)


def start_command(words: list[str], out: Path, *, cache: Path | None = None) -> Callable[[], float]:
    """Start `python WORDS`; `cache` is where ours keeps what it compiles.

    Returns:
        A function that waits for its end and gives its peak memory in MB. When the command fails this process ends too,
        so that the command's last line on stderr is the last one.
    """
    shutil.rmtree(out, ignore_errors=True)
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)

    def wait():
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(process.returncode)
        return usage.ru_maxrss / 1024

    return wait


def until_first_map(words: list[str], out: Path, *, cache: Path) -> tuple[float, float]:
    """Seconds from the start of the command until there is a heat map, and its peak memory in MB."""
    start = time.perf_counter()
    wait = start_command(words, out, cache=cache)
    seconds = math.nan
    while math.isnan(seconds) and time.perf_counter() - start < _PATIENCE:
        if any((out / "maps").glob("*.npz")):
            seconds = time.perf_counter() - start
        time.sleep(0.01)
    return seconds, wait()


def first_maps(out: Path, count: int = 3) -> dict[str, np.ndarray]:
    """The maps of the first pictures, float32 (values,) of each method."""
    maps = {"cam": [], "lpcam_f": [], "lpcam": []}
    for file in sorted((out / "maps").glob("*.npz"))[:count]:
        with np.load(file) as arrays:
            for name, values in maps.items():
                values.append(arrays[name].astype(np.float32).ravel())
    return {name: np.concatenate(values) for name, values in maps.items()}
