"""Two real processes on this machine do the work of one."""

import json
import os
import socket

import numpy as np
import pytest
from conftest import HANGS

from lpcam_jax.machine import processes
from lpcam_jax.systems.lpcam.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = pytest.mark.rest


@pytest.fixture
def together(start_program):
    """`together("train.py", *words)` runs a program as two processes: (exit code, out, err) of each."""

    def run(*words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        both = [start_program(*words, "--distributed", **common, JAX_PROCESS_ID=str(index)) for index in range(2)]
        texts = [process.communicate(timeout=HANGS) for process in both]
        return [(process.returncode, *text) for process, text in zip(both, texts, strict=True)]

    return run


def losses(directory):
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_two_processes_train_cluster_and_map_as_one(together, trained, mapped, recipe, mesh, tmp_path):
    first, second = together("train.py", recipe, "--workdir", tmp_path / "run")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "context prototypes" in first[1]  # the first speaks
    assert "prototypes" not in second[1]
    assert second[2] == ""
    # Not to the bit: each process sums its part of a batch first.
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(trained), rtol=1e-5)
    one, two = Run.open(trained), Run.open(tmp_path / "run")
    for found, expected in zip(load_prototypes(two)[:4], load_prototypes(one)[:4], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # What two processes wrote, one reads.
    heads = [trained_state(run, devices=mesh).parameters["head"] for run in (one, two)]
    np.testing.assert_allclose(*heads, rtol=1e-4, atol=1e-6)

    ended = together("infer.py", "--ckpt", trained, "--out", tmp_path / "maps")
    assert [code for code, _, _ in ended] == [0, 0], ended[0][2] + ended[1][2]
    assert "24 pictures are in" in ended[0][1]
    assert "0/12" in ended[0][2]  # its share, and below those of both
    expected = mapped[0]
    for folder in ("maps", "overlays", "seeds"):
        assert sorted(p.name for p in (tmp_path / "maps" / folder).iterdir()) == sorted(
            p.name for p in (expected / folder).iterdir()
        )
    for file in sorted((expected / "maps").iterdir()):
        with np.load(file) as here, np.load(tmp_path / "maps" / "maps" / file.name) as there:
            for name in ("cam", "lpcam_f", "lpcam"):
                np.testing.assert_allclose(there[name], here[name], atol=2e-3, err_msg=f"{file.name} {name}")
    scores = [json.loads((folder / "metrics.json").read_text())["scores"] for folder in (expected, tmp_path / "maps")]
    assert scores[0]["lpcam"]["best"]["miou"] == pytest.approx(scores[1]["lpcam"]["best"]["miou"], abs=1e-3)


def test_one_that_fails_says_so_and_ends_the_others_with_it(together, trained):
    first, second = together("infer.py", "--ckpt", trained, "--out", "/proc/nothing/can/be/here")
    assert first[0] == 2
    (line,) = [line for line in first[2].splitlines() if line.startswith("error:")]
    assert "cannot write" in line
    assert line.endswith("(process 0 of 2)")
    assert second[0] != 0  # and it has ended


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
