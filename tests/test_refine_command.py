"""python -m lpcam_jax refine: pseudo masks from a folder of heat maps, by a CRF, by saliency, or not refined at all."""

import shutil

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error
from test_evaluate import strictly_parsed, write_maps
from test_pseudo_masks import classes_of, masks_in

from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.training.run import Run

# The first scenes that `mapped` has maps of.
FEW = ("--limit", "6")


@pytest.fixture
def refine(program, mapped, tmp_path):
    """`refine(*words)`: how the command ended; the masks are in tmp_path / "out"."""

    def run(*words, maps=mapped.directory):
        return program("lpcam_jax.__main__", "refine", "--maps", maps, "--out", tmp_path / "out", *words)

    return run


@pytest.fixture
def pictures(trained, tmp_path):
    """A folder of the first two scenes, and their names."""
    source = seed_source(Run.open(trained).config)
    (tmp_path / "my").mkdir()
    for index in range(2):
        Image.fromarray(source[index].image).save(tmp_path / "my" / f"{source.ids[index]}.png")
    return tmp_path / "my", set(source.ids[:2])


@pytest.mark.parametrize(("how", "folder"), [("crf", "pseudo_masks"), ("none", "seeds")])
def test_maps_that_are_there_are_refined_to_the_masks_of_infer(refine, trained, mapped, tmp_path, how, folder):
    finished = refine("--ckpt", trained, "--refine", how)
    assert finished.code == 0, finished.err
    assert f"24 pictures are in {tmp_path / 'out'}: look at index.html, use masks/." in finished.out
    found, expected = masks_in(tmp_path / "out" / "masks"), masks_in(mapped.directory / folder)
    assert found.keys() == expected.keys()
    differ = np.mean([np.mean(found[name] != expected[name]) for name in expected])
    assert differ < 2e-3  # the maps are stored as float16
    metrics = strictly_parsed(tmp_path / "out" / "metrics.json")
    protocol = metrics["protocol"]
    assert (protocol["refine"], protocol["crf"], protocol["saliency"]) == (how, how == "crf", False)
    assert (protocol["method"], protocol["background"]) == ("lpcam", 0.3)
    assert protocol["maps"] == strictly_parsed(mapped.directory / "protocol.json")
    if how == "crf":
        theirs = strictly_parsed(mapped.directory / "metrics.json")["pseudo_masks"]["miou"]
        assert metrics["scores"]["miou"] == pytest.approx(theirs, abs=5e-3)


def test_it_goes_on_where_it_was_stopped(refine, trained, tmp_path):
    words = ("--ckpt", trained, *FEW)
    assert refine(*words).code == 0
    out = tmp_path / "out"
    whole = shutil.copytree(out, tmp_path / "whole")
    first, *others = sorted((out / "masks").iterdir())
    times = [path.stat().st_mtime_ns for path in others]
    first.unlink()
    again = refine(*words)
    assert again.code == 0, again.err
    assert "1/1" in again.err  # of the bar
    assert [path.stat().st_mtime_ns for path in others] == times
    for path in whole.rglob("*"):
        if path.is_file():
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    assert "pseudo masks:" not in refine(*words).err  # no picture is done twice
    assert_one_line_error(refine(*words, "--background", 0.4), "holds masks of another model or protocol")


def test_any_pictures_have_the_classes_that_the_maps_name(refine, trained, pictures, tmp_path):
    folder, names = pictures
    assert refine("--images", folder, "--refine", "none").code == 0
    alone = masks_in(tmp_path / "out" / "masks")
    assert alone.keys() == names
    metrics = strictly_parsed(tmp_path / "out" / "metrics.json")
    assert metrics["protocol"]["class_names"] == list(Run.open(trained).class_names)
    assert "scores" not in metrics
    shutil.rmtree(tmp_path / "out")
    assert refine("--ckpt", trained, "--refine", "none", "--limit", 2).code == 0
    for name, mask in masks_in(tmp_path / "out" / "masks").items():
        np.testing.assert_array_equal(alone[name], mask)


