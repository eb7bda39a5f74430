"""From heat maps to pseudo masks by the command line: CRF, random walk, saliency; and IRNet's training before it."""

import json

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.masks import read_mask
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.training.run import Run

# The first scenes that `mapped` has maps of.
FEW = ("--limit", "6")


@pytest.fixture(scope="module")
def walked(program, irn_trained, mapped, tmp_path_factory):
    """Pseudo masks by the random walk, and what infer.py printed."""
    out = tmp_path_factory.mktemp("pseudo") / "walked"
    finished = program("infer.py", "--ckpt", irn_trained, "--maps", mapped[0], "--out", out)
    assert finished.code == 0, finished.err
    return out, finished.out


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


def test_without_refinement_there_are_only_seeds(program, trained, mapped, tmp_path):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "maps", "--refine", "none", *FEW)
    assert finished.code == 0, finished.err
    assert not (tmp_path / "maps" / "pseudo_masks").exists()
    assert "pseudo masks" not in finished.out.replace("pseudo_masks/", "")
    for name, seed in masks_in(tmp_path / "maps" / "seeds").items():
        np.testing.assert_array_equal(seed, masks_in(mapped[0] / "seeds")[name])


@pytest.mark.parametrize(("refine", "folder"), [("crf", "pseudo_masks"), ("none", "seeds")])
def test_maps_that_are_there_are_refined_to_the_same_masks(program, trained, mapped, tmp_path, refine, folder):
    words = ("--ckpt", trained, "--maps", mapped[0], "--out", tmp_path / "out", "--refine", refine)
    finished = program("infer.py", *words)
    assert finished.code == 0, finished.err
    found, expected = masks_in(tmp_path / "out" / "masks"), masks_in(mapped[0] / folder)
    assert found.keys() == expected.keys()
    differ = np.mean([np.mean(found[name] != expected[name]) for name in expected])
    assert differ < 2e-3  # the maps are stored as float16
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    again = program("infer.py", *words)
    assert "pseudo masks:" not in again.err  # no picture is done twice
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_sure_labels_are_classes_of_the_picture_background_or_unsure(irn_trained, mapped):
    labels = masks_in(irn_trained / "labels")
    assert labels.keys() == masks_in(mapped[0] / "seeds").keys()
    for name, label in labels.items():
        assert set(np.unique(label)) <= {0, 255} | classes_of(mapped[0], name)
    counts = sum(np.bincount(label.reshape(-1), minlength=256) for label in labels.values())
    assert counts[0]
    assert counts[255]


def test_irnet_trains_and_does_nothing_when_it_is_done(program, irn_trained, irn_recipe, mapped, trained):
    run = Run.open(irn_trained)
    assert run.kind == "irn"
    assert run.steps() == [4, 6]
    log = run.metrics_file.read_bytes()
    losses = [json.loads(line)["loss"] for line in log.splitlines()]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    words = ("--data.maps", mapped[0], "--model.weights", trained, "--workdir", irn_trained)
    again = program("train.py", irn_recipe, *words)
    assert again.code == 0, again.err
    assert f"--ckpt {irn_trained} --out pseudo_masks/ --maps {mapped[0]}" in again.out
    assert run.metrics_file.read_bytes() == log


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
    from lpcam_jax.commands import seeds

    seeds.main([str(word) for word in words[1:]])
    for name, mask in masks_in(walked[0] / "masks").items():
        assert np.mean(read_mask(tmp_path / "seeds" / f"{name}.png") != mask) < 5e-3


def test_saliency_decides_where_no_class_is_certain(program, trained, mapped, tmp_path):
    saliency, seeds = tmp_path / "saliency", masks_in(mapped[0] / "seeds")
    saliency.mkdir()
    for name, seed in seeds.items():
        grey = np.zeros(seed.shape, np.uint8)
        grey[: seed.shape[0] // 2] = 255
        Image.fromarray(grey).save(saliency / f"{name}.png")
    words = ("--ckpt", trained, "--maps", mapped[0], "--out", tmp_path / "out", "--saliency", saliency, *FEW)
    finished = program("infer.py", *words)
    assert finished.code == 0, finished.err
    masks = masks_in(tmp_path / "out" / "masks")
    assert len(masks) == 6
    objects = []
    for name, mask in masks.items():
        assert set(np.unique(mask)) <= {0} | classes_of(mapped[0], name)
        objects.append([(half != 0).mean() for half in np.split(mask, [mask.shape[0] // 2])])
    above, below = np.mean(objects, axis=0)  # where all is salient, and where only a certain class is shown
    assert below < above - 0.1
    protocol = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert protocol["saliency"] is True
    assert protocol["background"] is None


def test_what_cannot_be_refined_ends_with_one_line(program, trained, irn_trained, mapped, irn_recipe, tmp_path):
    def line_of(*words):
        finished = program(*words)
        assert finished.code == 2, finished.err
        return finished.err.strip().splitlines()[-1]

    out = ("--out", tmp_path / "out")
    assert "is no run of IRNet; train IRNet" in line_of("infer.py", "--ckpt", trained, *out, "--refine", "irn")
    line = line_of("infer.py", "--ckpt", irn_trained, *out, "--saliency", tmp_path)
    assert "goes with --refine crf, not with irn" in line
    words = ("infer.py", "--ckpt", trained, "--maps", mapped[0], *out)
    assert "no such folder of saliency maps" in line_of(*words, "--saliency", tmp_path / "none")
    assert "no such folder of predictions" in line_of("infer.py", "--ckpt", trained, "--maps", tmp_path / "no", *out)
    assert "has no maps 'grad'" in line_of(*words, "--inference.method", "grad")
    train = ("train.py", irn_recipe, "--workdir", tmp_path / "run")
    assert "name the folder that infer.py wrote with --data.maps" in line_of(*train)
    train += ("--data.maps", mapped[0])
    assert "give a multiple of 4 that is at least 32" in line_of(*train, "--training.crop", "30")
    # The labels of that attempt are kept, and are not mixed with others.
    assert "holds labels of another model or protocol" in line_of(*train, "--labels.foreground", "0.5")


def test_maps_of_other_pictures_are_told_by_their_size(program, trained, mapped, tmp_path):
    (tmp_path / "maps").mkdir()
    source = read_arrays(sorted((mapped[0] / "maps").glob("*.npz"))[0])
    name = sorted((mapped[0] / "maps").glob("*.npz"))[0].name
    np.savez(tmp_path / "maps" / name, classes=source["classes"], lpcam=source["lpcam"][:, :-3])
    finished = program("infer.py", "--ckpt", trained, "--maps", tmp_path / "maps", "--out", tmp_path / "out")
    assert finished.code == 2
    assert "the maps are" in finished.err
    assert "Traceback" not in finished.err
