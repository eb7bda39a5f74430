"""A disk that is full or read-only: one line, nothing half-written, and with space again the same command goes on.

A limit on the size of a file stands for the full disk: it fails the same calls, and needs no disk of its own. For root,
who may write into any folder, a disk of its own is mounted read-only.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import HANGS
from numpy.testing import assert_array_equal
from PIL import Image
from test_kills import assert_whole
from test_saliency_command import thin_u2net

from lpcam_jax.machine.errors import UserError
from lpcam_jax.training.checkpoints import CheckpointWriter, TrainState
from lpcam_jax.training.log import MetricsLog
from lpcam_jax.training.run import Run

pytestmark = pytest.mark.rest
resource = pytest.importorskip("resource", reason="this system has no limits on the size of a file")


@contextlib.contextmanager
def files_up_to(size: int):
    """This process cannot write larger files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def arrays_of(file) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system limits no other process")
def test_training_that_cannot_write_a_checkpoint_goes_on_later_to_the_same_numbers(
    start_program, program, recipe, trained, tmp_path
):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    words = ("train.py", recipe, "--workdir", workdir)
    process = start_program(*words)
    # The metrics fit, a checkpoint does not.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 2, err
    # Before it come Orbax's own reports of the parallel writes that failed; none may come after it.
    assert err.rstrip().splitlines()[-1] == (
        f"error: cannot write a checkpoint into {workdir / 'checkpoints'} (File too large; those up to step 4 are "
        "intact); free some space, or make the folder writable, and run again."
    )
    assert Run.open(workdir).steps() == [4]
    again = program(*words)
    assert again.code == 0, again.err
    assert (workdir / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()
    found, expected = arrays_of(workdir / "prototypes.npz"), arrays_of(trained / "prototypes.npz")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_disk_without_space_for_a_checkpoint_is_one_line_and_the_folder_is_as_before(
    program, recipe, trained, tmp_path, monkeypatch
):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    full = shutil.disk_usage(tmp_path)._replace(total=10**9, used=10**9 - 123_456, free=123_456)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: full)
        ended = program("train.py", recipe, "--workdir", workdir)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert re.fullmatch(
        re.escape(f"error: cannot write a checkpoint into {workdir / 'checkpoints'} (no space left: ")
        + r"\d+ MB are needed, 0 MB are free; those up to step 4 are intact\); free some space, .* and run again\.",
        ended.err.rstrip().splitlines()[-1],
    )
    assert sorted(os.listdir(workdir / "checkpoints")) == ["4"]


