"""A system of somebody else moves in: a folder outside the package, registered, and nothing in the package changes."""

import json

import numpy as np
import pytest

from lpcam_jax.config import registry
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.training.checkpoints import CheckpointWriter
from lpcam_jax.training.run import Run

RECIPE = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from toy_system.system import PeakConfig

def get_config():
    model = ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=16)
    return PeakConfig(data=Data(source="shapes", scenes=24), model=model)
"""


@pytest.fixture(scope="module")
def peak():
    """The toy system, registered while this module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_SYSTEMS", registry._SYSTEMS.copy())
        registry.register_system("peak", "toy_system.system", {"peak": "Peak"})
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "peak.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def trained(peak, recipe, program, tmp_path_factory):
    """A finished run; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "peak"
    finished = program("train.py", recipe, "--workdir", workdir)
    assert finished.code == 0, finished.err
    assert f"python infer.py --ckpt {workdir} --out peaks/" in finished.out
    return workdir


@pytest.fixture(scope="module")
def mapped(trained, program, tmp_path_factory):
    """The maps of the finished run."""
    out = tmp_path_factory.mktemp("maps") / "peaks"
    finished = program("infer.py", "--ckpt", trained, "--out", out)
    assert finished.code == 0, finished.err
    assert "24 pictures are in" in finished.out
    assert "Peak" in finished.out
    return out


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_trains_and_its_run_knows_its_kind(trained):
    run = Run.open(trained)
    assert run.kind == "peak"
    assert type(run.config).__name__ == "PeakConfig"
    assert run.steps() == [4, 6]
    losses = [json.loads(line)["loss"] for line in run.metrics_file.read_text().splitlines()]
    assert len(losses) == 6
    assert np.isfinite(losses).all()


def test_a_stopped_training_goes_on_to_the_same_bits(trained, recipe, program, tmp_path, monkeypatch):
    save = CheckpointWriter.save

    def save_and_stop(self, step, state):
        save(self, step, state)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointWriter, "save", save_and_stop)
    assert program("train.py", recipe, "--workdir", tmp_path / "run").code == 130
    monkeypatch.setattr(CheckpointWriter, "save", save)
    finished = program("train.py", recipe, "--workdir", tmp_path / "run")
    assert finished.code == 0, finished.err
    assert Run.open(tmp_path / "run").metrics_file.read_text() == Run.open(trained).metrics_file.read_text()


def test_its_maps_are_scored_and_shown(mapped):
    metrics = json.loads((mapped / "metrics.json").read_text())
    assert metrics["scored"] == 24
    assert 0 <= metrics["scores"]["peak"]["best"]["miou"] <= 1
    page = (mapped / "index.html").read_text()
    assert "Peak" in page
    assert len(list((mapped / "gallery").rglob("*"))) > 24
    arrays = read_arrays(mapped / "maps" / "scene_00000.npz")
    assert set(arrays) == {"classes", "names", "peak"}


def test_inference_goes_on_where_it_was_stopped(mapped, trained, program, tmp_path):
    out = tmp_path / "peaks"
    assert program("infer.py", "--ckpt", trained, "--out", out, "--limit", 12).code == 0
    few = files_of(out / "maps")
    assert len(few) == 12
    assert program("infer.py", "--ckpt", trained, "--out", out).code == 0
    assert files_of(out / "seeds").keys() == files_of(mapped / "seeds").keys()
    assert few.items() <= files_of(out / "maps").items()


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("evaluate", "RECIPE", "--predictions", "MAPS"), "metrics.json"),
        (("seeds", "--maps", "MAPS", "--threshold", "best"), "scene_00000.png"),
        (("refine", "--ckpt", "RUN", "--maps", "MAPS", "--limit", "2"), "masks/scene_00000.png"),
        (("export", "--format", "irn", "--maps", "MAPS"), "scene_00000.npy"),
        (("export", "--format", "labelme", "--masks", "MAPS"), "scene_00000.json"),
    ],
)
def test_the_commands_read_what_it_wrote(words, result, mapped, trained, recipe, program, tmp_path):
    places = {"RECIPE": recipe, "MAPS": mapped, "RUN": trained}
    finished = program("lpcam_jax.__main__", *(places.get(word, word) for word in words), "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert (tmp_path / "out" / result).stat().st_size


def test_what_it_does_not_have_is_one_line(trained, recipe, program, tmp_path):
    finished = program("train.py", recipe, "--workdir", tmp_path / "run", "--stages", "prototypes")
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "it has peak" in finished.err
    finished = program("infer.py", "--ckpt", trained, "--maps", tmp_path, "--out", tmp_path / "out")
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "python -m lpcam_jax refine" in finished.err


def test_without_its_package_its_run_says_what_is_missing(trained, program, tmp_path, monkeypatch):
    monkeypatch.delitem(registry._SYSTEMS, "peak")
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out")
    assert finished.code == 2
    assert "'peak'" in finished.err
