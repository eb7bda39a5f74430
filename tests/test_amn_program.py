"""AMN by the command line: what it learns, what its heat maps are, what is made of those, what it refuses."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_commands import assert_one_line_error, picture

from lpcam_jax.data.masks import read_mask
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.data.sources import training_source
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.results.predictions import open_method
from lpcam_jax.systems.sure_labels import kept_labels, labels_protocol
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

# The first scenes that `mapped` has maps of.
FEW = ("--limit", "4")


@pytest.fixture(scope="module")
def amn_recipe(tiny_runs) -> str:
    return tiny_runs.recipe("amn")


@pytest.fixture(scope="module")
def words(tiny_runs) -> list[str]:
    """Of train.py; --workdir is missing."""
    return tiny_runs.words("amn")


@pytest.fixture(scope="module")
def amn_trained(tiny_runs) -> Path:
    """A finished run on the backbone of `trained`; look, do not touch."""
    return tiny_runs.run("amn").directory


@pytest.fixture(scope="module")
def activated(tiny_runs):
    """AMN's heat maps of all pictures, and what infer.py printed; look, do not touch."""
    return tiny_runs.results("amn")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_picture_with_maps_has_a_label(amn_trained, mapped):
    others = {"protocol.json", "origins.0.jsonl"}
    assert files_of(amn_trained / "labels").keys() == files_of(mapped[0] / "seeds").keys() | others


def test_labels_of_training_are_used_for_their_own_pictures_alone(amn_trained, mapped, tmp_path):
    run = Run.open(amn_trained)
    config, pictures, maps = run.config, training_source(run.config), open_method(mapped[0], "lpcam")
    protocol = labels_protocol(config.labels, maps, mapped[0])
    kept = kept_labels(run, protocol, pictures, maps)
    for index in (0, 3):
        np.testing.assert_array_equal(kept(index), read_mask(amn_trained / "labels" / f"{pictures.ids[index]}.png"))
    assert kept_labels(run, protocol | {"foreground": 0.9}, pictures, maps)(0) is None
    others = Shapes(len(pictures), seed=99)  # of the same names
    assert others.ids[0] == pictures.ids[0]
    assert kept_labels(run, protocol, others, maps)(0) is None
    copied = shutil.copytree(maps.directory, tmp_path / "maps")
    other_maps = open_method(copied, "lpcam")
    assert kept_labels(run, protocol, pictures, other_maps)(0) is not None  # the same, elsewhere
    shutil.copy(copied / f"{pictures.ids[1]}.npz", copied / f"{pictures.ids[0]}.npz")
    assert kept_labels(run, protocol, pictures, other_maps)(0) is None


def test_train_says_how_to_use_it(tiny_runs, mapped):
    run = tiny_runs.run("amn")
    assert f"--ckpt {run.directory} --out heatmaps_amn/ --maps {mapped[0]}" in run.out


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


def test_other_programs_take_the_heat_maps(program, activated, irn_recipe, trained, tmp_path):
    words = ("--maps", activated[0], "--threshold", "0.25", "--out", tmp_path / "seeds")
    assert program("lpcam_jax.__main__", "seeds", *words).code == 0
    for name in ("scene_00000.png", "scene_00001.png"):
        seeds = [read_mask(folder / name) for folder in (tmp_path / "seeds", activated[0] / "seeds")]
        assert np.mean(seeds[0] != seeds[1]) < 5e-3

    words = ("--ckpt", trained, "--maps", activated[0], "--out", tmp_path / "crf", "--refine", "none", *FEW)
    assert program("lpcam_jax.__main__", "refine", *words).code == 0
    assert json.loads((tmp_path / "crf" / "protocol.json").read_text())["method"] == "amn"

    words = ("--data.maps", activated[0], "--labels.method", "amn", "--labels.background", "0.15", "--stages", "labels")
    finished = program("train.py", irn_recipe, *words, "--workdir", tmp_path / "irn", *FEW)
    assert finished.code == 0, finished.err
    assert len(list((tmp_path / "irn" / "labels").glob("*.png"))) == 4


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


def test_what_cannot_be_done_ends_with_one_line(program, amn_recipe, amn_trained, words, tmp_path):
    run, out = ("--workdir", tmp_path / "run"), ("--out", tmp_path / "out")
    line = "AMN is trained from heat maps; name the folder that infer.py wrote with --data.maps DIR"
    assert_one_line_error(program("train.py", amn_recipe, *run), line)
    assert_one_line_error(program(*words, *run, "--training.smoothing", "1"), "smoothing is 1; give a share")
    assert_one_line_error(program(*words, *run, "--labels.method", "grad"), "has no maps 'grad'; it has cam, lpcam_f")
    infer = ("infer.py", "--ckpt", amn_trained, *out)
    assert_one_line_error(program(*infer, "--maps", tmp_path / "none"), "no such folder of predictions")
    assert_one_line_error(program(*infer, "--inference.scales"), "give at least one scale")
    assert not (tmp_path / "out" / "maps").exists()


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