def test_the_method_and_the_threshold_are_chosen(refine, trained, mapped, tmp_path):
    words = ("--ckpt", trained, "--method", "cam", "--background", 0.5, "--refine", "none", "--limit", 2)
    assert refine(*words).code == 0
    protocol = strictly_parsed(tmp_path / "out" / "protocol.json")
    assert (protocol["method"], protocol["background"]) == ("cam", 0.5)
    for name, mask in masks_in(tmp_path / "out" / "masks").items():
        arrays = read_arrays(mapped.directory / "maps" / f"{name}.npz")
        assert ((mask > 0) == (arrays["cam"].astype(np.float32).max(axis=0) > 0.5)).all()


def test_saliency_decides_where_no_class_is_certain(refine, trained, mapped, tmp_path):
    saliency, seeds = tmp_path / "saliency", masks_in(mapped.directory / "seeds")
    saliency.mkdir()
    for name, seed in seeds.items():
        grey = np.zeros(seed.shape, np.uint8)
        grey[: seed.shape[0] // 2] = 255
        Image.fromarray(grey).save(saliency / f"{name}.png")
    finished = refine("--ckpt", trained, "--saliency", saliency, *FEW)
    assert finished.code == 0, finished.err
    masks = masks_in(tmp_path / "out" / "masks")
    assert len(masks) == 6
    objects = []
    for name, mask in masks.items():
        assert set(np.unique(mask)) <= {0} | classes_of(mapped.directory, name)
        objects.append([(half != 0).mean() for half in np.split(mask, [mask.shape[0] // 2])])
    above, below = np.mean(objects, axis=0)  # where all is salient, and where only a certain class is shown
    assert below < above - 0.1
    protocol = strictly_parsed(tmp_path / "out" / "protocol.json")
    assert protocol["saliency"] is True
    assert protocol["background"] is None


def test_what_cannot_be_refined_ends_with_one_line(refine, trained, pictures, tmp_path):
    assert_one_line_error(refine(), "the pictures are missing: give --ckpt, .* or --images")
    run = ("--ckpt", trained)
    assert_one_line_error(refine(*run, "--saliency", tmp_path / "none"), "no such folder of saliency maps")
    line = "goes with --refine crf, not with none"
    assert_one_line_error(refine(*run, "--saliency", tmp_path, "--refine", "none"), line)
    assert_one_line_error(refine(*run, maps=tmp_path / "no"), "no such folder of predictions")
    assert_one_line_error(refine(*run, "--method", "grad"), "has no maps 'grad'")
    write_maps(tmp_path / "theirs" / "scene_00000.npz", classes=np.array([0]), mine=np.zeros((1, 4, 4)))
    line = "does not say its classes .* give --ckpt"
    assert_one_line_error(refine("--images", pictures[0], maps=tmp_path / "theirs"), line)
    assert_one_line_error(refine(*run, maps=tmp_path / "theirs"), "the maps are .*, the picture .*")
    assert not (tmp_path / "out" / "masks").exists()


@pytest.mark.parametrize("words", [("--maps", "heatmaps/"), ("--maps=heatmaps/", "--refine", "crf")])
def test_infer_names_the_command_for_maps_that_its_run_has_nothing_to_do_with(program, trained, tmp_path, words):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", *words)
    line = f"--maps heatmaps/: a run of kind classifier has no flag --maps; .* refine --ckpt {trained} --maps DIR"
    assert_one_line_error(finished, line)
    assert not (tmp_path / "out").exists()


def test_infer_names_the_command_for_a_refinement_that_its_run_does_not_have(program, irn_trained, tmp_path):
    finished = program("infer.py", "--ckpt", irn_trained, "--out", tmp_path / "out", "--refine", "crf")
    assert_one_line_error(finished, "--refine crf: a run of kind irn has no flag --refine; .* -m lpcam_jax refine")
