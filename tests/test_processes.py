"""Two real processes on this machine do the work of one."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from conftest import HANGS, REPOSITORY, Finished
from filelock import FileLock
from tiny_recipes import TINY

from lpcam_jax.config import registry
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine import processes
from lpcam_jax.machine.devices import mesh
from lpcam_jax.machine.files import write_atomically
from lpcam_jax.machine.locks import NAME, in_use
from lpcam_jax.results.folder import ResultFolder
from lpcam_jax.results.masks import MaskResults
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = pytest.mark.rest

KINDS = registry.kinds()
AS_CALLED = "classifier"  # what train.py trains as users call it; the others are trained in turn
APPLIED = ("classifier", "segmentation")  # heat maps and masks


def together(*words) -> list[Finished]:
    """Run a program as two processes: how they ended, and what they printed, without Gloo's lines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, *map(str, words), "--distributed"]
    common = {**os.environ, "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    options = {"cwd": REPOSITORY, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environments = [{**common, "JAX_PROCESS_ID": str(index)} for index in range(2)]
    both = [subprocess.Popen(command, env=environment, **options) for environment in environments]
    try:
        texts = [process.communicate(timeout=HANGS) for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    return [
        Finished(process.returncode, re.sub(r"\[Gloo\] .*\n", "", out), err)
        for process, (out, err) in zip(both, texts, strict=True)
    ]


BEGINS = "-- begins --\n"
# To start two processes and to join them takes longer than what they compute for a system.
IN_TURN = f"""
import json, sys
from lpcam_jax.commands import infer, train
from lpcam_jax.machine import processes
from lpcam_jax.machine.programs import run_program

def main():
    processes.join()
    processes.join = lambda: None  # once is enough
    for program, *words in json.loads(sys.argv[1]):
        for stream in (sys.stdout, sys.stderr):
            print({BEGINS!r}, end="", file=stream, flush=True)
        {{"train.py": train, "infer.py": infer}}[program].main([*words, "--distributed"])

run_program(main)
"""


class Both(NamedTuple):
    """A folder that two processes wrote, and what they printed."""

    directory: Path
    first: Finished
    second: Finished


@pytest.fixture(scope="session")
def in_turn(shared, tiny_runs) -> dict[str, Both]:
    """What the same two processes made one after the other, for all workers: KIND_run and KIND_results."""
    folder, ended = shared / "by_two", shared / "by_two.json"
    words = {f"{kind}_run": [*tiny_runs.words(kind), "--workdir"] for kind in KINDS if kind != AS_CALLED}
    for kind in APPLIED:
        words[f"{kind}_results"] = ["infer.py", "--ckpt", str(tiny_runs.run(kind).directory), "--out"]
    with FileLock(shared / "by_two.lock"):
        if not ended.exists():  # nor have they failed
            lines = [[*line, str(folder / name)] for name, line in words.items()]
            write_atomically(ended, json.dumps(together("-c", IN_TURN, json.dumps(lines))).encode())
    first, second = (Finished(*one) for one in json.loads(ended.read_text(encoding="utf-8")))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    said = zip(*(text.split(BEGINS)[1:] for text in (first.out, first.err)), strict=True)
    return {name: Both(folder / name, Finished(0, *texts), second) for name, texts in zip(words, said, strict=True)}


def lines_of(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def assert_silent(ended):
    """The first alone speaks; but XLA says of every process that compiles slowly that it does."""
    assert (ended.out, "img/s" in ended.err, "Error" in ended.err) == ("", False, False), ended.err


def names_in(folder):
    """Of the files in it, but those that each process has of its own, and TensorBoard's, named by the second."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        name for name in files if not name.startswith(("origins.", "labels/origins.", "checkpoints/", "tensorboard/"))
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != AS_CALLED])
def test_two_processes_train_as_one(kind, in_turn, tiny_runs):
    assert_trained_as_one(kind, in_turn[f"{kind}_run"], tiny_runs)


def test_two_processes_train_as_one_as_users_call_them(tiny_runs, tmp_path):
    first, second = together(*tiny_runs.words(AS_CALLED), "--workdir", tmp_path / "run")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert_trained_as_one(AS_CALLED, Both(tmp_path / "run", first, second), tiny_runs)


def assert_trained_as_one(kind, both, tiny_runs):
    """Not to the bit: each process sums its part of a batch first."""
    assert "is ready" in both.first.out
    assert_silent(both.second)
    one, two = Run.open(tiny_runs.run(kind).directory), Run.open(both.directory)
    for found, expected in zip(lines_of(two), lines_of(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert names_in(two.directory) == names_in(one.directory)
    for mask in sorted(one.directory.glob("labels/*.png")):
        assert (two.directory / "labels" / mask.name).read_bytes() == mask.read_bytes()
    if kind in ("classifier", "mctformer"):
        for found, expected in zip(load_prototypes(two)[:4], load_prototypes(one)[:4], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # What two processes wrote, one reads.
    states = [trained_state(run, devices=mesh()) for run in (two, one)]
    networks = [(state.parameters, state.batch_stats) for state in states]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *networks)


@pytest.mark.parametrize("kind", APPLIED)
def test_two_processes_infer_and_score_as_one(kind, in_turn, tiny_runs):
    found, first, second = in_turn[f"{kind}_results"]
    expected, count = tiny_runs.results(kind).directory, TINY[kind].pictures
    assert f"{count} pictures are in" in first.out
    assert f"0/{count // 2}" in first.err  # its share, and in the folder the results of both
    assert_silent(second)
    assert names_in(found) == names_in(expected)
    for file in sorted(expected.glob("maps/*.npz")):
        with np.load(file) as one, np.load(found / "maps" / file.name) as two:
            assert one.files == two.files
            for name in set(one.files) - {"names"}:
                np.testing.assert_allclose(two[name], one[name], atol=2e-3, err_msg=f"{file.name} {name}")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (expected, found))
    assert_alike(two, one)


def assert_alike(found, expected, where="metrics"):
    """The same JSON values, numbers nearly."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for name, value in expected.items():
            assert_alike(found[name], value, f"{where} {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where} {number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-3), where
    else:
        assert found == expected, where


def test_one_that_fails_says_so_and_ends_the_others_with_it(trained):
    first, second = together("infer.py", "--ckpt", trained, "--out", "/proc/nothing/can/be/here")
    assert first.code == 2
    (line,) = [line for line in first.err.splitlines() if line.startswith("error:")]
    assert "cannot write" in line
    assert line.endswith("(process 0 of 2)")
    assert second.code != 0  # and it has ended


def test_a_folder_that_is_in_use_is_changed_by_none_of_them(trained, tmp_path):
    with in_use(tmp_path, "infer.py", flag="--out"):
        first, second = together("infer.py", "--ckpt", trained, "--out", tmp_path)
        assert os.listdir(tmp_path) == [NAME]
    assert first.code == 2
    assert f"{tmp_path} is in use by another infer.py" in first.err
    assert second.code != 0  # and it has ended


def test_only_the_first_writes_what_is_common(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    Run.create(tmp_path / "run", tiny, ("cat",))
    ResultFolder(tmp_path / "labels", {}, what="labels")
    MaskResults(tmp_path / "out", {"class_names": ["cat"]}, title="", caption="").missing(Shapes(2))
    assert list(tmp_path.rglob("*.json")) == []


START = """
import os, signal, time
import jax
from lpcam_jax.machine import devices, processes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.programs import run_program

def main():
    processes.join()
    devices.start()
    work()

"""

# Busy for longer than JAX waits: 20 s at the end, told so here, and 30 s in the first exchange of CPUs.
BUSY = {
    "at the end": """
connect = jax.distributed.initialize
jax.distributed.initialize = lambda *words, **options: connect(*words, **options, shutdown_timeout_seconds=20)

def work():
    if processes.is_first():
        time.sleep(25)
        print("done")
""",
    "before the first exchange": """
start = devices.start

def start_late():
    if processes.is_first():
        time.sleep(35)
    start()

devices.start = start_late

def work():
    print(processes.gather_values(processes.part()[0]))
""",
}


@pytest.mark.parametrize("when", BUSY)
def test_the_others_wait_for_the_first(when):
    first, second = together("-c", START + BUSY[when] + "run_program(main)")
    assert first.code == 0, first.err
    assert first.out in ("done\n", "[0, 1]\n")
    assert second.code == 0
    assert_silent(second)


ENDS = {"error": 'raise UserError("what is wrong")', "bug": "raise ValueError(3)", "kill": "os.kill(os.getpid(), 9)"}


@pytest.mark.parametrize(("one", "how"), [(0, "kill"), (1, "kill"), (1, "error"), (1, "bug")])
def test_one_that_ends_early_ends_the_others(one, how):
    work = f"def work():\n    if processes.part()[0] == {one}:\n        {ENDS[how]}\n    processes.wait()\n"
    ended = together("-c", START + work + "run_program(main)")
    code, out, err = ended[one]
    assert ended[1 - one].code != 0
    assert out == ""
    if how == "error":
        assert (code, err) == (2, "error: what is wrong (process 1 of 2)\n")
    elif how == "bug":
        assert code == 1
        assert err.startswith("Traceback")
        assert err.endswith("ValueError: 3 (process 1 of 2)\n")
    else:
        assert code == -9


def test_processes_that_do_not_find_each_other_say_so_in_one_line(start_program, recipe, tmp_path):
    without = {name: "" for name in os.environ if name.startswith(("SLURM", "OMPI"))}
    process = start_program("train.py", recipe, "--workdir", tmp_path / "run", "--distributed", **without)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert err.strip().splitlines()[-1].startswith("error: --distributed: the other processes cannot be joined")
    assert "Traceback" not in out + err
    assert not (tmp_path / "run").exists()


def test_one_process_has_the_whole_share_and_waits_for_nobody():
    assert processes.is_first()
    assert not processes.are_several()
    assert processes.share([3, 1, 2]) == [3, 1, 2]
    (only,) = processes.gather(np.arange(3.0))
    np.testing.assert_array_equal(only, np.arange(3.0))
    assert processes.gather_values({"a": [1]}) == [{"a": [1]}]
