"""Two programs in one folder: the second ends at once, and a killed one holds nobody up."""

import errno
import os
import shutil
import signal
import threading
import time

import pytest

from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.locks import NAME, in_use

fcntl = pytest.importorskip("fcntl", reason="the tests read locked files and stop processes, as POSIX systems allow")


def test_the_second_is_told_who_is_there_and_the_folder_is_left_as_it_was(tmp_path):
    folder = tmp_path / "runs" / "demo"
    with in_use(folder, "train.py", flag="--workdir"):
        with pytest.raises(UserError) as caught, in_use(folder, "train.py", flag="--workdir"):
            raise AssertionError
        assert str(caught.value) == (
            f"{folder} is in use by another train.py (process {os.getpid()}); wait for it, or choose another --workdir."
        )
        with in_use(tmp_path / "runs" / "other", "train.py", flag="--workdir"):
            pass
    assert os.listdir(folder) == []
    with in_use(folder, "train.py", flag="--workdir"):
        pass


def test_a_failure_within_gives_the_folder_back(tmp_path):
    with pytest.raises(ZeroDivisionError), in_use(tmp_path, "infer.py", flag="--out"):
        _ = 1 / 0
    assert os.listdir(tmp_path) == []


def test_a_file_that_was_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / NAME).write_text("4194304000")
    with in_use(tmp_path, "infer.py", flag="--out"):
        assert (tmp_path / NAME).read_text() == str(os.getpid())
    assert os.listdir(tmp_path) == []


LEFTOVER = ".lpcam_jax.0123456789abcdef.tmp"


def test_what_a_killed_program_was_writing_is_deleted_and_nothing_else(tmp_path):
    folder, outside = tmp_path / "out", tmp_path / "outside"
    for place in (folder, folder / "maps", folder / "maps" / "deeper", outside):
        place.mkdir()
        (place / LEFTOVER).write_text("half a pict")
        for name in ("a.tmp", ".0123456789abcdef.tmp", ".lpcam_jax.0123456789abcdef.npz", ".lpcam_jax.0123.tmp"):
            (place / name).write_text("of somebody else")
    (folder / "link").symlink_to(outside)
    with in_use(folder, "infer.py", flag="--out"):
        pass
    assert (folder / LEFTOVER).exists()  # nobody was killed here: somebody may be writing it
    (folder / NAME).write_text("4194304000")
    before = {path for path in tmp_path.rglob("*") if path.name not in (NAME, LEFTOVER)}
    with in_use(folder, "infer.py", flag="--out"):
        pass
    assert set(tmp_path.rglob("*")) == before | {outside / LEFTOVER}


def test_what_the_program_that_is_there_is_writing_is_not_deleted(tmp_path):
    with in_use(tmp_path, "train.py", flag="--workdir"):
        (tmp_path / LEFTOVER).write_text("half a pict")
        with pytest.raises(UserError), in_use(tmp_path, "train.py", flag="--workdir"):
            raise AssertionError
        assert (tmp_path / LEFTOVER).exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_place_of_the_file_is_not_followed(tmp_path, there):
    precious = tmp_path / "precious"
    precious.write_text("text")
    target = precious if there else tmp_path / "absent"
    (tmp_path / NAME).symlink_to(target)
    with in_use(tmp_path, "infer.py", flag="--out"):
        assert precious.read_text() == "text"
    assert precious.read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == [NAME, "precious"]


def test_there_are_never_two(tmp_path):
    """Also while the file is deleted and made anew all the time."""
    within, most, entered = [], [], []

    def enter_often():
        while len(entered) < 500:
            try:
                with in_use(tmp_path, "train.py", flag="--workdir"):
                    within.append(1)
                    most.append(len(within))
                    time.sleep(0)
                    within.pop()
                    entered.append(1)
            except UserError:
                pass

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_does_not_stop_the_work(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / LEFTOVER).write_text("half a pict")
    with in_use(tmp_path, "train.py", flag="--workdir"), in_use(tmp_path, "train.py", flag="--workdir"):
        pass
    assert (tmp_path / LEFTOVER).exists()  # without a lock, another program may be writing it


# The programs


def test_a_second_training_is_refused_until_the_first_is_killed(start_program, program, recipe, tmp_path):
    workdir = tmp_path / "run"
    first = start_program("train.py", recipe, "--workdir", workdir, "--training.epochs", 100_000)
    config = workdir / "config.json"
    while first.poll() is None and not config.exists():
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # however slow the machine, it does not finish meanwhile
    before = config.read_text(), config.stat().st_mtime_ns
    second = program("train.py", recipe, "--workdir", workdir, "--training.epochs", 5)
    assert second.code == 2
    assert second.err.splitlines()[-1] == (
        f"error: {workdir} is in use by another train.py (process {first.pid}); "
        "wait for it, or choose another --workdir."
    )
    assert (config.read_text(), config.stat().st_mtime_ns) == before
    first.kill()
    first.wait()
    assert (workdir / NAME).exists()
    with in_use(workdir, "train.py", flag="--workdir"):
        pass
    assert not (workdir / NAME).exists()


def test_a_second_training_of_a_segmentation_network_is_refused(program, segmentation_recipe, tmp_path):
    with in_use(tmp_path, "train.py", flag="--workdir"):
        refused = program("train.py", segmentation_recipe, "--workdir", tmp_path)
        assert os.listdir(tmp_path) == [NAME]
    assert refused.code == 2
    assert f"{tmp_path} is in use by another train.py" in refused.err


def test_a_second_inference_is_refused(program, trained, tmp_path):
    with in_use(tmp_path, "infer.py", flag="--out"):
        refused = program("infer.py", "--ckpt", trained, "--out", tmp_path)
        assert os.listdir(tmp_path) == [NAME]
    assert refused.code == 2
    assert refused.err.splitlines()[-1] == (
        f"error: {tmp_path} is in use by another infer.py (process {os.getpid()}); "
        "wait for it, or choose another --out."
    )


def test_a_run_can_be_read_while_it_is_trained(program, trained, mapped, tmp_path):
    run, out = shutil.copytree(trained, tmp_path / "run"), shutil.copytree(mapped[0], tmp_path / "out")
    with in_use(run, "train.py", flag="--workdir"):
        finished = program("infer.py", "--ckpt", run, "--out", out)
    assert finished.code == 0, finished.err
