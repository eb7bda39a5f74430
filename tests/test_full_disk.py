"""A disk that is full or read-only: one line, nothing half-written, and with space again the same command goes on.

A limit on the size of a file stands for the full disk: it fails the same calls, and needs no disk of its own.
"""

import contextlib
import os
import shutil

import numpy as np
import pytest

from lpcam_jax.errors import UserError
from lpcam_jax.training.log import MetricsLog
from lpcam_jax.training.run import Run

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


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays_of(file) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system limits no other process")
def test_training_ends_in_one_line_and_goes_on_to_the_same_numbers(start_program, program, recipe, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    words = ("train.py", recipe, "--workdir", workdir)
    process = start_program(*words)
    # The metrics fit, a checkpoint does not.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
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
    whole = files_of(mapped[0])
    written = files_of(tmp_path)
    assert {name: written[name] for name in written if name not in whole} == {}
    assert all(len(data) == len(whole[name]) for name, data in written.items())
    again = program(*words)
    assert again.code == 0, again.err
    assert files_of(tmp_path).keys() == whole.keys()
    for path in (mapped[0] / "maps").iterdir():
        found, expected = arrays_of(tmp_path / "maps" / path.name), arrays_of(path)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of {path.name}")


def test_a_folder_that_may_not_be_written_is_one_line(program, recipe, trained, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write everywhere")
    for place in (folder, folder / "new"):
        for words in (("train.py", recipe, "--workdir", place), ("infer.py", "--ckpt", trained, "--out", place)):
            ended = program(*words)
            assert ended.code == 2
            message = ended.err.splitlines()[-1]
            assert message.startswith(f"error: cannot write '{place}")
            assert message.endswith("Permission denied; choose a folder you may write to")
