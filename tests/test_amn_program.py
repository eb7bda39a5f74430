"""AMN by the command line: training from heat maps, better heat maps, and what is made of those."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_commands import assert_one_line_error, picture

from lpcam_jax.data.masks import read_mask
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

# Six training steps, checkpoints at 2, 4 and 6, of which the last two stay.
RECIPE = """
from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig, AMNInference, AMNModel, AMNTraining

def get_config():
    return AMNConfig(
        data=Data(source="shapes", scenes=24),
        model=AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=4, rates=(1, 2)),
        training=AMNTraining(
            epochs=2, batch_size=8, crop=64, scale_range=(1.0, 1.5), learning_rate=1e-3, head_multiplier=10.0,
            checkpoint_every=2,
        ),
        inference=AMNInference(scales=(1.0, 0.5), max_shapes=2),
    )
"""
# The first scenes that `mapped` has maps of.
FEW = ("--limit", "4")


@pytest.fixture(scope="module")
def amn_recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny_amn.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def words(amn_recipe, mapped, trained) -> tuple:
    """Of train.py; --workdir is missing."""
    return "train.py", amn_recipe, "--data.maps", mapped[0], "--model.weights", trained


@pytest.fixture(scope="module")
def amn_trained(program, words, tmp_path_factory) -> Path:
    """A finished run on the backbone of `trained`; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "amn"
    finished = program(*words, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir


@pytest.fixture(scope="module")
def activated(program, amn_trained, tmp_path_factory) -> tuple[Path, str]:
    """AMN's heat maps of all pictures, and what infer.py printed; look, do not touch."""
    out = tmp_path_factory.mktemp("heatmaps") / "amn"
    finished = program("infer.py", "--ckpt", amn_trained, "--out", out)
    assert finished.code == 0, finished.err
    return out, finished.out


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_amn_trains_and_does_nothing_when_it_is_done(program, amn_trained, words, mapped):
    run = Run.open(amn_trained)
    assert run.kind == "amn"
    assert run.steps() == [4, 6]
    log = run.metrics_file.read_bytes()
    losses = [json.loads(line)["loss"] for line in log.splitlines()]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert files_of(amn_trained / "labels").keys() == files_of(mapped[0] / "seeds").keys() | {"protocol.json"}
    again = program(*words, "--workdir", amn_trained)
    assert again.code == 0, again.err
    assert f"--ckpt {amn_trained} --out heatmaps_amn/ --maps {mapped[0]}" in again.out
    assert run.metrics_file.read_bytes() == log


def test_a_resumed_run_ends_with_the_same_bits(program, amn_trained, words, mesh, tmp_path):
    resumed = shutil.copytree(amn_trained, tmp_path / "run")
    shutil.rmtree(resumed / "checkpoints" / "6")
    assert program(*words, "--workdir", resumed).code == 0
    one, other = (trained_state(Run.open(folder), devices=mesh) for folder in (amn_trained, resumed))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (resumed / "metrics.jsonl").read_bytes() == (amn_trained / "metrics.jsonl").read_bytes()


def test_the_stem_stays_and_everything_else_learns(amn_trained, trained, mesh):
    before, after = (trained_state(Run.open(folder), devices=mesh) for folder in (trained, amn_trained))
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(before.parameters["backbone"]),
        jax.tree.leaves(after.parameters["backbone"]),
        strict=True,
    ):
        assert (np.asarray(one) == other).all() == (path[0].key in ("conv1", "bn1")), path


