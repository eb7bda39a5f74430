"""From a folder of masks to a segmentation network to its masks: what is special to it, and what it refuses."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error, picture
from test_gallery import curve_in, embedded
from test_heatmaps import scores_by_hand, strictly_parsed

from lpcam_jax.config import Data
from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.report.gallery import layer_file
from lpcam_jax.report.overlays import jpeg, mask_panel
from lpcam_jax.report.palette import class_palette, mask_png
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabInference, DeepLabModel, DeepLabTraining
from lpcam_jax.systems.protocol import model_protocol
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state


@pytest.fixture(scope="module")
def scenes(segmentation_recipe):
    return seed_source(replace(load_recipe(segmentation_recipe), data=Data(source="shapes", scenes=16)))


@pytest.fixture(scope="module")
def seeds(scenes, tmp_path_factory):
    """Masks of the scenes but the first two."""
    folder = tmp_path_factory.mktemp("segmentation") / "seeds"
    folder.mkdir()
    for index in range(2, len(scenes)):
        (folder / f"{scenes.ids[index]}.png").write_bytes(mask_png(scenes[index].mask))
    return folder


@pytest.fixture(scope="module")
def segmenter(tiny_runs):
    """A finished run, trained on pseudo masks, and what train.py printed; look, do not touch."""
    return tiny_runs.run("segmentation")


@pytest.fixture(scope="module")
def segmented(tiny_runs):
    """The masks of the finished run, and what infer.py printed; look, do not touch."""
    return tiny_runs.results("segmentation")


@pytest.fixture
def copy(segmented, tmp_path):
    return shutil.copytree(segmented[0], tmp_path / "copy")


@pytest.fixture(scope="module")
def source(segmenter):
    return seed_source(Run.open(segmenter[0]).config)


def mask_in(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def files_of(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times_of(folder) -> dict:
    return {path: path.stat().st_mtime_ns for kind in ("masks", "overlays") for path in (folder / kind).rglob("*.*g")}


# what they write


def test_every_picture_has_a_mask_and_an_overlay_and_nothing_else_is_left(segmented, source):
    out, _ = segmented
    assert len(source) == 6
    for kind, suffix in {"masks": "png", "overlays": "jpg"}.items():
        assert {path.name for path in (out / kind).iterdir()} == {f"{name}.{suffix}" for name in source.ids}
    files = {"index.html", "metrics.json", "confusion.png", "protocol.json", "origins.0.jsonl"}
    assert {path.name for path in out.iterdir()} == {"masks", "overlays", "gallery", *files}


def test_masks_are_palette_pictures_of_classes(segmented, source):
    seen = set()
    for index, name in enumerate(source.ids):
        with Image.open(segmented[0] / "masks" / f"{name}.png") as image:
            assert image.getpalette() == class_palette().reshape(-1).tolist()
        mask = mask_in(segmented[0] / "masks" / f"{name}.png")
        assert mask.shape == source.size(index)
        seen |= set(np.unique(mask))
    assert len(seen) >= 3  # the network says something
    assert seen <= set(range(7))


def test_overlays_show_picture_mask_and_truth(segmented, source):
    for index in (0, 5):
        record, name = source[index], source.ids[index]
        expected = mask_panel(
            record.image, mask_in(segmented[0] / "masks" / f"{name}.png"), record.mask, source.class_names
        )
        assert (segmented[0] / "overlays" / f"{name}.jpg").read_bytes() == jpeg(expected)


def test_scores_are_those_of_a_plain_count(segmented, source):
    out, text = segmented
    metrics = strictly_parsed(out / "metrics.json")
    assert (metrics["pictures"], metrics["scored"], metrics["missing"], metrics["skipped"]) == (6, 6, 0, [])
    total = np.zeros((7, 7), int)
    for index, name in enumerate(source.ids):
        one, truth, mask = np.zeros((7, 7), int), source[index].mask, mask_in(out / "masks" / f"{name}.png")
        np.add.at(one, (truth[truth != 255], mask[truth != 255]), 1)
        of_picture = metrics["scores"]["miou_of_pictures"][name]
        assert of_picture == pytest.approx(scores_by_hand(one)["miou"], abs=1e-6)
        total += one
    assert metrics["scores"]["confusion"] == total.tolist()
    for name, value in scores_by_hand(total).items():
        assert metrics["scores"][name] == pytest.approx(value, abs=1e-6), name
    assert f"mIoU {100 * metrics['scores']['miou']:.1f} on 6 pictures" in text
    assert f"6 pictures are in {out}: look at index.html, use masks/." in text


def test_the_protocol_says_what_the_masks_are_made_with(segmented, segmenter, source):
    protocol = strictly_parsed(segmented[0] / "metrics.json")["protocol"]
    assert protocol == strictly_parsed(segmented[0] / "protocol.json")
    assert (protocol["step"], protocol["trained_on"]) == (6, "pseudo_masks")
    assert (protocol["scales"], protocol["mirror"], protocol["crf"]) == ([1.0], False, False)
    assert protocol["class_names"] == list(source.class_names)


def test_the_page_lists_every_picture_with_its_classes_and_score(segmented, source):
    out, page = segmented[0], (segmented[0] / "index.html").read_text()
    metrics, entries = strictly_parsed(out / "metrics.json"), embedded(page)["entries"]
    assert [entry["id"] for entry in entries] == source.ids
    for entry in entries:
        for key in ("photo", "mask", "truth"):
            assert layer_file(out, key, entry["id"]).is_file()
        values = np.unique(mask_in(out / "masks" / f"{entry['id']}.png"))
        found = [source.class_names[value - 1] for value in values if value]
        assert entry.get("classes", [])[: len(found)] == found  # then come those of the truth
        iou = metrics["scores"]["miou_of_pictures"][entry["id"]]
        np.testing.assert_allclose(curve_in(entry["iou"]["mask"]), [iou], atol=0.002)
    summary = re.findall("<p>(.*?)</p>", page, re.DOTALL)
    assert f"mIoU {100 * metrics['scores']['miou']:.1f} on 6 pictures" in summary
    assert not any("-----" in line for line in summary)  # a table of plain text is none on a page


# continued, and used


def test_pictures_without_truth_get_the_same_masks_and_no_scores(program, segmenter, segmented, source, tmp_path):
    for index in range(len(source)):
        (tmp_path / "new" / "day 1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(source[index].image).save(tmp_path / "new" / "day 1" / f"{source.ids[index]}.png")
    picture(tmp_path / "new" / "odd.png", size=(61, 35))
    (tmp_path / "new" / "empty.jpg").touch()
    words = ("--out", tmp_path / "out", "--images", f"{tmp_path}/new/**")
    finished = program("infer.py", "--ckpt", segmenter[0], *words)
    assert finished.code == 0, finished.err
    for name in source.ids:
        found = mask_in(tmp_path / "out" / "masks" / "day 1" / f"{name}.png")
        np.testing.assert_array_equal(found, mask_in(segmented[0] / "masks" / f"{name}.png"))
    assert mask_in(tmp_path / "out" / "masks" / "odd.png").shape == (35, 61)
    metrics = strictly_parsed(tmp_path / "out" / "metrics.json")
    assert (metrics["pictures"], metrics["scored"], len(metrics["skipped"])) == (7, 0, 1)
    assert "scores" not in metrics
    assert not (tmp_path / "out" / "confusion.png").exists()
    page = (tmp_path / "out" / "index.html").read_text()
    entries = embedded(page)["entries"]
    assert {entry["id"] for entry in entries} == {"odd", *(f"day 1/{name}" for name in source.ids)}
    assert not any("iou" in entry for entry in entries)
    assert "mIoU" not in finished.out
    assert "1 picture was skipped" in finished.out


def test_a_part_of_the_data_set(program, segmenter, scenes, tmp_path):
    finished = program("infer.py", "--ckpt", segmenter[0], "--out", tmp_path, "--split", "all[2:5]")
    assert finished.code == 0, finished.err
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == set(scenes.ids[2:5])
    assert strictly_parsed(tmp_path / "metrics.json")["scored"] == 3


def test_scales_and_mirror_images_are_another_protocol(program, segmenter, segmented, copy, tmp_path):
    flags = ("--inference.mirror", "--inference.scales", "1.0", "0.5", "--limit", 2)
    finished = program("infer.py", "--ckpt", segmenter[0], "--out", copy, *flags)
    assert_one_line_error(finished, "holds masks of another model or protocol; choose another --out")
    assert times_of(copy).keys() == {copy / path.relative_to(segmented[0]) for path in times_of(segmented[0])}
    finished = program("infer.py", "--ckpt", segmenter[0], "--out", tmp_path / "new", *flags)
    assert finished.code == 0, finished.err
    metrics = strictly_parsed(tmp_path / "new" / "metrics.json")
    assert (metrics["scored"], metrics["protocol"]["mirror"], metrics["protocol"]["scales"]) == (2, True, [1.0, 0.5])
    masks = [path.name for path in (tmp_path / "new" / "masks").iterdir()]
    assert any(
        (mask_in(tmp_path / "new" / "masks" / name) != mask_in(segmented[0] / "masks" / name)).any() for name in masks
    )


@pytest.mark.parametrize("part", ["parameters", "batch_stats", "step"])
def test_the_protocol_tells_models_apart(segmenter, mesh, part):
    run = Run.open(segmenter[0])
    state = trained_state(run, devices=mesh)
    other = state._replace(**{part: jax.tree.map(lambda leaf: leaf + 1, getattr(state, part))})
    one, same, another = (model_protocol(run, of) for of in (state, state, other))
    assert one == same
    assert [name for name in one if one[name] != another[name]] == ["step" if part == "step" else "model"]


def test_a_sweep_needs_a_classifier(program, segmenter, tmp_path):
    finished = program("lpcam_jax.__main__", "sweep", "--ckpt", segmenter[0], "--out", tmp_path)
    assert_one_line_error(finished, "holds a run of kind segmentation, not classifier; name another")


def test_help_shows_the_flags_of_the_run(program, segmenter, trained):
    of_segmentation = program("infer.py", "--ckpt", segmenter[0], "--help")
    of_classifier = program("infer.py", f"--ckpt={trained}", "--help")
    assert (of_segmentation.code, of_classifier.code) == (0, 0)
    for flag, in_the_first, in_the_second in (("mirror", True, False), ("background", False, True)):
        assert (f"inference.{flag}" in of_segmentation.out) == in_the_first
        assert (f"inference.{flag}" in of_classifier.out) == in_the_second


# misused


def damaged(path):
    path.write_bytes(path.read_bytes()[:100])


def saved(pixels):
    return lambda path: Image.fromarray(np.array(pixels)).save(path)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (damaged, r"00003.png: damaged picture"),
        (saved(np.zeros((128, 100), np.uint8)), r"00003.png is 100x128, its picture 96x144 \(width x height\)"),
        (saved(np.full((128, 128), 7, np.uint8)), r"00003.png holds the value 7, but the data set has 0..6 and 255"),
        (saved(np.zeros((128, 128, 3), np.uint8)), r"00003.png: the mask is a colour picture \(RGB\)"),
    ],
)
def test_a_mask_that_cannot_be_trained_on_is_named(program, segmentation_recipe, seeds, tmp_path, change, pattern):
    masks = shutil.copytree(seeds, tmp_path / "masks")
    change(masks / "scene_00003.png")
    words = ("--data.masks", masks, "--data.train", "all[2:6]", "--workdir", tmp_path / "run")
    assert_one_line_error(program("train.py", segmentation_recipe, *words), pattern)


def test_no_masks_of_these_pictures(program, segmentation_recipe, seeds, tmp_path):
    words = ("--workdir", tmp_path / "run", "--data.masks")
    finished = program("train.py", segmentation_recipe, *words, tmp_path / "nowhere")
    assert_one_line_error(finished, r"nowhere: no such folder of masks; name one with ID.png files")
    (tmp_path / "empty").mkdir()
    finished = program("train.py", segmentation_recipe, *words, tmp_path / "empty")
    assert_one_line_error(finished, r"empty has no mask for any of the 12 pictures .* no scene_00000.png, for one")
    finished = program("train.py", segmentation_recipe, *words, seeds, "--data.train", "all[:2]")
    assert_one_line_error(finished, r"seeds has no mask for any of the 2 pictures to train on")
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_masks(program, segmentation_recipe, tmp_path):
    picture(tmp_path / "data" / "images" / "a.jpg")
    (tmp_path / "data" / "labels.csv").write_text("name,labels\na,cat\n")
    of_folder = ("--data.source", "folder", "--data.root", tmp_path / "data", "--data.train", "all")
    words = (*of_folder, "--data.validation", "", "--workdir", tmp_path / "run")
    finished = program("train.py", segmentation_recipe, *words)
    assert_one_line_error(finished, r"data has no masks to train on; name a folder of masks with --data.masks")


@pytest.mark.parametrize(
    ("part", "pattern"),
    [
        ("all[2:", r"all\[2:: \[2: is not a slice; write all\[:80%\], all\[80%:\] or all\[100:400\]"),
        ("all[-3:]", r"\[-3:\] is not a slice"),
        ("all[5:5]", r"all\[5:5\]: the slice is empty; all holds 16 pictures"),
        ("train[:3]", r"train\[:3\]: this data set has no splits; write all\[:3\]"),
    ],
)
@pytest.mark.parametrize("flag", ["train", "validation"])
def test_a_part_that_there_is_not(program, segmentation_recipe, seeds, tmp_path, flag, part, pattern):
    words = ("--data.masks", seeds, "--workdir", tmp_path / "run", f"--data.{flag}", part)
    assert_one_line_error(program("train.py", segmentation_recipe, *words), pattern)


def test_a_batch_that_does_not_divide(program, segmentation_recipe, seeds, tmp_path):
    words = ("--data.masks", seeds, "--workdir", tmp_path / "run", "--training.accumulate", 3)
    assert_one_line_error(
        program("train.py", segmentation_recipe, *words), r"a batch of 4 does not divide over 3 parts"
    )


@pytest.mark.parametrize("head", ["deeplabv3plus", "deeplabv2"])
def test_a_norm_of_one_value_is_refused(program, segmentation_recipe, seeds, tmp_path, head):
    """Of a single picture, the pooled one's variance is 0: masks would be rubbish, and the loss would not show it."""
    words = ("--data.masks", seeds, "--workdir", tmp_path / "run", "--model.head", head, "--training.steps", 1)
    finished = program("train.py", segmentation_recipe, *words, "--training.batch-size", 1)
    if head == "deeplabv2":  # has no such norm
        assert finished.code == 0, finished.err
    else:
        assert_one_line_error(
            finished, "a batch of 1 in 1 part has 1 picture in each, .* batch norm needs 2; give a larger"
        )


