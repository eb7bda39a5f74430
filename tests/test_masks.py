"""Masks are class indices: how they are stored, checked and renumbered."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.masks import MaskFolder, pick_classes, read_mask, read_with_mask, renumbering
from lpcam_jax.machine.errors import UserError


def one_line(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text.isprintable()
    assert ";" in text, "what was found; what to do"
    return text


def save(path: Path, pixels: np.ndarray | list) -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, format="PNG")
    return path


def packed_grey(path: Path, width: int, *, depth: int, row: bytes) -> Path:
    """A grey PNG of one row with 2 or 4 bits a pixel, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_mask_indices_not_colours(tmp_path):
    indices = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    palette = Image.fromarray(indices, "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(indices).save(tmp_path / "grey.png")
    for name in ("palette.png", "grey.png"):
        mask = read_mask(tmp_path / name, num_classes=20)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, indices)


def test_mask_of_few_bits(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "1.png")
    assert read_mask(tmp_path / "1.png").tolist() == [[0, 1]]
    small = Image.fromarray(np.array([[0, 1, 3]], np.uint8), "P")
    small.putpalette(range(12))
    small.save(tmp_path / "2.png", bits=2)
    assert read_mask(tmp_path / "2.png").tolist() == [[0, 1, 3]]
    grey2 = packed_grey(tmp_path / "g2.png", 4, depth=2, row=b"\x1b")
    assert read_mask(grey2).tolist() == [[0, 1, 2, 3]]
    grey4 = packed_grey(tmp_path / "g4.png", 4, depth=4, row=b"\x01\x2f")
    assert read_mask(grey4).tolist() == [[0, 1, 2, 15]]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), "colour picture (RGB)"),
        (np.zeros((2, 2, 4), np.uint8), "colour picture (RGBA)"),
        (np.zeros((2, 2), np.uint16), "16-bit"),
        (np.array([[0, 255]], np.uint8), "only 0 and 255"),
        (np.array([[255, 255]], np.uint8), "holds only 255"),
        (np.array([[0, 7, 1, 9, 255]], np.uint8), "holds 7, 9; only 0..6 and 255"),
        (np.arange(256, dtype=np.uint8)[None], "14 and 240 more"),
    ],
)
def test_wrong_masks(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "m.png")
    text = one_line(read_mask, tmp_path / "m.png", num_classes=6)
    assert text.startswith(f"{tmp_path / 'm.png'}: ")
    assert message in text


def test_jpeg_mask_is_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "m.png", format="JPEG")
    assert "JPEG" in one_line(read_mask, tmp_path / "m.png")


def test_unchecked_mask_keeps_its_values(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("ignored", "others", "refused"),
    [
        (2, [0] * 8, False),  # a fifth
        (3, [0] * 7, True),
        (10, [], True),
        (9, [1], False),
        (0, [0] * 10, False),
    ],
)
def test_much_doubt_and_no_class_is_refused(tmp_path, ignored, others, refused):
    path = save(tmp_path / "m.png", [[255] * ignored + others])
    if refused:
        assert "255 means ignored; store objects as their class index, 1..6" in one_line(read_mask, path, num_classes=6)
    else:
        assert read_mask(path, num_classes=6).tolist() == [[255] * ignored + others]


def test_unreadable_masks(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    for name, message in {"empty.png": "is empty", "text.png": "not a picture", "missing.png": "no such file"}.items():
        text = one_line(read_mask, tmp_path / name)
        assert text.startswith(f"{tmp_path / name}: ")
        assert message in text


def test_names_that_would_break_the_line_are_quoted(tmp_path):
    path, picture = save(tmp_path / "a\nb.png", [[0, 9]]), save(tmp_path / "a\nb.jpg", [[0, 0, 0]])
    for call in (
        lambda: read_mask(path, num_classes=6),
        lambda: read_with_mask(picture, path, num_classes=9),
        lambda: pick_classes(("cat",), ("dog",), path),
    ):
        assert one_line(call).startswith(f"{str(path)!r}: ")


def test_mask_must_have_its_pictures_size(tmp_path):
    picture, mask = save(tmp_path / "a.jpg", np.zeros((2, 3))), save(tmp_path / "a.png", [[0, 1], [0, 1], [0, 1]])
    text = one_line(read_with_mask, picture, mask, num_classes=1)
    assert text.startswith(f"{mask}: the mask is 2x3, its picture 3x2 (width x height)")
    save(mask, [[0, 1, 1], [1, 0, 255]])
    image, indices = read_with_mask(picture, mask, num_classes=1)
    assert image.shape == (2, 3, 3)
    assert indices.tolist() == [[0, 1, 1], [1, 0, 255]]


def test_chosen_classes_keep_their_order():
    assert pick_classes((), ["ant", "bee", "cow"], "here") == ("ant", "bee", "cow")
    assert pick_classes(["cow", "ant"], ["ant", "bee", "cow"], "here") == ("cow", "ant")
    assert one_line(pick_classes, ["elk", "ant"], ["ant", "bee"], "here") == "here: no class elk; choose from ant, bee"
    assert "here: a class is named twice" in one_line(pick_classes, ["ant", "ant"], ["ant", "bee"], "here")


def test_renumbering_keeps_doubt_and_drops_other_classes():
    mask = np.array([[0, 1, 2, 3, 255]], np.uint8)
    renumbered = renumbering(["cow", "ant"], ["ant", "bee", "cow"])[mask]
    assert renumbered.dtype == np.uint8
    assert renumbered.tolist() == [[0, 2, 0, 1, 255]]
    np.testing.assert_array_equal(renumbering(["ant", "bee"], ["ant", "bee"])[:3], [0, 1, 2])


def test_a_folder_of_masks_in_upper_case(tmp_path):
    save(tmp_path / "sub.png", [[0, 1]])
    (tmp_path / "sub.png").rename(tmp_path / "sub.PNG")
    folder = MaskFolder.checked(tmp_path)
    assert folder.read("sub", classes=1)[0].tolist() == [[0, 1]]
    assert folder.file("gone").name == "gone.png"
    save(tmp_path / "sub.png", [[1, 1]])
    assert folder.read("sub", classes=1)[0].tolist() == [[1, 1]]


def test_a_choice_of_many_classes_is_of_fitting_length():
    names = [f"{n} " + "x" * 500 for n in range(1000)]
    for wanted in (["gnu"], names[:1] * 900):
        assert len(one_line(pick_classes, wanted, names, "here")) < 4000
