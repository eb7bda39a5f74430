"""What a number was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contest import PEERS_PYTHON, THREADS

OURS = ("jax", "jaxlib", "flax", "numpy")
PEERS = ("torch", "faiss-cpu", "scikit-learn", "kmeans_pytorch", "ott-jax")
_VERSIONS = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"


def describe() -> dict[str, Any]:
    """CPU, cores, memory, Python and the packages that were compared."""
    versions = {name: version(name) for name in OURS}
    if PEERS_PYTHON.exists():
        words = [str(PEERS_PYTHON), "-c", _VERSIONS, *PEERS]
        found = subprocess.run(words, capture_output=True, text=True).stdout.split()
        versions |= dict(zip(PEERS, found, strict=False))
    return {
        "cpu": _cpu(),
        "cores": THREADS,
        "memory, GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": versions,
    }


def is_same_kind(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether times of the two can be compared."""
    return all(one.get(name) == other.get(name) for name in ("cpu", "cores"))


def _cpu() -> str:
    """Name and model number, as Linux tells them (names of virtual machines say little); else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        told = [line.partition(":") for line in info.read_text().splitlines()]
        first = {name.strip(): value.strip() for name, _, value in reversed(told)}
        if "model name" in first:
            return f"{first['model name']}, model {first.get('model')}-{first.get('stepping')}"
    return platform.processor() or platform.machine()
