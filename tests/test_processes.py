"""Two real processes on this machine do the work of one."""

import json
import os
import re
import socket
from functools import partial

import jax
import numpy as np
import pytest
from conftest import HANGS
from tiny_recipes import TINY

from lpcam_jax.config import registry
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine import processes
from lpcam_jax.machine.devices import mesh
from lpcam_jax.machine.locks import NAME, in_use
from lpcam_jax.results.folder import ResultFolder
from lpcam_jax.results.masks import MaskResults
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = pytest.mark.rest

KINDS = registry.kinds()


@pytest.fixture
def together(start_program):
    """`together("train.py", *words)` runs a program as two processes: (exit code, out, err) of each, without Gloo's."""

    def run(*words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        both = [start_program(*words, "--distributed", **common, JAX_PROCESS_ID=str(index)) for index in range(2)]
        texts = [process.communicate(timeout=HANGS) for process in both]
        outs = [re.sub(r"\[Gloo\] .*\n", "", out) for out, _ in texts]
        return [(process.returncode, out, err) for process, out, (_, err) in zip(both, outs, texts, strict=True)]

    return run


def lines_of(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def assert_silent(ended):
    """The first alone speaks; but XLA says of every process that compiles slowly that it does."""
    _, out, err = ended
    assert (out, "img/s" in err, "Error" in err) == ("", False, False), err


def names_in(folder):
    """Of the files in it, but those that each process has of its own."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in files if not name.startswith(("origins.", "labels/origins.", "checkpoints/"))}


# Not to the bit: each process sums its part of a batch first.
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(kind, together, tiny_runs, tmp_path):
    first, second = together(*tiny_runs.words(kind), "--workdir", tmp_path / "run")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "is ready" in first[1]
    assert_silent(second)
    one, two = Run.open(tiny_runs.run(kind).directory), Run.open(tmp_path / "run")
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


@pytest.mark.parametrize("kind", ["classifier", "segmentation"])  # heat maps and masks
def test_two_processes_infer_and_score_as_one(kind, together, tiny_runs, tmp_path):
    run, expected, found = tiny_runs.run(kind).directory, tiny_runs.results(kind).directory, tmp_path / "results"
    first, second = together("infer.py", "--ckpt", run, "--out", found)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    count = TINY[kind].pictures
    assert f"{count} pictures are in" in first[1]
    assert f"0/{count // 2}" in first[2]  # its share, and in the folder the results of both
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


def test_one_that_fails_says_so_and_ends_the_others_with_it(together, trained):
    first, second = together("infer.py", "--ckpt", trained, "--out", "/proc/nothing/can/be/here")
    assert first[0] == 2
    (line,) = [line for line in first[2].splitlines() if line.startswith("error:")]
    assert "cannot write" in line
    assert line.endswith("(process 0 of 2)")
    assert second[0] != 0  # and it has ended


@pytest.mark.parametrize("name", ["infer.py", "train.py"])
def test_a_folder_that_is_in_use_is_changed_by_none_of_them(name, together, trained, recipe, tmp_path):
    words = {"infer.py": ("--ckpt", trained, "--out"), "train.py": (recipe, "--workdir")}[name]
    with in_use(tmp_path, name, flag="--out"):
        first, second = together(name, *words, tmp_path)
        assert os.listdir(tmp_path) == [NAME]
    assert first[0] == 2
    assert f"{tmp_path} is in use by another {name}" in first[2]
    assert second[0] not in (0, None)  # and it has ended


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
def test_the_others_wait_for_the_first(when, together):
    first, second = together("-c", START + BUSY[when] + "run_program(main)")
    assert first[0] == 0, first[2]
    assert first[1] in ("done\n", "[0, 1]\n")
    assert second[0] == 0
    assert_silent(second)


ENDS = {"error": 'raise UserError("what is wrong")', "bug": "raise ValueError(3)", "kill": "os.kill(os.getpid(), 9)"}


@pytest.mark.parametrize(("one", "how"), [(0, "kill"), (1, "kill"), (1, "error"), (1, "bug")])
def test_one_that_ends_early_ends_the_others(one, how, together):
    work = f"def work():\n    if processes.part()[0] == {one}:\n        {ENDS[how]}\n    processes.wait()\n"
    ended = together("-c", START + work + "run_program(main)")
    code, out, err = ended[one]
    assert ended[1 - one][0] not in (0, None)
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
