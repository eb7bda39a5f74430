"""Pseudo masks that come with heat maps, and those of IRN: its labels, its random walk, what it refuses.

Those that python -m lpcam_jax refine makes: test_refine_command.py.
"""

import json
import shutil

import numpy as np
import pytest
from test_commands import assert_one_line_error

from lpcam_jax.data.masks import read_mask
from lpcam_jax.machine.files import read_arrays


@pytest.fixture(scope="module")
def walked(tiny_runs):
    """Pseudo masks by the random walk, and what infer.py printed; look, do not touch."""
    return tiny_runs.results("irn")


def masks_in(directory):
    return {file.stem: read_mask(file) for file in sorted(directory.glob("*.png"))}


def classes_of(directory, name):
    return set(read_arrays(directory / "maps" / f"{name}.npz")["classes"] + 1)


def test_heat_maps_come_with_pseudo_masks_that_are_scored_and_shown(mapped):
    directory, printed = mapped
    refined = masks_in(directory / "pseudo_masks")
    assert refined.keys() == masks_in(directory / "seeds").keys()
    for name, mask in refined.items():
        assert set(np.unique(mask)) <= {0} | classes_of(directory, name)
        assert (directory / "gallery" / "refined" / f"{name}.png").exists()
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["protocol"]["refine"] == "crf"
    assert f"pseudo masks, LPCAM at 0.3 and CRF: {100 * metrics['pseudo_masks']['miou']:.1f}" in printed
    assert '"key": "refined"' in (directory / "index.html").read_text().replace('"key":"', '"key": "')


def test_sure_labels_are_classes_of_the_picture_background_or_unsure(irn_trained, mapped):
    labels = masks_in(irn_trained / "labels")
    assert labels.keys() == masks_in(mapped[0] / "seeds").keys()
    for name, label in labels.items():
        assert set(np.unique(label)) <= {0, 255} | classes_of(mapped[0], name)
    counts = sum(np.bincount(label.reshape(-1), minlength=256) for label in labels.values())
    assert counts[0]
    assert counts[255]


def test_random_walk_writes_masks_maps_scores_and_a_page(walked, mapped):
    directory, printed = walked
    masks = masks_in(directory / "masks")
    assert masks.keys() == masks_in(mapped[0] / "seeds").keys()
    for name, mask in masks.items():
        arrays = read_arrays(directory / "maps" / f"{name}.npz")
        assert arrays["irn"].shape == (len(arrays["classes"]), *mask.shape)
        assert arrays["irn"].min() >= 0
        if len(arrays["classes"]):
            assert arrays["irn"].max() == 1  # one scale for all classes of the picture
        expected = np.zeros(mask.shape, int)
        above = arrays["irn"].astype(np.float32).max(axis=0, initial=0) > 0.35
        expected[above] = (arrays["classes"] + 1)[arrays["irn"].argmax(axis=0)[above]] if above.any() else 0
        assert np.mean(mask != expected) < 5e-3
    metrics = json.loads((directory / "metrics.json").read_text())
    protocol = metrics["protocol"]
    assert (protocol["refine"], protocol["method"], protocol["background"]) == ("irn", "lpcam", 0.35)
    assert (protocol["radius"], protocol["beta"], protocol["steps"]) == (5, 10, 256)
    assert protocol["maps"]["model"] == json.loads((mapped[0] / "protocol.json").read_text())["model"]
    assert "irn" in metrics["maps"]["scores"]
    assert "The pseudo masks, cut at 0.35:" in printed
    assert (directory / "index.html").exists()


def test_maps_after_the_walk_are_maps_for_every_other_tool(program, walked, tmp_path):
    words = ("seeds", "--maps", walked[0], "--method", "irn", "--threshold", "0.35", "--out", tmp_path / "seeds")
    assert program("lpcam_jax.__main__", *words).code == 0
    for name, mask in masks_in(walked[0] / "masks").items():
        assert np.mean(read_mask(tmp_path / "seeds" / f"{name}.png") != mask) < 5e-3


def test_heat_maps_of_another_folder_are_walked_too(program, irn_trained, mapped, tmp_path):
    maps = shutil.copytree(mapped[0], tmp_path / "maps")
    words = ("--maps", maps, "--out", tmp_path / "out", "--inference.method", "cam", "--inference.background", 0.5)
    finished = program("infer.py", "--ckpt", irn_trained, *words, "--limit", 2)
    assert finished.code == 0, finished.err
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert (protocol["method"], protocol["background"]) == ("cam", 0.5)
    assert len(masks_in(tmp_path / "out" / "masks")) == 2


def test_what_irn_refuses_ends_with_one_line(program, irn_trained, mapped, irn_recipe, tmp_path):
    infer = ("infer.py", "--ckpt", irn_trained, "--out", tmp_path / "out")
    assert_one_line_error(program(*infer, "--maps", tmp_path / "no"), "no such folder of predictions")
    assert_one_line_error(program(*infer, "--inference.method", "grad"), "has no maps 'grad'")
    train = ("train.py", irn_recipe, "--workdir", tmp_path / "run")
    line = "IRNet is trained from heat maps; name the folder that infer.py wrote with --data.maps"
    assert_one_line_error(program(*train), line)
    train += ("--data.maps", mapped[0], "--limit", 2)
    assert_one_line_error(program(*train, "--training.crop", "30"), "give a multiple of 4 that is at least 16")
    assert_one_line_error(program(*train, "--model.stem-pool", "symmetric_ceil"), "give --model.stem-pool symmetric")
    assert_one_line_error(program(*train, "--labels.foreground", 0.1), "must be the larger one; swap them")
    # The labels of that attempt are kept, and are not mixed with others.
    line = "holds labels of another model or protocol"
    assert_one_line_error(program(*train, "--labels.foreground", "0.5"), line)
