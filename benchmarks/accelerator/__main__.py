"""A GPU or a TPU: first whether it computes what the CPU computes, then how fast, beside torch where it is installed.

    python -m benchmarks.accelerator                                  # ten minutes at most
    python -m benchmarks.accelerator --minutes 30                     # so that everything has its turn
    python -m benchmarks.accelerator --only parity classifier
    python -m benchmarks.accelerator --short                          # small, on whatever there is: a minute on a CPU

Each part is a process of its own, one after the other; all of them measure the first device. After every row,
results.json and results.md in --out hold what there is so far. A row that fails says why, and the rest goes on. Ends
with exit code 1 when the device and the CPU disagree.
"""

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import machine
from benchmarks.__main__ import progress
from benchmarks.accelerator import report
from benchmarks.accelerator.part import Row
from benchmarks.chips import CHIPS, KINDS
from benchmarks.contest import PEERS_PYTHON, REPOSITORY

Part = Literal["device", "parity", "classifier", "method", "inference", "segmentation", "feed", "torch", "largest"]
# In the order of what one wants to know first: time may run out.
STARTS = {
    "device": "benchmarks.accelerator.method:peaks",
    "parity": "benchmarks.accelerator.parity:programs",
    "classifier": "benchmarks.accelerator.training:classifier",
    "method": "benchmarks.accelerator.method:programs",
    "inference": "benchmarks.accelerator.inference:programs",
    "segmentation": "benchmarks.accelerator.training:segmentation",
    "feed": "benchmarks.accelerator.feed:programs",
    "torch": "benchmarks.peers.accelerator:programs",
    "largest": "benchmarks.accelerator.training:largest",
}
_SEES = "import torch, sys; sys.exit(not (sys.argv[1] == 'cpu' or torch.cuda.is_available()))"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    only: tuple[Part, ...] = ()
    """these parts, and the device; empty: all"""
    short: bool = False
    """thin networks and small pictures: whether everything runs; its times say nothing"""
    minutes: float = 10
    """after which no row is begun, and the one at work is stopped"""
    out: Path = REPOSITORY / "runs" / "accelerator"
    """folder for results.json and results.md"""


def main() -> int:
    """Measure, print, write; the exit code."""
    arguments = tyro.cli(Arguments, description=__doc__)
    end = time.monotonic() + 60 * arguments.minutes
    results = {
        "command": " ".join(["python -m benchmarks.accelerator", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "rows": [],
    }
    for part in STARTS:
        if arguments.only and part not in ("device", *arguments.only):
            continue
        for row in rows_of(part, results.get("device", {}), short=arguments.short, end=end):
            learn_device(results, row)
            row = report.with_roofline(row, results.get("peaks"))
            results["rows"].append({"part": part, **row})
            progress(f"{part}: {row['name']}: {report.line(row)}")
            write(arguments.out, results)
    print(report.markdown(results))
    print(f"{arguments.out}/results.json and results.md hold this.")
    disagreeing = [row["name"] for row in results["rows"] if row.get("agrees") is False]
    for name in disagreeing:
        print(f"error: {name}: the device and the CPU disagree", file=sys.stderr)
    return 1 if disagreeing else 0


def rows_of(part: str, device: dict[str, Any], *, short: bool, end: float) -> Iterator[Row]:
    """The rows of a part as they come; one that says why there are no more.

    Args:
        part: its name.
        device: what the first part told of the device.
        short: see `Arguments`.
        end: on the monotonic clock.
    """
    if time.monotonic() > end:
        yield {"name": "all", "error": "not begun: the time was over"}
        return
    python = python_with_torch(device) if part == "torch" else sys.executable
    if python is None:
        yield {"name": "all", "error": f"torch is not installed, or does not see the {device.get('kind', 'device')}"}
        return
    words = [python, "-m", "benchmarks.accelerator.part", STARTS[part], *["--short"] * short]
    process = subprocess.Popen(words, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True)
    # A timer, because a wait for the next line cannot end by itself.
    with process, alarm(process, end) as stopped:
        name = "all"
        for line in process.stdout:
            told = json.loads(line)
            if "row" in told:
                yield told["row"]
            else:
                name = told["begins"]
                progress(f"{part}: {name}")
    if stopped.is_set():
        yield {"name": name, "error": "stopped: the time was over"}
    elif process.returncode:
        yield {"name": name, "error": f"its process ended with code {process.returncode}; what it said is above"}


@contextmanager
def alarm(process: subprocess.Popen, end: float) -> Iterator[threading.Event]:
    """Kill the process at `end`, on the monotonic clock; the event tells whether that was necessary."""
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.kill()

    timer = threading.Timer(max(end - time.monotonic(), 0), stop)
    timer.start()
    try:
        yield stopped
    finally:
        timer.cancel()


def environment() -> dict[str, str]:
    """Of a part: where JAX_PLATFORMS names devices, the CPU is opened, too, to compare with."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    names = {"JAX_PLATFORMS": f"{platforms},cpu"} if platforms and "cpu" not in platforms.split(",") else {}
    return os.environ | names


def python_with_torch(device: dict[str, Any]) -> str | None:
    """A Python here whose torch sees the device: ours, or that of the peers; None: neither."""
    for python in (sys.executable, str(PEERS_PYTHON)):
        if device.get("platform") in ("cpu", "gpu", "cuda") and Path(python).exists():
            words = [python, "-c", _SEES, device["platform"]]
            if subprocess.run(words, capture_output=True).returncode == 0:
                return python
    return None


def learn_device(results: dict[str, Any], row: Row) -> None:
    """Keep what a row tells of the device: what it is, and its peaks, measured if its maker's are not known."""
    if "device" in row:
        results["device"] = row["device"]
        if chip := KINDS.get(row["device"]["kind"]):
            results |= {"peaks": CHIPS[chip], "peaks_from": f"of the {chip} by its maker"}
    if "peaks" in row and "peaks" not in results:
        results |= {"peaks": row["peaks"], "peaks_from": "as measured here"}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Both files, as they are so far."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(report.markdown(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