@pytest.mark.parametrize(("free", "is_said"), [(10**5, True), (10**9, False), (0, False)])
def test_maps_that_will_not_fit_are_said_before_the_work(trained, program, tmp_path, monkeypatch, free, is_said):
    usage = shutil.disk_usage(tmp_path)._replace(total=free and 10**10, used=free and 10**10 - free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    words = ("infer.py", "--ckpt", trained, "--out", tmp_path / "maps", "--limit", "8", "--pages", "none")
    finished = program(*words, "--refine", "none")
    assert finished.code == 0, finished.err
    said = re.findall(r"the maps of 8 pictures will take about 0.00\d+ GB; 0.0001 GB are free in ", finished.out)
    assert len(said) == is_said, finished.out


def test_a_disk_that_reports_no_size_is_written(trained, tmp_path, monkeypatch):
    empty = shutil.disk_usage(tmp_path)._replace(total=0, used=0, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: empty)
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    state = TrainState(np.int32(7), {"a": np.zeros(3, np.float32)}, {}, {})
    with CheckpointWriter(run) as checkpoints:
        checkpoints.save(7, state)
    assert run.steps() == [6, 7]


def test_writing_changes_no_hook_of_the_process_while_all_is_well(trained, tmp_path):
    def hooks():
        return sys.unraisablehook, *(list(logging.getLogger(name).filters) for name in ("absl", "asyncio"))

    before = hooks()
    with CheckpointWriter(Run.open(shutil.copytree(trained, tmp_path / "run"))) as checkpoints:
        checkpoints.save(7, TrainState(np.int32(7), {"a": np.zeros(3, np.float32)}, {}, {}))
        assert hooks() == before
    assert hooks() == before


def test_a_line_of_the_log_that_cannot_be_written_is_one_line(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def write_eight():
        with files_up_to(60), MetricsLog(path, start=0) as log:
            for step in range(1, 9):
                log.write({"step": step, "loss": 0.5})

    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl \(File too large\); free some space"):
        write_eight()
    with MetricsLog(path, start=2) as log:
        log.write({"step": 3, "loss": 0.25})
    assert path.read_text().splitlines() == [
        '{"step": 1, "loss": 0.5}', '{"step": 2, "loss": 0.5}', '{"step": 3, "loss": 0.25}',
    ]  # fmt: skip


def test_inference_ends_in_one_line_and_goes_on_to_the_same_maps(program, trained, mapped, tmp_path):
    sizes = sorted(path.stat().st_size for kind in ("overlays", "gallery") for path in (mapped[0] / kind).rglob("*"))
    words = ("infer.py", "--ckpt", trained, "--out", tmp_path)
    with files_up_to(sizes[-2]):  # all pictures but one fit
        ended = program(*words)
    assert ended.code == 2
    message = ended.err.splitlines()[-1]
    assert message.startswith(f"error: cannot write '{tmp_path}")
    assert ": File too large; " in message
    assert "Traceback" not in ended.err
    whole, written = files_of(mapped[0]), files_of(tmp_path)
    assert written <= whole
    for name in written:
        assert_whole(tmp_path / name)
    again = program(*words)
    assert again.code == 0, again.err
    assert files_of(tmp_path) == whole
    # Not to the bit: with whom a picture shares its batch depends on which were left.
    for path in (mapped[0] / "maps").iterdir():
        found, expected = arrays_of(tmp_path / "maps" / path.name), arrays_of(path)
        for name, array in expected.items():
            assert_same = (
                partial(np.testing.assert_allclose, atol=1e-3) if array.dtype.kind == "f" else assert_array_equal
            )
            assert_same(found[name], array, err_msg=f"{name} of {path.name}")
    for path in (mapped[0] / "seeds").iterdir():
        with Image.open(path) as one, Image.open(tmp_path / "seeds" / path.name) as other:
            assert (np.asarray(one) == np.asarray(other)).mean() > 0.999, path.name
    scores = [json.loads((folder / "metrics.json").read_text())["scores"] for folder in (mapped[0], tmp_path)]
    assert scores[1]["lpcam"]["best"]["miou"] == pytest.approx(scores[0]["lpcam"]["best"]["miou"], abs=1e-3)


@pytest.fixture(scope="module")
def read_only(trained, tmp_path_factory):
    """A folder that cannot be written, with a finished run in it."""
    folder = tmp_path_factory.mktemp("disk") / "disk"
    folder.mkdir()
    if os.geteuid():
        shutil.copytree(trained, folder / "run")
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & 0o555)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        return
    # Root may write everywhere, but on such a disk.
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode
    ):
        pytest.skip("this root may mount no disk")
    shutil.copytree(trained, folder / "run")
    subprocess.run([mount, "-o", "remount,ro", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


COMMANDS = (
    "train.py {recipe} --workdir {out}",
    "train.py {recipe} --workdir {disk}/run",
    "infer.py --ckpt {run} --out {out}",
    "lpcam_jax.__main__ seeds --maps {maps} --out {out}",
    "lpcam_jax.__main__ saliency --ckpt {run} --limit 1 --weights {weights} --out {out}",
    "lpcam_jax.__main__ evaluate {recipe} --predictions {maps} --out {out}",
    "lpcam_jax.__main__ export --format irn --maps {maps} --out {out}",
    "lpcam_jax.__main__ export --format coco --masks {maps} --out {out}/instances.json",
    "lpcam_jax.__main__ export --format labelme --masks {maps} --out {out}",
    "lpcam_jax.__main__ sweep --ckpt {run} --out {out}",
    "lpcam_jax.__main__ faithfulness --ckpt {run} --maps {maps} --limit 1 --out {out}",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_written_is_one_line(program, recipe, trained, mapped, read_only, tmp_path, command):
    places = {"recipe": recipe, "run": trained, "maps": mapped[0], "disk": read_only, "out": read_only / "new"}
    places["weights"] = tmp_path / "u2netp.npz"
    np.savez(places["weights"], **thin_u2net())
    ended = program(*(word.format_map(places) for word in command.split()))
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    message = re.split(r"[\r\n]+", ended.err.strip())[-1]
    remedies = (
        "Permission denied; choose a folder you may write to",
        "Read-only file system; choose a folder on a writable disk",
    )
    assert message.startswith(f"error: cannot write '{read_only}/")
    assert message.endswith(remedies)


def test_a_run_is_used_where_nothing_can_be_written(program, read_only, tmp_path):
    finished = program("infer.py", "--ckpt", read_only / "run", "--out", tmp_path, "--limit", 2)
    assert finished.code == 0, finished.err
    assert len(files_of(tmp_path / "maps")) == 2


def test_a_tensorboard_that_cannot_be_written_does_not_stop_training(start_program, tmp_path):
    """Its thread dies, and would be waited for by whoever writes a few metrics more."""
    pytest.importorskip("tensorboardX", reason="the curves of TensorBoard: pip install '.[tensorboard]'")
    (tmp_path / "long.py").write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lpcam_jax.training.log import MetricsLog\n"
        "import resource\n"
        "with MetricsLog(Path(sys.argv[1]), start=0) as log:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (17000, resource.RLIM_INFINITY))\n"
        "    for step in range(600):\n"
        "        log.write({'step': step, 'loss': 0.5})\n"
        "    while all(writer.is_alive() for writer in log._writers):\n"
        "        time.sleep(0.01)\n"
        "    log.write({'step': 600, 'loss': 0.5})\n"
    )
    process = start_program(tmp_path / "long.py", tmp_path / "metrics.jsonl")
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, err
    assert "TensorBoard's file cannot be written any more" in out + err
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 601
