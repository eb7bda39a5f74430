"""python -m lpcam_jax seeds: masks from a folder of maps, of any method, at any threshold."""

import shutil

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error
from test_evaluate import write_maps, write_mask
from test_heatmaps import arrays_of, strictly_parsed, times_of

from lpcam_jax.report.palette import class_palette
from lpcam_jax.seeds import seed_mask

# Two pictures, three wide and two high, of the classes 4 and 1, and of none.
MINE = np.float16([[[0.9, 0.35, 0.0], [0.5, 0.2, 0.4]], [[0.1, 0.6, 0.29], [0.45, 0.2, 0.26]]])
AT_30 = [[5, 2, 0], [5, 0, 5]]
UNSURE = [[5, 2, 255], [5, 0, 255]]  # above 0.45, or from 0.25


@pytest.fixture
def seeds(program, tmp_path):
    """`seeds(maps, *words)`: how the command ended; the masks are in tmp_path / "seeds"."""

    def run(maps, *words):
        return program("lpcam_jax.__main__", "seeds", "--maps", maps, "--out", tmp_path / "seeds", *words)

    return run


@pytest.fixture
def maps(tmp_path):
    write_maps(tmp_path / "maps_of_mine" / "day 1" / "IMG.1.npz", classes=np.array([4, 1]), mine=MINE, other=MINE[::-1])
    nothing = np.zeros((0, 5, 4), np.float16)
    write_maps(tmp_path / "maps_of_mine" / "empty.npz", classes=np.array([], int), mine=nothing, other=nothing)
    return tmp_path / "maps_of_mine"