def test_masks_made_again_at_another_threshold(program, segmentation_recipe, seeds, tmp_path):
    """To the same folder: the network that there is has learned from others."""
    masks, run = shutil.copytree(seeds, tmp_path / "masks"), tmp_path / "run"
    words = ("train.py", segmentation_recipe, "--data.masks", masks, "--workdir", run)
    assert program(*words).code == 0
    assert program(*words).code == 0, "the same ones"
    for file in masks.iterdir():
        file.write_bytes(mask_png(np.where(mask_in(file) > 2, 0, mask_in(file)).astype(np.uint8)))
    assert_one_line_error(program(*words), "was trained on other masks than are there now, under the same names")
    noted = json.loads((run / "pictures.json").read_text())
    (run / "pictures.json").write_text(json.dumps({name: noted[name] for name in ("pictures", "census")}))
    assert program(*words).code == 0, "a run of before"


def test_other_masks_in_the_same_workdir(program, segmentation_recipe, seeds, segmenter, tmp_path):
    run = shutil.copytree(segmenter[0], tmp_path / "run")
    finished = program("train.py", segmentation_recipe, "--data.masks", seeds, "--workdir", run)
    assert_one_line_error(finished, r"holds a run with other settings \(data.masks '.*pseudo_masks' -> '.*seeds'\)")


