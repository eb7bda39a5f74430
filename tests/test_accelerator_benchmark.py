"""`python -m benchmarks.accelerator`: everything has its row, whatever happens to it."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks.accelerator import __main__ as program
from benchmarks.accelerator import report, training
from benchmarks.accelerator.compiled import Compiled, compiled, cpu
from benchmarks.accelerator.parity import difference
from benchmarks.accelerator.part import said, timed
from benchmarks.accelerator.sizes import FULL, SHORT

pytestmark = pytest.mark.rest

HERE = "tests.test_accelerator_benchmark"


def stumbling(sizes):
    """A part of which one program fails."""
    yield "good", lambda: {"seconds": 1.0}
    yield "bad", lambda: {}["no such thing"]
    yield "also good", lambda: {"seconds": 2.0}


def dying(sizes):
    """A part whose process ends."""
    yield "good", lambda: {"seconds": 1.0}
    yield "deadly", lambda: os._exit(3)


@pytest.mark.minutes
def test_the_short_form_has_a_row_for_everything(start_program, tmp_path):
    process = start_program("-m", "benchmarks.accelerator", "--short", "--minutes", "60", "--out", tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["rows"]
    without_torch = [row["name"] for row in rows if row.get("error", "").startswith("torch is not installed")]
    assert [row for row in rows if "error" in row and row["name"] not in without_torch] == []
    assert {row["part"] for row in rows} == set(program.STARTS)
    assert all(row["agrees"] for row in rows if row["part"] == "parity")
    for row in rows:
        if row["part"] in ("classifier", "segmentation", "largest"):
            assert row["pictures"] == row["facts"]["batch"]
            assert row["least"] > 0
            assert row["flops"] > 1e6
            assert np.isfinite(row["facts"]["first loss"])
    losses = [row["facts"]["first loss"] for row in rows if row["name"].startswith("classifier step, 4 pictures")]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=0.01), "torch trains the same network"
    page = (tmp_path / "results.md").read_text()
    assert page in out
    assert all(f"| {row['name']} |" in page for row in rows)
    assert "] parity: random walk" in err


def test_a_program_that_fails_has_a_row_and_the_rest_goes_on():
    rows = [line["row"] for line in said(f"{HERE}:stumbling", SHORT) if "row" in line]
    assert [row["name"] for row in rows] == ["good", "bad", "also good"]
    assert [row.get("error") for row in rows] == [None, "KeyError: 'no such thing'", None]


def test_a_process_that_dies_has_a_row(monkeypatch):
    monkeypatch.setitem(program.STARTS, "dying", f"{HERE}:dying")
    rows = list(program.rows_of("dying", {}, short=True, end=time.monotonic() + 1800))
    assert rows[0] == {"name": "good", "seconds": 1.0}
    assert rows[1] == {"name": "deadly", "error": "its process ended with code 3; what it said is above"}


def test_nothing_begins_after_the_end_and_what_is_at_work_is_stopped():
    rows = list(program.rows_of("parity", {}, short=True, end=time.monotonic() - 1))
    assert rows == [{"name": "all", "error": "not begun: the time was over"}]
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10**6)"])
    with program.alarm(sleeping, time.monotonic()) as stopped:
        sleeping.wait()
    assert stopped.is_set()
    done = subprocess.Popen([sys.executable, "-c", ""])
    with program.alarm(done, time.monotonic() + 1800) as stopped:
        done.wait()
    assert not stopped.is_set()


def test_the_cpu_is_opened_beside_what_is_asked_for(monkeypatch):
    for given, expected in (("cuda", "cuda,cpu"), ("cuda,cpu", "cuda,cpu"), ("cpu", "cpu")):
        monkeypatch.setenv("JAX_PLATFORMS", given)
        assert program.environment()["JAX_PLATFORMS"] == expected
    monkeypatch.delenv("JAX_PLATFORMS")
    assert "JAX_PLATFORMS" not in program.environment()


def test_a_known_chip_has_the_peaks_of_its_maker_another_those_that_were_measured():
    measured = {"name": "peaks", "peaks": {"bfloat16": 4.0, "float32": 2.0, "highest": 1.0, "bytes": 8.0}}
    row = {"seconds": 2.0, "flops": 2.0, "bytes": 1.0, "precision": "float32"}
    for kind, least in (("a new one", 1.0), ("NVIDIA H200", 1 / 4.8e12)):
        results = {}
        program.learn_device(results, {"device": {"kind": kind}})
        program.learn_device(results, measured)
        assert report.with_roofline(row, results["peaks"])["least"] == pytest.approx(least)
    assert report.with_roofline(row, None) == row


def test_the_report_says_what_failed_and_what_disagrees():
    times = {"seconds": 0.5, "low": 0.4, "high": 0.7, "pictures": 8, "flops": 2e12, "bytes": 1e9, "least": 0.25}
    rows = [
        {"part": "parity", "name": "features", "difference": 0.5, "allowed": 0.01, "agrees": False},
        {"part": "classifier", "name": "a step", **times},
        {"part": "classifier", "name": "another", "error": "out of memory | or so"},
    ]
    machine = {"cpu": "a CPU", "cores": 2, "python": "3", "versions": {"jax": "1"}}
    page = report.markdown({"command": "c", "date": "d", "machine": machine, "rows": rows})
    assert "| features | 5.0e-01 | 0.01 | **disagrees** |" in page
    assert "| a step | 500 ms (400 ms - 700 ms) | 16.0 | 4 | 2 | 50 % |" in page
    assert "| another | out of memory / or so |" in page
    assert report.line(rows[1]) == "500 ms (400 ms - 700 ms); 16.0 pictures/s; 4 TFLOP/s; 2 GB/s; 50 % of the roofline"


def test_the_time_is_of_one_run_after_a_warm_up():
    runs = []

    def run(times):
        runs.append(times)
        time.sleep(0.001 * times)

    row = timed(run, least=0.05)
    assert runs[:2] == [1, 1]
    assert len(set(runs[2:])) == 1
    assert len(runs) - 2 == row["turns"] >= 3
    assert 0.001 <= row["low"] <= row["seconds"] <= row["high"]


def test_flops_are_those_of_the_product_and_bytes_at_least_those_of_its_arguments():
    one = np.ones((64, 32), np.float32)
    program = compiled(jax.jit(lambda a, b: a @ b), one, one.T)
    assert program.flops == 2 * 64 * 64 * 32
    assert program.bytes >= 4 * (2 * 64 * 32 + 64 * 64)
    assert program.memory >= 4 * (2 * 64 * 32 + 64 * 64)


@pytest.mark.parametrize("overhead", [0, 300])
@pytest.mark.parametrize("lies", [False, True])
def test_the_largest_batch_is_found_from_what_one_needs(overhead, lies):
    """`lies`: the plan was right, and yet the memory was full."""
    tried = []

    def of_batch(sizes, batch, precision, limit):
        tried.append(batch)
        memory = overhead + 10 * batch
        if memory > limit:
            raise training.DoesNotFitError(Compiled(None, 0.0, 0.0, memory))
        if lies and len(tried) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"batch": batch}

    found = training._largest(FULL._replace(memory=2000), of_batch, "float32")["batch"]
    assert found % 8 == 0
    assert tried[0] == FULL.batch
    assert overhead + 10 * found <= 1800
    assert found >= (40 if overhead else 0.7 * 176)


def test_a_batch_that_never_fits_is_a_row():
    def of_batch(sizes, batch, precision, limit):
        raise training.DoesNotFitError(Compiled(None, 0.0, 0.0, 10**9))

    row = training._largest(FULL._replace(memory=1000), of_batch, "float32")
    assert row["error"].startswith("out of memory, 1e-06 GB, after 3 tries")


def test_a_difference_is_relative_to_the_whole_array():
    expected = np.float32([3, 0, 4])
    assert difference(expected, expected) == 0
    assert difference(expected + np.float32([0, 0.05, 0]), expected) == pytest.approx(0.01)
    assert cpu().platform == "cpu"
