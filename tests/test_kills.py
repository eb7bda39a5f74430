"""Programs that are killed at any moment: nothing that was finished is lost or redone, and nothing is ever half there.

A program is killed again and again, the same command each time, and then let end; what it leaves is compared with what
an uninterrupted one left. `pytest tests/test_kills.py --kills 30 -s` kills each of them thirty times, and says when.
"""

import json
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.files import read_arrays
from lpcam_jax.locks import NAME as LOCK
from lpcam_jax.training.checksums import find_damage
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signals"),
]

ONES_OWN = re.compile(r"\.lpcam_jax\.[0-9a-f]{16}\.tmp|\.lpcam_jax\.lock")


@pytest.fixture
def kills(request) -> int:
    return request.config.getoption("--kills")


class Killed:
    """A program that writes into `folder` and is killed.

    Its life has two parts, and moments are drawn from both: until it takes the folder's lock, when nothing of the
    folder is touched, and the work itself. Their lengths are those of an uninterrupted program.
    """

    def __init__(self, start_program, folder: Path, *words):
        self._start = lambda: start_program(*words)
        self.folder = folder
        begin = time.monotonic()
        process = self._start()
        self._wait_for_lock(process)
        taken = time.monotonic()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        self.preparation, self.work = taken - begin, time.monotonic() - taken

    def send(self, number: int, moment: float) -> tuple[int, str]:
        """Start the program, send it a signal, and see how it ends.

        Args:
            number: of the signal.
            moment: in [-1, 0) of the preparation, in [0, 1) of the work.

        Returns:
            The exit code (0: it had ended before), and what it printed on stderr.
        """
        process = self._start()
        if moment < 0:
            time.sleep((1 + moment) * self.preparation)
        else:
            self._wait_for_lock(process)
            time.sleep(moment * self.work)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, -number, 128 + number), err
        return process.returncode, err

    def finish(self) -> None:
        """Let it end by itself."""
        process = self._start()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err

    def _wait_for_lock(self, process) -> None:
        lock = self.folder / LOCK
        while process.poll() is None:
            try:
                if lock.read_text() == str(process.pid):
                    return
            except FileNotFoundError:
                pass
            time.sleep(0.001)


def signals(kills: int, *, seed: int) -> Iterator[tuple[int, float]]:
    """Signals and their moments: mostly SIGKILL, one in eight during the preparation, the others spread over the work;
    every fourth is one of those that ask, during the work."""
    rng = np.random.default_rng(seed)
    spread = rng.permutation((np.arange(kills) + rng.random(kills)) / kills)
    for n, moment in enumerate(spread):
        if n % 4 == 1:
            yield (signal.SIGTERM, signal.SIGINT)[(n // 4 + seed) % 2], moment
        else:
            yield signal.SIGKILL, moment if n % 8 != 7 else moment - 1


def assert_whole(path: Path) -> None:
    """A file under its own name can be read to its end."""
    match path.suffix:
        case ".npz":
            assert read_arrays(path)
        case ".png" | ".jpg":
            with Image.open(path) as image:
                image.load()
        case ".json":
            json.loads(path.read_bytes())
        case ".jsonl":
            text = path.read_text()
            assert text == "" or text.endswith("\n")
            assert all("step" in json.loads(line) for line in text.splitlines())
        case ".html":
            assert path.read_text().rstrip().endswith("</html>")
        case _:
            raise AssertionError(f"what is {path}?")


def files_of(folder: Path) -> dict[str, Path]:
    """All files, but those of checkpoints: of each the name within the folder, and the path."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if not name.startswith("checkpoints/")}


def assert_all_whole(folder: Path) -> None:
    for path in files_of(folder).values():
        if not ONES_OWN.fullmatch(path.name):
            assert_whole(path)


def assert_same_files(folder: Path, expected: Path) -> None:
    """To the byte, and no file more."""
    found, wanted = files_of(folder), files_of(expected)
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        assert path.read_bytes() == wanted[name].read_bytes(), name


def assert_same_state(one: Run, other: Run, mesh) -> None:
    a, b = (trained_state(run, devices=mesh) for run in (one, other))
    assert a.step == b.step
    for part in ("parameters", "batch_stats"):
        for name, leaf in flat(getattr(a, part)).items():
            np.testing.assert_array_equal(leaf, flat(getattr(b, part))[name], err_msg=name)


def flat(tree, prefix="") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {prefix: np.asarray(tree)}
    return {name: leaf for key, one in tree.items() for name, leaf in flat(one, f"{prefix}/{key}").items()}


def kill_often(program: Killed, expected: Path, kills: int, *, seed: int, finished: Callable[[], dict]) -> None:
    """Kill, start again, and look, as often as is asked; then let it end.

    Args:
        program: the program.
        expected: what an uninterrupted one left.
        kills: how often.
        seed: of the moments.
        finished: of everything that must be neither lost nor redone its name, and what would be another afterwards.
    """
    folder, done, seen = program.folder, {}, Counter()
    for number, moment in signals(kills, seed=seed):
        code, err = program.send(number, moment)
        assert_all_whole(folder)
        now = finished()
        assert done.items() <= now.items()
        done = now
        if code:
            seen[f"after {signal.Signals(number).name} {len(now)} finished"] += 1
        if code == 128 + number:
            assert "Traceback" not in err
            assert re.split(r"[\r\n]+", err.strip())[-1] == "stopped; the same command continues where it was."
            assert not [path for path in files_of(folder).values() if ONES_OWN.fullmatch(path.name)]
        elif code == 0:  # too late
            assert_same_files(folder, expected)
            shutil.rmtree(folder)
            done = {}
    program.finish()
    assert done.items() <= finished().items()
    assert_same_files(folder, expected)
    assert seen.total() >= kills / 2, seen
    print(*(f"{times} x {what}" for what, times in sorted(seen.items())), sep=", ")


def test_training_ends_with_the_same_run(start_program, recipe, mesh, tmp_path, kills):
    workdir, expected = tmp_path / "run", tmp_path / "expected"
    program = Killed(start_program, workdir, "train.py", recipe, "--workdir", workdir)
    shutil.move(workdir, expected)

    def finished() -> dict[str, int]:
        """The checkpoints so far: those that were there when the program was killed, and at each of them whole ones."""
        if not (workdir / "config.json").exists():
            return {}
        steps = Run.open(workdir).steps()
        for step in steps[-2:]:  # one more when the kill came before the oldest was removed
            folder = workdir / "checkpoints" / str(step)
            assert find_damage(folder) is None
            assert (folder / "commit_success.txt").exists()
        there = {f"step {step}": step for step in (2, 4, 6) if step <= max(steps, default=0)}
        made = workdir / "prototypes.npz"
        return there | ({"prototypes": made.stat().st_mtime_ns} if made.exists() else {})

    kill_often(program, expected, kills, seed=0, finished=finished)
    assert_same_state(Run.open(workdir), Run.open(expected), mesh)


def test_inference_ends_with_the_same_maps(start_program, trained, tmp_path, kills):
    out, expected = tmp_path / "out", tmp_path / "expected"
    program = Killed(start_program, out, "infer.py", "--ckpt", trained, "--out", out)
    shutil.move(out, expected)

    def finished() -> dict[str, tuple[int, int]]:
        """Of each finished picture the file and when it was written."""
        status = {path.name: path.stat() for path in (out / "maps").glob("*.npz")}
        return {name: (one.st_ino, one.st_mtime_ns) for name, one in status.items()}

    kill_often(program, expected, kills, seed=1, finished=finished)