def test_a_mask_that_was_damaged_since_is_named(program, segmenter, copy, source):
    damaged(copy / "masks" / f"{source.ids[0]}.png")
    finished = program("infer.py", "--ckpt", segmenter[0], "--out", copy)
    assert_one_line_error(finished, rf"{source.ids[0]}.png: damaged picture")


# config.json


def test_a_config_comes_back_as_it_was(tmp_path):
    config = DeepLabConfig(
        data=Data(source="voc_layout", classes=("cat", "dog"), masks="seeds", held_out=0.25, train="a.txt[:80%]"),
        model=DeepLabModel(head="deeplabv3plus", blocks=(1, 2, 3, 4), mean=(1.0, 2.5, 3.0), std=(4.0, 5.0, 6.5)),
        training=DeepLabTraining(scales=(0.5, 2.0), frozen=("conv1", "layer1"), average=0.999, steps=7),
        inference=DeepLabInference(scales=(1.0, 1.25), mirror=True),
        seed=3,
        limit=8,
    )
    Run.create(tmp_path, config, ("cat", "dog"))
    opened = Run.open(tmp_path)
    assert (opened.config, opened.class_names, opened.kind) == (config, ("cat", "dog"), "segmentation")
    assert hash(opened.config) == hash(config)  # tuples, down to the last
    assert Run.create(tmp_path, config, ("cat", "dog")).config == config
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)  # before its first checkpoint a run may still change
    with pytest.raises(UserError, match=r"training.scales \[0.5, 2.0\] -> \(0.5,\)|training.scales .*0.5, 2.0"):
        Run.create(tmp_path, replace(config, training=replace(config.training, scales=(0.5,))), ("cat", "dog"))