def mask_in(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette() == class_palette().reshape(-1).tolist()
        return np.array(image)


def assert_are_masks_of(folder, heatmaps, method: str, threshold: float):
    files = sorted((heatmaps / "maps").iterdir())
    assert {path.stem for path in folder.glob("*.png")} == {path.stem for path in files}
    for path in files:
        arrays = arrays_of(path)
        stack = np.moveaxis(arrays[method].astype(np.float32), 0, -1)
        values = np.array([0, *(arrays["classes"] + 1)])
        expected = values[seed_mask(stack, np.ones(len(arrays["classes"])), background=threshold)]
        np.testing.assert_array_equal(mask_in(folder / f"{path.stem}.png"), expected)


@pytest.mark.parametrize(
    ("words", "method", "threshold"),
    [
        ((), "lpcam", 0.3),
        (("--method", "cam"), "cam", 0.3),
        (("--method", "lpcam_f", "--threshold", 0.62), "lpcam_f", 0.62),
    ],
)
def test_masks_are_the_maps_above_the_threshold(seeds, mapped, tmp_path, words, method, threshold):
    before = times_of(mapped[0])
    finished = seeds(mapped[0], *words)
    assert finished.code == 0, finished.err
    assert_are_masks_of(tmp_path / "seeds", mapped[0], method, threshold)
    assert f"24 seed masks of {method}, at {threshold:g}, are in {tmp_path / 'seeds'}." in finished.out
    assert times_of(mapped[0]) == before


def test_the_best_threshold_is_that_of_the_scores(seeds, mapped, tmp_path):
    best = {
        name: one["best"]["threshold"] for name, one in strictly_parsed(mapped[0] / "metrics.json")["scores"].items()
    }
    assert best["cam"] != 0.3
    finished = seeds(mapped[0], "--method", "cam", "--threshold", "best")
    assert finished.code == 0, finished.err
    assert f"of cam, at {best['cam']:g}" in finished.out
    assert_are_masks_of(tmp_path / "seeds", mapped[0], "cam", best["cam"])


def test_masks_of_another_rule_and_of_others_are_not_replaced(seeds, maps, tmp_path):
    mine = tmp_path / "seeds" / "empty.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    line = r"seeds holds files that are not of this program \(empty\.png is one\); choose another --out"
    assert_one_line_error(seeds(maps), line)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    for _ in range(2):  # the second call makes the same
        assert seeds(maps).code == 0
    before = mine.read_bytes()
    line = "seeds holds seed masks of another model or protocol; choose another --out"
    assert_one_line_error(seeds(maps, "--threshold", 0.4), line)
    assert mine.read_bytes() == before


def test_masks_by_hand(seeds, maps, tmp_path):
    finished = seeds(maps, "--method", "mine")
    assert finished.code == 0, finished.err
    assert mask_in(tmp_path / "seeds" / "day 1" / "IMG.1.png").tolist() == AT_30
    assert mask_in(tmp_path / "seeds" / "empty.png").tolist() == np.zeros((5, 4)).tolist()
    assert "2 seed masks of mine" in finished.out


def test_each_map_has_its_own_otsu_threshold(seeds, tmp_path):
    mine = np.float16([[[0.9, 0.35, 0.0], [0.8, 0.1, 0.1]], [[0.1, 0.3, 0.0], [0.25, 0.3, 0.05]]])
    write_maps(tmp_path / "maps_of_mine" / "a.npz", classes=np.array([4, 1]), mine=mine)
    nothing = np.zeros((1, 5, 4), np.float16)
    write_maps(tmp_path / "maps_of_mine" / "nothing.npz", classes=np.array([2]), mine=nothing)
    finished = seeds(tmp_path / "maps_of_mine", "--method", "mine", "--threshold", "otsu")
    assert finished.code == 0, finished.err
    # Above 0.35 and 0.1; the second class keeps what the first is higher at, but not above its own threshold.
    assert mask_in(tmp_path / "seeds" / "a.png").tolist() == [[5, 2, 0], [5, 2, 0]]
    assert not mask_in(tmp_path / "seeds" / "nothing.png").any()
    assert "2 seed masks of mine, each above its Otsu threshold, are in" in finished.out


def test_between_two_thresholds_pixels_are_unsure(seeds, maps, tmp_path):
    finished = seeds(maps, "--method", "mine", "--unsure", 0.25, 0.45)
    assert finished.code == 0, finished.err
    assert mask_in(tmp_path / "seeds" / "day 1" / "IMG.1.png").tolist() == UNSURE
    assert not mask_in(tmp_path / "seeds" / "empty.png").any()
    assert "unsure from 0.25 to 0.45" in finished.out


def test_masks_can_be_evaluated_and_are_as_good_as_their_maps(program, seeds, recipe, mapped, tmp_path):
    assert seeds(mapped[0], "--method", "cam", "--threshold", "best").code == 0
    words = ("--predictions", tmp_path / "seeds", "--out", tmp_path / "scores")
    assert program("lpcam_jax.__main__", "evaluate", recipe, *words).code == 0
    found = strictly_parsed(tmp_path / "scores" / "metrics.json")["scores"]
    assert found["confusion"] == strictly_parsed(mapped[0] / "metrics.json")["scores"]["cam"]["confusion"]


@pytest.mark.parametrize("scores", [None, "{", "{}", '{"scores": {"other": {}}}'])
def test_the_best_threshold_needs_scores(seeds, maps, scores):
    if scores is not None:
        (maps.parent / "metrics.json").write_text(scores)
    finished = seeds(maps, "--method", "mine", "--threshold", "best")
    assert_one_line_error(finished, r"--threshold best: .*metrics.json has no scores of mine; give a number, or run")


def test_a_method_that_there_is_not(seeds, maps):
    assert_one_line_error(seeds(maps, "--method", "lpcam"), r"has no maps 'lpcam'; it has mine, other")
    finished = seeds(maps)
    assert finished.code == 0
    assert "seed masks of other" in finished.out


@pytest.mark.parametrize("words", [("--threshold", -0.1), ("--threshold", "nan"), ("--unsure", 0.5, 0.2)])
def test_thresholds_that_are_none(seeds, maps, words):
    finished = seeds(maps, "--method", "mine", *words)
    assert_one_line_error(finished, r"the thresholds .* are not in order between 0 and 1")


def only_masks(folder):
    shutil.rmtree(folder)
    write_mask(folder / "day 1" / "a.png", [[0, 1]])


def masks_of_infer(folder):
    shutil.rmtree(folder)
    for kind in ("masks", "overlays"):
        write_mask(folder / kind / "day 1" / "a.png", [[0, 1]])


def damaged(folder):
    path = folder / "day 1" / "IMG.1.npz"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (only_masks, r"maps_of_mine holds masks; name a folder of maps"),
        (masks_of_infer, r"maps_of_mine holds masks; name a folder of maps"),
        (shutil.rmtree, r"maps_of_mine: no such folder"),
        (lambda folder: (shutil.rmtree(folder), folder.mkdir()), r"holds no ID.npz and no ID.png"),
        (damaged, r"IMG.1.npz cannot be read .*delete it"),
        (
            lambda folder: write_maps(folder / "b.npz", classes=np.array([254]), mine=np.zeros((1, 2, 2))),
            r"seed masks: masks of 8 bits number 254 classes, and there are 255",
        ),
    ],
)
def test_folders_without_maps_that_can_be_used(seeds, maps, change, pattern):
    change(maps)
    assert_one_line_error(seeds(maps, "--method", "mine"), pattern)


@pytest.mark.parametrize("out", [".", "maps", "seeds"])
def test_nothing_is_written_among_the_maps_and_what_infer_wrote_of_them(program, mapped, tmp_path, out):
    folder = tmp_path / "heatmaps"
    shutil.copytree(mapped.directory / "maps", folder / "maps")
    shutil.copy(mapped.directory / "protocol.json", folder)
    finished = program("lpcam_jax.__main__", "seeds", "--maps", folder, "--out", folder / out)
    assert_one_line_error(finished, r"--out .* is in the input folder .*heatmaps; choose another place")
    assert (folder / "protocol.json").read_bytes() == (mapped.directory / "protocol.json").read_bytes()
    assert not list(folder.rglob("*.png"))
