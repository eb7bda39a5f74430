"""Masks, pictures, curves and tables."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.files import write_atomically
from lpcam_jax.report import curve
from lpcam_jax.report.curve import threshold_curve
from lpcam_jax.report.figures import write_figure
from lpcam_jax.report.names import columns
from lpcam_jax.report.overlays import heat_colors, mask_panel, overlay, panel, png
from lpcam_jax.report.palette import class_palette, mask_png
from lpcam_jax.report.table import class_table, table1


def test_palette_is_that_of_voc():
    palette = class_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    known[255] = (224, 224, 192)
    assert {index: tuple(palette[index].tolist()) for index in known} == known
    assert len(np.unique(palette, axis=0)) == 256
    np.testing.assert_array_equal(class_palette(21), palette[:21])


@pytest.mark.parametrize("values", [[0, 1, 20, 255], [0], range(256)])
def test_mask_png_keeps_every_value(values):
    mask = np.array(values, np.uint8)[None].repeat(3, axis=0)
    with Image.open(io.BytesIO(mask_png(mask))) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), class_palette()[mask])


def test_heat_grows_lighter():
    colors = heat_colors(np.linspace(0, 1, 86)[None])[0]
    luminance = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
    assert luminance[0] < 5
    assert luminance[-1] > 240


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_cold_overlay_is_the_photograph_and_hot_is_not():
    image = photograph(5, 7)
    np.testing.assert_array_equal(overlay(image, np.zeros((5, 7))), image)
    hot = overlay(image, np.ones((5, 7), np.float32), opacity=1)
    np.testing.assert_array_equal(hot, np.broadcast_to(heat_colors(np.ones((1, 1))), image.shape))
    mild = np.abs(overlay(image, np.full((5, 7), 0.1)).astype(int) - image)
    warm = np.abs(overlay(image, np.full((5, 7), 0.9)).astype(int) - image)
    assert mild.mean() < warm.mean()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (3, 3000), (3000, 3), (375, 500)])
@pytest.mark.parametrize("with_truth", [False, True])
def test_panel_is_a_moderate_picture_for_any_size(size, with_truth):
    mask = np.zeros(size, np.uint8)
    mask[0, 0] = 255
    maps = {method: np.random.default_rng(1).random((2, *size)) for method in ("CAM", "LPCAM-F", "LPCAM")}
    truth = mask if with_truth else None
    picture = panel(photograph(*size), maps, ["cat", "dog"], mask, truth, class_values=[1, 2])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.shape[0] <= 3 * 360
    assert 480 <= picture.shape[1] <= 760
    with Image.open(io.BytesIO(png(picture))) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), picture)


@pytest.mark.parametrize("name", ["", "猫 🐈", "قطة", "a\nb\x00c", "\udc80 not utf-8", "e\u0301" * 90, "W" * 5000])
def test_panel_takes_any_class_name(name):
    mask = np.ones((20, 30), np.uint8)
    maps = {"CAM": np.zeros((1, 20, 30))}
    plain = panel(photograph(20, 30), maps, ["cat"], mask)
    assert panel(photograph(20, 30), maps, [name], mask).shape == plain.shape


def test_panel_shows_the_colour_a_class_has_in_the_masks():
    mask = np.zeros((20, 30), np.uint8)
    grey = np.full((20, 30, 3), 99, np.uint8)
    maps = {"CAM": np.zeros((1, 20, 30))}
    with_colour = panel(grey, maps, ["cat"], mask, class_values=[3])
    without = panel(grey, maps, ["cat"], mask)
    assert (with_colour == class_palette()[3]).all(axis=2).sum() == 144
    assert not (without == class_palette()[3]).all(axis=2).any()


def test_panel_without_classes_shows_photograph_and_seed():
    nothing = panel(photograph(20, 30), {"CAM": np.zeros((0, 20, 30))}, [], np.zeros((20, 30), np.uint8))
    assert nothing.shape[1] > nothing.shape[0]


GREY = np.full((20, 30, 3), 99, np.uint8)


def swatches(picture: np.ndarray, value: int) -> np.ndarray:
    """Where the colour of a class is drawn: bool (H, W)."""
    return (picture == class_palette()[value]).all(axis=2)


def test_mask_panel_names_the_classes_of_the_mask_and_no_other():
    mask, truth = np.zeros((20, 30), np.uint8), np.full((20, 30), 2, np.uint8)
    mask[5:, :9], mask[5:, 20:], mask[0] = 3, 1, 255
    picture = mask_panel(GREY, mask, truth, ["cat", "dog", "cow"])
    assert [int(swatches(picture, value).sum()) for value in (1, 2, 3, 255)] == [144, 0, 144, 0]
    columns = [np.flatnonzero(swatches(picture, value).any(axis=0)).min() for value in (1, 3)]
    assert columns[0] < columns[1]  # in the order of the classes, side by side
    renamed = mask_panel(GREY, mask, truth, ["cat", "???", "cow"])
    np.testing.assert_array_equal(renamed, picture)
    assert (mask_panel(GREY, mask, truth, ["cat", "dog", "elk"]) != picture).any()


def test_mask_panel_shows_picture_mask_and_truth():
    empty, full = np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    panels = [mask_panel(GREY, *masks, ["cat"]) for masks in ((empty, empty), (empty, full), (full, empty))]
    assert panels[0].shape == panels[1].shape
    assert (panels[0] != panels[1]).any()
    assert panels[2].shape[0] > panels[0].shape[0]  # the legend, which is of the mask
    assert swatches(panels[2], 1).sum() == 144
    without = mask_panel(GREY, empty, None, ["cat"])
    assert without.shape[1] < panels[0].shape[1]
    np.testing.assert_array_equal(without[30:-8, : without.shape[1] - 8], panels[0][30:-8, : without.shape[1] - 8])
    shown = panels[0][30 : 30 + 160, 8 : 8 + 240]
    assert (shown == 99).all()  # the photograph itself
    tinted = panels[1][30 + 80, [8 + 120, 256 + 120, 504 + 120]].astype(int)
    assert tinted[0].tolist() == [99] * 3
    assert tinted[1].tolist() == [round(0.45 * 99)] * 3  # background is dark
    assert tinted[2][0] > tinted[2][1] == tinted[2][2]  # class 1 is red


@pytest.mark.parametrize("size", [(1, 1), (3, 3000), (3000, 3), (375, 500)])
@pytest.mark.parametrize("with_truth", [False, True])
def test_mask_panel_is_a_moderate_picture_for_any_size(size, with_truth):
    mask = np.zeros(size, np.uint8)
    mask[0, 0] = 2
    picture = mask_panel(photograph(*size), mask, mask if with_truth else None, ["cat", "W" * 500])
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert picture.shape[0] <= 400
    assert 340 <= picture.shape[1] <= 760


def test_mask_panel_begins_a_new_line_after_as_many_classes_as_pictures():
    heights = {}
    for count in (0, 1, 2, 3, 4, 6, 7, 20):
        mask = np.zeros((20, 30), np.uint8)
        mask[0, :count] = np.arange(1, count + 1)
        picture = mask_panel(GREY, mask, mask, [f"class {number}" for number in range(20)])
        heights[count] = picture.shape[0]
        assert all(swatches(picture, value).sum() >= 144 for value in range(1, count + 1))
    lines = {count: (height - heights[0]) / (heights[1] - heights[0]) for count, height in heights.items()}
    assert lines == {0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 6: 2, 7: 3, 20: 7}


def test_curve_is_a_png(tmp_path):
    path = tmp_path / "new" / "curve.png"
    thresholds = np.linspace(0, 1, 11)
    curves = {f"method {k}": (1 - thresholds) / (k + 1) for k in range(5)}
    threshold_curve(path, thresholds, curves, title="costs $5, _^ and more")
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 800


def test_any_name_is_in_the_legend_of_the_curves(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        curve, "write_figure", lambda path, figure: figures.append(figure) or write_figure(path, figure)
    )
    names = ["_mine", "a$_$b", "$", "x^{", "\\alpha"]
    thresholds = np.linspace(0, 1, 11)
    threshold_curve(tmp_path / "curve.png", thresholds, dict.fromkeys(names, 1 - thresholds), title="names of arrays")
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert texts == [f"{name}: 100.0 % at 0" for name in names]
    with Image.open(tmp_path / "curve.png") as picture:
        picture.load()


def test_table1():
    best = {"threshold": 0.25, "miou": 0.5234, "fp": 0.3, "fn": 0.2, "precision": 0.71, "recall": 1.0}
    fixed = {**best, "threshold": 0.3, "miou": 0.4, "fp": float("nan")}
    rows = {method: {"best": best, "fixed": fixed} for method in ("CAM", "LPCAM-F", "LPCAM")}
    lines = table1(rows).splitlines()
    assert lines == [
        "         |             best threshold            |            fixed threshold",
        "method   |    at  mIoU    FP    FN  Prec. Recall |    at  mIoU    FP    FN  Prec. Recall",
        "---------+---------------------------------------+--------------------------------------",
        "CAM      | 0.250  52.3  30.0  20.0   71.0  100.0 | 0.300  40.0     -  20.0   71.0  100.0",
        "LPCAM-F  | 0.250  52.3  30.0  20.0   71.0  100.0 | 0.300  40.0     -  20.0   71.0  100.0",
        "LPCAM    | 0.250  52.3  30.0  20.0   71.0  100.0 | 0.300  40.0     -  20.0   71.0  100.0",
    ]


def test_class_table():
    ious = {"CAM": [0.8, 0.5, float("nan")], "LPCAM-F": np.array([1, 0.25, 0])}
    assert class_table(["cat", "dog\n"], ious).splitlines() == [
        "class         CAM  LPCAM-F",
        "----------  -----  -------",
        "background   80.0    100.0",
        "cat          50.0     25.0",
        "dog?            -      0.0",
    ]
    long = class_table(["x" * 500], {"CAM": [0, 0], "LPCAM": [0, 0]}).splitlines()
    assert {len(line) for line in long} == {100}
    assert "..." in long[-1]


def test_a_table_is_even_with_letters_of_any_width():
    """Chinese letters take two columns, an accent of its own none."""
    table = class_table(["犬", "cat", "e\u0301"], {"CAM": [0.1, 0.2, 0.3, 0.4]})
    assert {columns(line) for line in table.splitlines()} == {columns(table.splitlines()[0])}


def test_captions_have_the_letters_of_europe():
    """Letters that a font does not have are all one box."""
    captions = [panel(GREY, {"CAM": np.zeros((1, *GREY.shape[:2]))}, [name], GREY[..., 0]) for name in ("дом", "кот")]
    assert (captions[0] != captions[1]).any()


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["b.txt"]


def test_write_names_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "x.png", tmp_path / "file" / "deeper" / "x.png"):
        with pytest.raises(UserError, match=r"cannot write .*x\.png.*a file stands where a folder is needed"):
            write_atomically(path, b"")


def test_write_names_a_folder_in_the_way(tmp_path):
    (tmp_path / "out.png").mkdir()
    with pytest.raises(UserError, match="a folder has the name of the file"):
        write_atomically(tmp_path / "out.png", b"")
    assert os.listdir(tmp_path) == ["out.png"]


def test_write_refuses_a_name_too_long_in_one_line(tmp_path):
    with pytest.raises(UserError, match="choose a shorter name") as caught:
        write_atomically(tmp_path / ("x\n" * 200), b"")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, reason):
    path = tmp_path / "curve.png"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise reason

    monkeypatch.setattr(os, "fsync", fail)
    expected = UserError if isinstance(reason, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_atomically(path, b"new")
    if expected is UserError:
        assert "No space left on device; free some space" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["curve.png"]
