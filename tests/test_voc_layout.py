"""The layout of the VOC devkit, drawn small, and the real animals where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_data import ANIMALS, needs

from lpcam_jax.data.masks import read_mask
from lpcam_jax.data.voc_layout import VOC_CLASSES, VOCLayout
from lpcam_jax.machine.errors import UserError

MASKS = {  # 8 cat, 12 dog, 15 person, 20 tvmonitor
    "2007_000001": [[0, 8, 8], [255, 12, 20]],
    "2007_000002": [[15, 15, 15], [0, 0, 255]],
}


@pytest.fixture
def devkit(tmp_path) -> Path:
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    for name, rows in MASKS.items():
        Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(np.array(rows, np.uint8), "P")
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
    (tmp_path / "train.txt").write_text("2007_000001 1\n\n  2007_000002\r\n")
    return tmp_path


def refusal(*args, **options) -> str:
    with pytest.raises(UserError) as caught:
        VOCLayout(*args, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_all_classes(devkit):
    source = VOCLayout(devkit, "train.txt")
    assert len(VOC_CLASSES) == 20
    assert source.class_names == VOC_CLASSES
    assert source.ids == list(MASKS)
    assert source.has_masks
    assert source.labels.dtype == np.float32
    assert [np.flatnonzero(row + 0).tolist() for row in source.labels] == [[7, 11, 19], [14]]
    records = list(source)
    assert [record.id for record in records] == source.ids
    assert records[0].image.shape == (2, 3, 3)
    assert [record.mask.tolist() for record in records] == list(MASKS.values())
    assert source.size(1) == (2, 3)


def test_subset_is_renumbered_in_the_given_order(devkit):
    source = VOCLayout(devkit, "train.txt", classes=("person", "cat"))
    assert source.class_names == ("person", "cat")
    assert source.labels.tolist() == [[0, 1], [1, 0]]
    assert source[0].mask.tolist() == [[0, 2, 2], [255, 0, 0]]
    assert source[1].mask.tolist() == [[1, 1, 1], [0, 0, 255]]
    assert source[1].mask.dtype == np.uint8


def test_present_counts_pixels(devkit):
    source = VOCLayout(devkit, "train.txt", classes=("cat", "dog", "person"), present=2)
    assert source.labels.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_unknown_class(devkit):
    text = refusal(devkit, "train.txt", classes=("cat", "zebra", "gnu"))
    assert "no class zebra, gnu; choose from aeroplane, bicycle" in text
    assert "twice" in refusal(devkit, "train.txt", classes=("cat", "cat"))


def test_other_extensions(devkit):
    (devkit / "JPEGImages/2007_000001.jpg").rename(devkit / "JPEGImages/2007_000001.JPG")
    (devkit / "JPEGImages/2007_000002.jpg").rename(devkit / "JPEGImages/2007_000002.jpeg")
    (devkit / "SegmentationClass/2007_000001.png").rename(devkit / "SegmentationClass/2007_000001.PNG")
    source = VOCLayout(devkit, "train.txt")
    assert [record.mask.tolist() for record in source] == list(MASKS.values())
    (devkit / "JPEGImages/2007_000001.JPG").rename(devkit / "JPEGImages/2007_000001.txt")
    assert "2007_000001.jpg; add" in refusal(devkit, "train.txt")


def test_missing_files_are_counted(devkit):
    (devkit / "train.txt").write_text("2007_000001\na\nb\nc\nd\n")
    text = refusal(devkit, "train.txt")
    assert text.startswith("4 of 5 listed pictures are missing: ")
    assert f"{devkit / 'JPEGImages' / 'c.jpg'}, ...;" in text
    assert text.endswith(f"remove their ids from {devkit / 'train.txt'}")
    (devkit / "train.txt").write_text(f"2007_000001\n{'n' * 300}\n")  # longer than a file name may be
    assert refusal(devkit, "train.txt").startswith("1 of 2 listed pictures are missing: ")
    (devkit / "train.txt").write_text("2007_000001\n")
    (devkit / "SegmentationClass" / "2007_000001.png").unlink()
    assert refusal(devkit, "train.txt").startswith("1 of 1 listed masks are missing: ")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("2007_000001\n2007_000001\n", "2007_000001 is listed 2 times"),
        ("../2007_000001\n", "leads out"),
        ("/JPEGImages/2007_000001.jpg /masks/2007_000001.png\n", "leads out"),
        ("caf\udce9\n", "UTF-8"),
        ("a\x1b[31m\na\x1b[31m\n", "'a\\x1b[31m' is listed 2 times"),
    ],
)
def test_wrong_lists(devkit, lines, message):
    (devkit / "train.txt").write_bytes(lines.encode("utf-8", "surrogateescape"))
    text = refusal(devkit, "train.txt")
    assert text.startswith(str(devkit / "train.txt"))
    assert message in text


def test_missing_name_that_would_break_the_line_is_quoted(devkit):
    (devkit / "train.txt").write_text("a\x1b[31m\n")
    assert f"missing: {str(devkit / 'JPEGImages' / 'a') + chr(27) + '[31m.jpg'!r}; add" in refusal(devkit, "train.txt")


def test_missing_root_and_list(devkit):
    assert "no such folder" in refusal(devkit / "gone", "train.txt")
    assert "no such list" in refusal(devkit, "gone.txt")


def test_wrong_masks_are_named(devkit):
    path = devkit / "SegmentationClass" / "2007_000001.png"
    Image.new("RGB", (3, 2)).save(path)
    assert refusal(devkit, "train.txt").startswith(f"{path}: the mask is a colour picture")
    Image.fromarray(np.array([[8, 21]], np.uint8)).save(path)
    assert "holds 21; only 0..20" in refusal(devkit, "train.txt")
    Image.fromarray(np.array([[8, 0]], np.uint8)).save(path)
    with pytest.raises(UserError, match="mask is 2x1, its picture 3x2"):
        VOCLayout(devkit, "train.txt")[0]


@needs(ANIMALS)
def test_real_animals(capfd):
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    options = {"masks": "SegmentationClassAug", "classes": classes, "present": 50}
    scored, trained = (VOCLayout(ANIMALS, f"{name}.txt", **options) for name in ("train", "train_aug"))
    assert (len(scored), len(trained)) == (437, 1100)
    assert set(scored.ids) <= set(trained.ids)
    assert scored.labels.any(1).all()
    assert capfd.readouterr() == ("", "")
    for index in range(0, 437, 40):
        record = scored[index]
        assert record.image.shape[:2] == record.mask.shape == scored.size(index)
        stored = read_mask(ANIMALS / "SegmentationClassAug" / f"{record.id}.png")
        for position, name in enumerate(classes, start=1):
            np.testing.assert_array_equal(record.mask == position, stored == VOC_CLASSES.index(name) + 1)
        np.testing.assert_array_equal(record.mask == 255, stored == 255)