def test_heat_maps_stand_beside_those_they_start_from(activated, amn_trained, mapped):
    directory, printed = activated
    for path in (mapped[0] / "maps").iterdir():
        before, after = read_arrays(path), read_arrays(directory / "maps" / path.name)
        assert set(after) == {"classes", "names", "lpcam", "amn"}
        for name in ("classes", "names", "lpcam"):
            np.testing.assert_array_equal(after[name], before[name])
        maps, label = after["amn"], read_mask(amn_trained / "labels" / f"{path.stem}.png")
        assert (maps.shape, maps.dtype) == (before["lpcam"].shape, np.float16)
        assert (maps >= 0).all()
        assert (maps <= 1).all()
        # Probabilities of background pixels are as they were: those of several classes are at most 1 together.
        assert maps.astype(float).sum(axis=0)[label == 0].max(initial=0) < 1.001
    metrics = json.loads((directory / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["lpcam", "amn"]
    assert metrics["scores"]["lpcam"] == json.loads((mapped[0] / "metrics.json").read_text())["scores"]["lpcam"]
    assert "AMN against LPCAM on 24 pictures" in printed
    assert "mIoU of the pseudo masks, AMN at 0.25 and CRF" in printed
    assert f"24 pictures are in {directory}: look at index.html, use pseudo_masks/ and maps/." in printed
    protocol = metrics["protocol"]
    assert (protocol["background"], protocol["scales"], protocol["step"]) == (0.25, [1.0, 0.5], 6)
    assert protocol["labels"]["maps"]["model"] == json.loads((mapped[0] / "protocol.json").read_text())["model"]


def test_a_folder_has_what_a_classifier_s_has_but_its_prototypes(activated, mapped):
    names = {path.name for path in mapped[0].iterdir()} - {"prototypes", "prototypes.html"}
    assert {path.name for path in activated[0].iterdir()} == names
    for kind in ("maps", "seeds", "pseudo_masks", "overlays"):
        assert files_of(activated[0] / kind).keys() == files_of(mapped[0] / kind).keys()
    page = (activated[0] / "index.html").read_text().replace('":"', '": "')
    assert '"rank": "amn", "against": "lpcam"' in page.replace('","', '", "')


def test_a_stop_loses_nothing_and_a_map_is_made_again(program, amn_trained, activated, mapped, tmp_path):
    copy = shutil.copytree(activated[0], tmp_path / "copy")
    first, *others = sorted((copy / "maps").iterdir())
    before, times = files_of(copy / "maps"), [path.stat().st_mtime_ns for path in others]
    first.unlink()
    finished = program("infer.py", "--ckpt", amn_trained, "--maps", mapped[0], "--out", copy)
    assert finished.code == 0, finished.err
    assert [path.stat().st_mtime_ns for path in others] == times
    assert files_of(copy / "maps") == before


def test_labels_that_the_run_did_not_keep_are_made_again(program, amn_trained, activated, mapped, tmp_path):
    run = shutil.copytree(amn_trained, tmp_path / "run")
    shutil.rmtree(run / "labels")
    words = ("--maps", mapped[0], "--out", tmp_path / "out", "--refine", "none", *FEW)
    finished = program("infer.py", "--ckpt", run, *words)
    assert finished.code == 0, finished.err
    assert not (tmp_path / "out" / "pseudo_masks").exists()
    found, expected = (files_of(folder / "maps") for folder in (tmp_path / "out", activated[0]))
    assert len(found) == 4
    for name, content in found.items():
        assert content == expected[name]


def test_other_programs_take_the_heat_maps(program, activated, amn_recipe, irn_recipe, trained, tmp_path):
    words = (amn_recipe, "--predictions", activated[0], "--out", tmp_path / "scores")
    finished = program("lpcam_jax.__main__", "evaluate", *words)
    assert finished.code == 0, finished.err
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "scores", activated[0])]
    assert scores[0]["scores"] == scores[1]["scores"]

    words = ("--maps", activated[0], "--threshold", "0.25", "--out", tmp_path / "seeds")
    assert program("lpcam_jax.__main__", "seeds", *words).code == 0
    for name in ("scene_00000.png", "scene_00001.png"):
        seeds = [read_mask(folder / name) for folder in (tmp_path / "seeds", activated[0] / "seeds")]
        assert np.mean(seeds[0] != seeds[1]) < 5e-3

    words = ("--ckpt", trained, "--maps", activated[0], "--out", tmp_path / "crf", *FEW)
    assert program("infer.py", *words).code == 0
    assert json.loads((tmp_path / "crf" / "protocol.json").read_text())["method"] == "amn"

    words = ("--data.maps", activated[0], "--labels.method", "amn", "--labels.background", "0.15", "--stages", "labels")
    finished = program("train.py", irn_recipe, *words, "--workdir", tmp_path / "irn", *FEW)
    assert finished.code == 0, finished.err
    assert len(files_of(tmp_path / "irn" / "labels")) == 5


def test_pictures_without_labels_have_the_classes_of_their_maps(program, amn_trained, tmp_path):
    picture(tmp_path / "images" / "0.png")
    maps = np.random.default_rng(0).random((2, 40, 60), np.float32)
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "0.npz", classes=[1, 4], mine=maps)  # of somebody else
    words = ("--images", tmp_path / "images", "--maps", tmp_path / "maps", "--inference.method", "mine")
    finished = program(
        *("infer.py", "--ckpt", amn_trained, "--out", tmp_path / "out", *words),
        *("--inference.scales", 1.0, "--refine", "none"),
    )
    assert finished.code == 0, finished.err
    arrays = read_arrays(tmp_path / "out" / "maps" / "0.npz")
    assert arrays["classes"].tolist() == [1, 4]
    assert arrays["amn"].shape == arrays["mine"].shape == maps.shape
    assert "look at index.html, use seeds/ and maps/." in finished.out


def test_what_cannot_be_done_ends_with_one_line(program, amn_recipe, amn_trained, words, mapped, tmp_path):
    run, out = ("--workdir", tmp_path / "run"), ("--out", tmp_path / "out")
    line = "AMN is trained from heat maps; name the folder that infer.py wrote with --data.maps DIR"
    assert_one_line_error(program("train.py", amn_recipe, *run), line)
    assert_one_line_error(program(*words, *run, "--stages", "irnet"), "no stage 'irnet'; it has labels, amn")
    assert_one_line_error(program(*words, *run, "--training.smoothing", "1"), "smoothing is 1; give a share")
    assert_one_line_error(program(*words, *run, "--labels.method", "grad"), "has no maps 'grad'; it has cam, lpcam_f")
    infer = ("infer.py", "--ckpt", amn_trained, *out)
    assert_one_line_error(program(*infer, "--refine", "irn"), "is no run of IRNet; train IRNet on its heat maps")
    assert_one_line_error(program(*infer, "--maps", tmp_path / "none"), "no such folder of predictions")
    assert_one_line_error(program(*infer, "--inference.scales"), "give at least one scale")
    assert not (tmp_path / "out" / "maps").exists()
    other = ("infer.py", "--ckpt", amn_trained, "--out", mapped[0])
    assert_one_line_error(program(*other), "holds heat maps of another model or protocol")


def test_maps_of_other_pictures_are_told_by_their_size_and_their_classes(program, amn_trained, mapped, tmp_path):
    path = sorted((mapped[0] / "maps").glob("*.npz"))[0]
    arrays = read_arrays(path)
    (tmp_path / "maps").mkdir()
    words = ("infer.py", "--ckpt", amn_trained, "--maps", tmp_path / "maps", "--out", tmp_path / "out")
    for changed, line in (
        ({"lpcam": arrays["lpcam"][:, :-3]}, "the maps are .*, the picture .* name the folder of maps"),
        ({"classes": arrays["classes"] + 6}, r"has a map of class \d+, but the data set has 0\.\.5"),
    ):
        kept = {name: arrays[name] for name in ("classes", "lpcam")}
        np.savez(tmp_path / "maps" / path.name, **kept | changed)
        assert_one_line_error(program(*words), line)
