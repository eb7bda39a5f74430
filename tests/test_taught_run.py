"""A run with LPCAM-T: what it has more than another, and what it leaves as it is."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error
from test_prototype_page import embedded

import lpcam_jax
from lpcam_jax.data.records import Subset
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.lpcam.maps import METHODS
from lpcam_jax.systems.lpcam.teaching_stage import teach_directions
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = pytest.mark.rest


@pytest.fixture(scope="module")
def taught_run(program, recipe, trained, tmp_path_factory):
    """The run of the tiny recipe, its directions taught by eight pictures, and what train.py said."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "taught")
    finished = program("train.py", recipe, "--workdir", workdir, "--prototypes.taught", 8)
    assert finished.code == 0, finished.err
    return workdir, finished.err + finished.out


@pytest.fixture(scope="module")
def taught_maps(program, taught_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("heatmaps") / "taught"
    finished = program("infer.py", "--ckpt", taught_run[0], "--out", out, "--refine", "none")
    assert finished.code == 0, finished.err
    return out, finished.out


def arrays_of(file) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def test_the_prototypes_are_those_of_the_paper_and_the_classifier_is_not_trained_again(taught_run, trained):
    workdir, said = taught_run
    assert "teaching: 8 pictures" in said
    assert "classifier" not in said
    taught, plain = (load_prototypes(Run.open(folder)) for folder in (workdir, trained))
    for found, expected in zip(taught[:4], plain[:4], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert plain.taught is None
    np.testing.assert_allclose(np.linalg.norm(taught.taught, axis=1), 1, atol=1e-5)


def test_the_same_command_has_nothing_to_do(program, recipe, taught_run):
    before = (taught_run[0] / "prototypes.npz").read_bytes()
    finished = program("train.py", recipe, "--workdir", taught_run[0], "--prototypes.taught", 8)
    assert finished.code == 0
    assert "teaching" not in finished.err
    assert (taught_run[0] / "prototypes.npz").read_bytes() == before


@pytest.mark.parametrize("teachers", [["affinity"], ["crf", "affinity"]])
def test_other_teachers_make_other_directions(program, recipe, taught_run, tmp_path, teachers):
    workdir = shutil.copytree(taught_run[0], tmp_path / "run")
    words = ("--workdir", workdir, "--prototypes.taught", 8, "--prototypes.teachers", *teachers)
    finished = program("train.py", recipe, *words)
    assert finished.code == 0, finished.err
    # A bar may draw its last state twice, but ends its line once.
    rounds = [line for line in finished.err.split("\n") if "teaching: 100%" in line]
    assert len(rounds) == len(teachers)
    ours, before = (load_prototypes(Run.open(folder)) for folder in (workdir, taught_run[0]))
    np.testing.assert_array_equal(ours.class_centres, before.class_centres)
    np.testing.assert_allclose(np.linalg.norm(ours.taught, axis=1), 1, atol=1e-5)
    assert np.abs(ours.taught - before.taught).max() > 1e-3


def test_seeds_at_another_threshold_teach_other_directions(program, recipe, taught_run, tmp_path):
    workdir = shutil.copytree(taught_run[0], tmp_path / "run")
    words = ("--workdir", workdir, "--prototypes.taught", 8, "--inference.background", 0.6)
    assert "teaching: 100%" in program("train.py", recipe, *words).err
    assert "teaching" not in program("train.py", recipe, *words).err
    ours, before = (load_prototypes(Run.open(folder)) for folder in (workdir, taught_run[0]))
    assert np.abs(ours.taught - before.taught).max() > 1e-3


def test_there_is_a_teacher(program, recipe, tmp_path):
    words = ("--workdir", tmp_path / "run", "--prototypes.taught", 8, "--prototypes.teachers")
    finished = program("train.py", recipe, *words)
    assert finished.code == 2
    assert "Traceback" not in finished.err
    finished = program("train.py", recipe, "--workdir", tmp_path / "run", "--prototypes.teachers", "affinity")
    assert_one_line_error(
        finished, "--prototypes.teachers affinity is for LPCAM-T; ask for it with --prototypes.taught"
    )


def test_its_maps_stand_beside_the_others_and_seeds_are_cut_from_them(taught_maps, mapped):
    out, printed = taught_maps
    names = {path.name for path in (mapped[0] / "maps").iterdir()}
    assert {path.name for path in (out / "maps").iterdir()} == names
    moved = 0
    for name in names:
        ours, plain = arrays_of(out / "maps" / name), arrays_of(mapped[0] / "maps" / name)
        for method in METHODS:
            np.testing.assert_allclose(ours[method], plain[method], atol=2e-3)
        moved += np.abs(ours["taught"].astype(float) - ours["lpcam"]).max() > 0.01
    assert moved
    assert "LPCAM-T against LPCAM" in printed
    assert "pseudo masks" not in printed.replace("pseudo_masks/", "")
    assert not (out / "pseudo_masks").exists()
    assert len(list((out / "seeds").iterdir())) == len(names)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["scores"]) == [*METHODS, "taught"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "seed of LPCAM-T" in page
    assert "seed of LPCAM-T" not in (mapped[0] / "index.html").read_text(encoding="utf-8")


def test_its_page_of_prototypes_and_its_folder_go_on_with_them(program, taught_maps, tmp_path):
    out, _ = taught_maps
    classes = embedded((out / "prototypes.html").read_text(encoding="utf-8"))["classes"]
    shown = {tuple(one["title"] for one in picture["maps"]) for of_class in classes for picture in of_class["pictures"]}
    assert shown == {("CAM", "LPCAM", "LPCAM-T")}
    finished = program("lpcam_jax.__main__", "seeds", "--maps", out, "--out", tmp_path)
    assert finished.code == 0, finished.err
    assert "seed masks of taught" in finished.out
    same = []
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as ours, Image.open(out / "seeds" / path.name) as theirs:
            same.append(np.asarray(ours) == np.asarray(theirs))
    assert np.concatenate([one.ravel() for one in same]).mean() > 0.999  # stored maps are rounded to float16


def test_where_none_of_the_chosen_pictures_can_be_read_that_is_said(trained, mesh):
    class Gone(Subset):
        def size(self, index):
            raise UserError(f"{self.ids[index]} is gone")

    run = Run.open(trained)
    run.config = replace(run.config, prototypes=replace(run.config.prototypes, taught=3))
    source = seed_source(run.config)
    gone, state = Gone(source, range(len(source))), trained_state(run, devices=mesh)
    with pytest.raises(UserError, match="none of the pictures to learn from could be read"):
        teach_directions(run, state, load_prototypes(run), gone, devices=mesh)


def test_a_notebook_gets_them_too(taught_run, taught_maps):
    model = lpcam_jax.load(taught_run[0])
    result = model(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8), classes=model.class_names[0])
    assert list(result.maps) == [*METHODS, "taught"]
    assert result.maps["taught"].shape == (60, 80, 1)
