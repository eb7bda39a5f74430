"""Programs that are killed at any moment: nothing that was finished is lost or redone, and nothing is ever half there.

A program is killed again and again, the same command each time, and then let end; what it leaves is compared with what
an uninterrupted one left. `pytest tests/test_kills.py --kills 30 -s` kills each of them thirty times, and says when.
"""

import contextlib
import json
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import HANGS
from PIL import Image

from lpcam_jax.machine.files import read_arrays
from lpcam_jax.machine.locks import NAME as LOCK
from lpcam_jax.training.checksums import find_damage
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = [
    pytest.mark.rest,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signals"),
]

ONES_OWN = re.compile(r"\.lpcam_jax\.[0-9a-f]{16}\.tmp|\.lpcam_jax\.lock")


@pytest.fixture
def kills(request) -> int:
    return request.config.getoption("--kills")


class Killed:
    """A program that writes into `folder` and is killed.

    Its life has phases: the start, when nothing in the folder is touched; the work, from when it holds the folder's
    lock; and a new one whenever one of the files or folders `marks` comes to be. Each is as long as in an uninterrupted
    program.
    """

    def __init__(self, start_program, folder: Path, *words, marks: Sequence[str]):
        self._start = lambda: start_program(*words)
        self.folder, self.phases = folder, ("start", "work", *marks)
        process, times = self._start(), [time.monotonic()]
        for phase in self.phases[1:]:
            self._wait_for(phase, process)
            times.append(time.monotonic())
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err
        self.lengths = dict(zip(self.phases, np.diff([*times, time.monotonic()]), strict=True))

    def send(self, number: int, phase: str, moment: float) -> tuple[int, str]:
        """Start the program, send it a signal, and see how it ends.

        Args:
            number: of the signal.
            phase: when.
            moment: in [0, 1) of the phase.

        Returns:
            The exit code (0: it had ended before), and what it printed on stderr.
        """
        process = self._start()
        self._wait_for(phase, process)
        time.sleep(moment * self.lengths[phase])
        process.send_signal(number)
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode in (0, -number, 128 + number), err
        return process.returncode, err

    def finish(self) -> None:
        """Let it end by itself."""
        process = self._start()
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err

    def _wait_for(self, phase: str, process) -> None:
        """Until it or a later one has begun, or the program has ended."""
        later = self.phases[max(self.phases.index(phase), 2) :]

        def has_begun() -> bool:
            with contextlib.suppress(FileNotFoundError):
                if (self.folder / LOCK).read_text() == str(process.pid):
                    return phase == "work" or any((self.folder / mark).exists() for mark in later)
            return phase == "start"

        while process.poll() is None and not has_begun():
            time.sleep(0.001)


def lives(phases: Sequence[str], kills: int, *, seed: int) -> Iterator[list[tuple[int, str, float]]]:
    """Signals with their phases and moments, up to four for a folder, the phases in order: each as often as any other.

    Every fourth signal is one of those that ask, when the work has begun.
    """
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.permutation(len(phases)) for _ in range(kills // len(phases) + 1)])[:kills]
    for first in range(0, kills, 4):
        life = []
        for n, phase in enumerate(np.sort(drawn[first : first + 4]), first):
            asks = n % 4 == 1
            number = (signal.SIGTERM, signal.SIGINT)[(n // 4 + seed) % 2] if asks else signal.SIGKILL
            life.append((number, phases[max(phase, 1) if asks else phase], rng.random()))
        yield life


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
            assert all(json.loads(line) for line in text.splitlines())
        case ".html":
            assert path.read_text().rstrip().endswith("</html>")
        case _:
            raise AssertionError(f"what is {path}?")


def files_of(folder: Path) -> dict[str, Path]:
    """All files, but checkpoints and TensorBoard's: of each the name within the folder, and the path."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in names.items() if not name.startswith(("checkpoints/", "tensorboard/"))}


def assert_all_whole(folder: Path) -> None:
    for path in files_of(folder).values():
        if not ONES_OWN.fullmatch(path.name):
            assert_whole(path)


def assert_same_files(folder: Path, expected: Path) -> None:
    """To the byte, and no file more; origins are noted in the order in which pictures were done, some of them twice."""
    found, wanted = files_of(folder), files_of(expected)
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        if name.startswith("origins"):
            assert origins_in(path) == origins_in(wanted[name]), name
        else:
            assert path.read_bytes() == wanted[name].read_bytes(), name


def origins_in(path: Path) -> set[str]:
    """What it says but for the times."""
    return {str(json.loads(line)[:-1]) for line in path.read_text().splitlines()}


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
    """Kill, start again, and look, as often as is asked; let it end now and then, to start in a new folder.

    Args:
        program: the program.
        expected: what an uninterrupted one left.
        kills: how often.
        seed: of the moments.
        finished: of everything that must be neither lost nor redone its name, and what would be another afterwards.
    """
    folder, seen = program.folder, Counter()
    for life in lives(program.phases, kills, seed=seed):
        shutil.rmtree(folder, ignore_errors=True)
        done = {}
        for number, phase, moment in life:
            code, err = program.send(number, phase, moment)
            assert_all_whole(folder)
            now = finished()
            assert done.items() <= now.items()
            done = now
            seen[f"{signal.Signals(number).name if code else 'too late'} in {phase}"] += 1
            if code == 128 + number:
                assert "Traceback" not in err
                # The end of all it says; killed while a bar closes, it says so behind the bar.
                assert err.strip().endswith("stopped; the same command continues where it was.")
                assert not [path for path in files_of(folder).values() if ONES_OWN.fullmatch(path.name)]
        program.finish()
        assert done.items() <= finished().items()
        assert_same_files(folder, expected)
    print(*(f"{times} x {what}" for what, times in sorted(seen.items())), sep=", ")


def test_training_ends_with_the_same_run(start_program, recipe, mesh, tmp_path, kills):
    workdir, expected = tmp_path / "run", tmp_path / "expected"
    marks = ("metrics.jsonl", "checkpoints/2", "checkpoints/4", "checkpoints/6", "prototypes", "prototypes.npz")
    program = Killed(start_program, workdir, "train.py", recipe, "--workdir", workdir, marks=marks)
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
    assert all(entry.name.isdigit() for entry in (workdir / "checkpoints").iterdir())
    assert_same_state(Run.open(workdir), Run.open(expected), mesh)


def test_inference_ends_with_the_same_maps(start_program, trained, tmp_path, kills):
    out, expected = tmp_path / "out", tmp_path / "expected"
    marks = ("protocol.json", "maps", "metrics.json", "prototypes.html", "index.html")
    # To the byte only where a picture's batch is always the same: that of its own.
    words = ("--ckpt", trained, "--out", out, "--inference.batch-pixels", 1)
    program = Killed(start_program, out, "infer.py", *words, marks=marks)
    shutil.move(out, expected)

    def finished() -> dict[str, tuple[int, int]]:
        """Of each finished picture the file and when it was written."""
        status = {path.name: path.stat() for path in (out / "maps").glob("*.npz")}
        return {name: (one.st_ino, one.st_mtime_ns) for name, one in status.items()}

    kill_often(program, expected, kills, seed=1, finished=finished)
