"""lpcam_jax.load of a segmentation network: a run as a function from pictures to masks."""

import shutil

import numpy as np
import pytest
from PIL import Image

import lpcam_jax
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.training.run import Run


@pytest.fixture(scope="module")
def model(tiny_runs):
    return lpcam_jax.load(tiny_runs.run("segmentation").directory)


@pytest.fixture(scope="module")
def source(tiny_runs):
    """The pictures of infer.py."""
    return seed_source(Run.open(tiny_runs.run("segmentation").directory).config)


def test_masks_are_those_that_infer_writes(model, source, tiny_runs):
    folder = tiny_runs.results("segmentation").directory / "masks"
    results = model([source[index].image for index in range(len(source))])
    for index, result in enumerate(results):
        with Image.open(folder / f"{source.ids[index]}.png") as image:
            np.testing.assert_array_equal(result.mask, np.array(image))
        np.testing.assert_array_equal(result.image, source[index].image)
        assert [0, *(1 + result.classes)] == sorted({0, *result.mask.ravel()})
        assert result.names == tuple(model.class_names[n] for n in result.classes)
    assert any(result.names for result in results)


def test_one_picture_of_any_kind_is_that_picture(model, source, tmp_path):
    image = source[0].image
    Image.fromarray(image).save(tmp_path / "scene.png")
    results = [model(image), model(tmp_path / "scene.png"), *model([Image.fromarray(image), image])]
    for result in results:
        assert (result.mask.shape, result.mask.dtype) == (image.shape[:2], np.uint8)
        np.testing.assert_array_equal(result.mask, results[0].mask)
    assert model([]) == []


def test_a_run_that_has_stopped_half_way_says_so(program, tiny_runs, tmp_path, capsys):
    run = shutil.copytree(tiny_runs.run("segmentation").directory, tmp_path / "run")
    lpcam_jax.load(run)
    assert capsys.readouterr() == ("", "")
    shutil.rmtree(run / "checkpoints" / "6")
    lpcam_jax.load(run)
    line = f"note: {run}: step 4 of 6; train.py continues it\n"
    assert capsys.readouterr().err == line
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "out")
    assert (finished.code, finished.err.count(line), finished.out.count("note")) == (0, 1, 0)


def test_what_is_no_picture_and_a_run_that_is_not_finished(model, tmp_path):
    with pytest.raises(UserError, match=r"no_such\.png: no such file"):
        model("no_such.png")
    Run.create(tmp_path, model.config, model.class_names)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        lpcam_jax.load(tmp_path)
