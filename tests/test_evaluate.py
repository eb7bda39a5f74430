"""python -m lpcam_jax evaluate: any folder of maps or masks against any data set with masks."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error, picture

from lpcam_jax.report.confusion import confusion_picture
from lpcam_jax.report.palette import mask_png
from lpcam_jax.results.counts import THRESHOLDS, SeedScoring


def strictly_parsed(path) -> dict:
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def write_mask(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mask_png(np.array(values, np.uint8)))


def write_maps(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


@pytest.fixture
def evaluate(program, tmp_path):
    """`evaluate(recipe, folder, *words)`: how the command ended; the scores are in tmp_path / "scores"."""

    def run(recipe, predictions, *words):
        words = (recipe, "--predictions", predictions, "--out", tmp_path / "scores", *words)
        return program("lpcam_jax.__main__", "evaluate", *words)

    return run


@pytest.fixture
def scored(evaluate, data, tmp_path):
    """`scored(predictions, *words)`: metrics.json of the hand-made data set."""

    def run(predictions, *words):
        finished = evaluate("configs/folder.py", predictions, "--data.root", data, *words)
        assert finished.code == 0, finished.err
        return strictly_parsed(tmp_path / "scores" / "metrics.json"), finished.out

    return run


# Two pictures, three wide and two high; the classes are cat (1) and dog (2).
TRUTH = {"a": [[0, 1, 1], [2, 255, 0]], "day 1/b": [[2, 2, 2], [0, 0, 255]]}
PREDICTED = {"a": [[0, 1, 0], [1, 2, 255]], "day 1/b": [[2, 255, 2], [0, 2, 255]]}
CONFUSION = [[3, 0, 1], [1, 1, 0], [1, 1, 2]]  # 255 as a prediction is background: one of truth 0, one of truth 2


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "my_data"
    for name, mask in TRUTH.items():
        picture(root / "images" / f"{name}.jpg", size=(3, 2))
        write_mask(root / "masks" / f"{name}.png", mask)
    (root / "labels.csv").write_text("name,labels\na,cat;dog\nday 1/b,dog\n")
    return root


@pytest.fixture
def masks(tmp_path):
    for name, mask in PREDICTED.items():
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
    return tmp_path / "masks"


@pytest.fixture
def maps(tmp_path):
    """Above 0.5 the maps are PREDICTED where that has a class; "other" is empty."""
    for name, mask in PREDICTED.items():
        high = np.where(np.array(mask) == 255, 0, mask)
        stack = np.stack([np.where(high == n, 0.9, 0.1) for n in (1, 2)]).astype(np.float16)
        stack[0, high == 0] = 0.45
        write_maps(
            tmp_path / "maps_of_mine" / f"{name}.npz",
            classes=np.array([0, 1]),
            other=np.zeros((2, 2, 3)),
            mine=stack,
            notes=np.zeros(3),
        )
    return tmp_path / "maps_of_mine"


def test_the_folder_of_infer_gets_the_scores_of_infer(evaluate, recipe, mapped, tmp_path):
    finished = evaluate(recipe, mapped[0])
    assert finished.code == 0, finished.err
    expected, found = (strictly_parsed(folder / "metrics.json") for folder in (mapped[0], tmp_path / "scores"))
    for key in ("pictures", "scored", "missing", "without_truth", "empty_maps", "scores"):
        assert found[key] == expected[key]
    assert found["pseudo_masks"] == expected["pseudo_masks"]
    assert f"pseudo masks beside the maps: mIoU {100 * found['pseudo_masks']['miou']:.1f}\n" in finished.out
    assert found["protocol"]["made_with"] == expected["protocol"]
    assert found["protocol"]["crf"] is False
    table = mapped[1].partition("LPCAM against CAM")[0]
    assert "IoU of each class" in table
    assert table in finished.out
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {
        "metrics.json",
        "confusion.png",
        "thresholds.png",
    }


def test_the_seeds_of_infer_are_scored_like_its_maps_at_their_threshold(evaluate, recipe, mapped, tmp_path):
    assert evaluate(recipe, mapped[0] / "seeds").code == 0
    masks = strictly_parsed(tmp_path / "scores" / "metrics.json")["scores"]
    maps = strictly_parsed(mapped[0] / "metrics.json")["scores"]["lpcam"]["fixed"]
    for key in ("miou", "fp", "fn", "precision", "recall"):  # infer.py stores float16 maps of its float32 seeds
        assert masks[key] == pytest.approx(maps[key], abs=5e-3)


def test_masks_against_themselves_are_perfect(scored, data, tmp_path):
    metrics, text = scored(data / "masks")
    scores = metrics["scores"]
    assert [scores[key] for key in ("miou", "fp", "fn", "precision", "recall")] == [1, 0, 0, 1, 1]
    assert scores["iou"] == [1, 1, 1]
    assert scores["confusion"] == np.diag([4, 2, 4]).tolist()
    assert metrics["unsure_pixels"] == 0  # where the truth is 255, the prediction does not matter
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"metrics.json", "confusion.png"}
    assert "2 of 2 pictures are scored" in text


def test_the_confusion_of_masks_by_hand(scored, masks):
    metrics, text = scored(masks)
    assert metrics["scores"]["confusion"] == CONFUSION
    assert metrics["unsure_pixels"] == 2
    assert "pixels predicted as 255 (unsure), counted as background: 2" in text
    np.testing.assert_allclose(metrics["scores"]["iou"], [3 / 6, 1 / 3, 2 / 5], rtol=1e-6)
    assert metrics["scores"]["miou"] == pytest.approx(np.mean([3 / 6, 1 / 3, 2 / 5]))
    assert " ".join(text.splitlines()[1].split()) == "41.1 26.7 36.7 58.9 58.3"


def test_grey_masks_are_read_like_those_with_a_palette(scored, masks):
    for path in masks.rglob("*.png"):
        with Image.open(path) as image:
            values = np.array(image)
        Image.fromarray(values).save(path)
    assert scored(masks)[0]["scores"]["confusion"] == CONFUSION


def test_masks_whose_names_end_in_capitals_are_read(scored, masks):
    for path in list(masks.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert scored(masks)[0]["scores"]["confusion"] == CONFUSION


def test_what_is_no_array_in_a_file_of_maps_is_left_out(scored, maps):
    before = scored(maps)[0]["scores"]
    for path in maps.rglob("*.npz"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("README.txt", "These are maps.")
    assert scored(maps)[0]["scores"] == before


def test_the_confusion_of_maps_by_hand(scored, maps):
    metrics, _ = scored(maps)
    assert list(metrics["scores"]) == ["other", "mine"]
    assert metrics["empty_maps"] == {"other": 4, "mine": 0}
    best = metrics["scores"]["mine"]["best"]
    assert 0.45 <= best["threshold"] < 0.9
    assert metrics["scores"]["mine"]["confusion"] == CONFUSION
    assert best["miou"] == pytest.approx(np.mean([3 / 6, 1 / 3, 2 / 5]))
    everything_cat = metrics["scores"]["mine"]["fixed"]
    assert everything_cat["iou"][0] == 0
    assert metrics["scores"]["other"]["best"]["iou"] == [pytest.approx(0.4), 0, 0]


def test_the_protocol_stands_beside_the_number(scored, maps, data):
    protocol = scored(maps, "--data.classes", "dog", "cat")[0]["protocol"]
    assert protocol["data"]["class_names"] == ["dog", "cat"]
    assert (protocol["data"]["source"], protocol["data"]["root"]) == ("folder", data.name)
    assert (protocol["ignored"], protocol["crf"], protocol["predictions"]) == (255, "unknown", "maps")
    assert "0.3" in protocol["rule"]
    assert str(data) not in json.dumps(protocol)  # where it is has no influence


def test_the_protocol_says_which_part_was_scored(scored, masks):
    metrics, _ = scored(masks, "--data.seeds", "all[1:]")
    assert (metrics["pictures"], metrics["scored"]) == (1, 1)
    assert metrics["protocol"]["data"]["split"] == "all[1:]"


def test_missing_predictions_are_counted_and_named(scored, masks):
    (masks / "a.png").unlink()
    metrics, text = scored(masks)
    assert (metrics["pictures"], metrics["scored"], metrics["missing"], metrics["first_missing"]) == (2, 1, 1, ["a"])
    assert "left out, without a prediction: 1 (a)" in text
    assert np.sum(metrics["scores"]["confusion"]) == 5


def test_pictures_without_truth_are_counted(scored, masks, data):
    write_mask(data / "masks" / "a.png", [[1, 255, 255], [255, 255, 255]])
    (data / "masks" / "day 1" / "b.png").unlink()
    metrics, text = scored(masks)
    assert (metrics["scored"], metrics["without_truth"]) == (1, 1)
    assert "left out, without a mask or with ignored pixels only: 1" in text
    assert np.sum(metrics["scores"]["confusion"]) == 1


def test_a_limit_scores_the_first_pictures(scored, masks):
    metrics, _ = scored(masks, "--limit", 1)
    assert (metrics["pictures"], metrics["scored"]) == (1, 1)


def damaged(folder):
    path = next(folder.rglob("a.*"))
    path.write_bytes(path.read_bytes()[:60])


def npy_only(folder):
    for path in list(folder.rglob("*.png")):
        path.unlink()
    np.save(folder / "a.npy", {"keys": [1]}, allow_pickle=True)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (damaged, r"a.png: "),
        (npy_only, r"holds only .npy files: pickles.*np.savez"),
        (shutil.rmtree, r"no such folder of predictions"),
        (lambda folder: write_mask(folder / "a.png", [[0, 1]]), r"a.png is 2x1, the mask of its picture 3x2"),
        (lambda folder: write_mask(folder / "a.png", [[7] * 3] * 2), r"a.png holds the value 7, .* 0..2 and 255"),
        (lambda folder: picture(folder / "a.png", size=(3, 2)), r"a.png: the mask is a colour picture"),
        (lambda folder: (shutil.rmtree(folder), folder.mkdir()), r"holds no ID.npz and no ID.png"),
        (
            lambda folder: (shutil.rmtree(folder), write_mask(folder / "c.png", [[0]])),
            r"no prediction for any of the 2 pictures .* there is no a.png, for one",
        ),
    ],
)
def test_masks_that_cannot_be_scored(evaluate, data, masks, change, pattern):
    change(masks)
    assert_one_line_error(evaluate("configs/folder.py", masks, "--data.root", data), pattern)


def changed(**arrays):
    """A change of the maps of picture a: None takes an array out."""

    def change(folder):
        with np.load(folder / "a.npz") as file:
            stored = {**file, **arrays}
        np.savez(folder / "a.npz", **{name: array for name, array in stored.items() if array is not None})

    return change


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (damaged, r"a.npz cannot be read .*delete it"),
        (changed(classes=None), r"a.npz holds no array classes"),
        (changed(classes=np.array([0.0, 1.0])), r"a.npz holds no array classes, int"),
        (changed(classes=np.array([1, 2])), r"a.npz has a map of class 2, but the data set has 0..1"),
        (changed(classes=np.array([-1, 1])), r"a.npz has a map of class -1"),
        (changed(classes=np.array([1, 1])), r"a.npz has two maps of one class"),
        (changed(classes=np.array([1])), r"a.npz holds other as float64 \(2, 2, 3\) for 1 classes"),
        (changed(mine=np.full((2, 2, 3), 1.5)), r"a.npz has values in \[1.5, 1.5\] in mine"),
        (changed(mine=np.full((2, 2, 3), -0.1)), r"a.npz has values in \[-0.1, -0.1\] in mine"),
        (changed(mine=np.full((2, 2, 3), np.nan)), r"a.npz has NaN in mine"),
        (changed(mine=np.zeros((2, 3, 2))), r"a.npz holds maps of different sizes"),
        (changed(mine=np.zeros((2, 3, 2)), other=np.zeros((2, 3, 2))), r"a.npz is 2x3, the mask of its picture 3x2"),
        (changed(mine=None, other=None), r"a.npz holds no maps but classes int64 \(2,\), notes float64 \(3,\)"),
        (changed(classes=np.array([{}, {}], dtype=object)), r"a.npz cannot be read .*allow_pickle"),
    ],
)
def test_maps_that_cannot_be_scored(evaluate, data, maps, change, pattern):
    change(maps)
    assert_one_line_error(evaluate("configs/folder.py", maps, "--data.root", data), pattern)


def test_a_file_without_a_method_of_the_others(evaluate, data, maps):
    (maps / "day 1" / "b.npz").unlink()
    write_maps(maps / "day 1" / "b.npz", classes=np.array([1]), mine=np.zeros((1, 2, 3)))
    finished = evaluate("configs/folder.py", maps, "--data.root", data)
    assert_one_line_error(finished, r"b.npz has no maps other, but other files do")


def test_a_data_set_without_masks(evaluate, data, masks):
    shutil.rmtree(data / "masks")
    finished = evaluate("configs/folder.py", masks, "--data.root", data)
    assert_one_line_error(finished, "has no masks to score against")


def test_nothing_but_ignored_truth(evaluate, data, masks):
    for path in (data / "masks").rglob("*.png"):
        write_mask(path, [[255, 255, 255], [255, 255, 1]])
    (masks / "a.png").unlink()
    (data / "masks" / "day 1" / "b.png").unlink()
    finished = evaluate("configs/folder.py", masks, "--data.root", data)
    assert_one_line_error(finished, "has a labelled pixel: nothing to score")


@pytest.mark.parametrize(
    "text", ["[]", '{"class_names": "cat"}', '{"class_names": [1, 2]}', "[" * 100_000], ids=range(4)
)
def test_a_protocol_of_others_is_one_line(evaluate, data, masks, text):
    (masks.parent / "protocol.json").write_text(text)
    finished = evaluate("configs/folder.py", masks, "--data.root", data)
    assert_one_line_error(finished, r"protocol.json cannot be read .*run infer.py again")


def test_a_folder_of_infer_of_other_classes_is_refused(evaluate, data, maps):
    folder = maps.parent / "heatmaps"
    shutil.move(maps, folder / "maps")
    (folder / "protocol.json").write_text(json.dumps({"class_names": ["cat", "horse"]}))
    finished = evaluate("configs/folder.py", folder, "--data.root", data)
    assert_one_line_error(finished, r"maps was made for the classes cat, horse, the data set has cat, dog")
    (folder / "protocol.json").write_text("{")
    finished = evaluate("configs/folder.py", folder, "--data.root", data)
    assert_one_line_error(finished, r"protocol.json cannot be read .*run infer.py again")


@pytest.mark.parametrize(("predictions", "out"), [(".", "."), ("maps", "."), (".", "maps/scores")])
def test_the_predictions_are_not_written_into(program, recipe, mapped, tmp_path, predictions, out):
    folder = tmp_path / "heatmaps"
    shutil.copytree(mapped.directory / "maps", folder / "maps")
    for name in ("protocol.json", "metrics.json"):
        shutil.copy(mapped.directory / name, folder)
    words = ("--predictions", folder / predictions, "--out", folder / out)
    finished = program("lpcam_jax.__main__", "evaluate", recipe, *words)
    assert_one_line_error(finished, r"--out .* is in the input folder .*heatmaps; choose another place")
    assert {path.name for path in folder.glob("*.*")} == {"protocol.json", "metrics.json"}
    assert (folder / "metrics.json").read_bytes() == (mapped.directory / "metrics.json").read_bytes()


def test_pictures_that_cannot_be_written_are_no_reason_to_lose_the_numbers(evaluate, data, maps, tmp_path):
    (tmp_path / "scores" / "thresholds.png").mkdir(parents=True)
    finished = evaluate("configs/folder.py", maps, "--data.root", data)
    assert_one_line_error(finished, r"cannot write .*thresholds.png")
    assert strictly_parsed(tmp_path / "scores" / "metrics.json")["scores"]["mine"]["confusion"] == CONFUSION


def test_scoring_eighty_classes_counts_the_few_of_a_picture():
    """COCO: classes far apart, as many matrices; equal to a count over the whole table."""
    rng, scoring = np.random.default_rng(0), SeedScoring(80)
    truth = rng.choice(np.uint8([0, 3, 80, 255]), (40, 60))
    maps, classes = rng.random((40, 60, 2)).astype(np.float32), np.array([2, 78])
    scoring.add(maps, classes, truth)
    for index in (0, 30, 99):
        seed = np.where(maps.max(axis=-1) > THRESHOLDS[index], (classes + 1)[maps.argmax(axis=-1)], 0)
        expected = np.zeros((81, 81))
        np.add.at(expected, (truth[truth != 255], seed[truth != 255]), 1)
        np.testing.assert_array_equal(scoring.matrices[index], expected)


@pytest.mark.parametrize(("classes", "methods"), [(1, 1), (20, 2), (80, 1)])
def test_a_confusion_picture_for_few_and_for_many_classes(tmp_path, classes, methods):
    matrices = {f"method $ {k}": np.eye(classes + 1, dtype=int) for k in range(methods)}
    matrices["method $ 0"][0] = 0  # a class that the truth does not have
    names = ["a name that is far too long to be drawn", *(f"class ${k}" for k in range(1, classes))]
    confusion_picture(tmp_path / "confusion.png", matrices, names)
    with Image.open(tmp_path / "confusion.png") as image:
        image.load()
        assert min(image.size) > max(400, 15 * classes)
