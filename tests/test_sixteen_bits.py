"""Pictures of 16 bits that hold fewer: never read black without a word."""

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from test_pictures import png

from lpcam_jax.data import pictures
from lpcam_jax.data.pictures import read_picture


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch):
    monkeypatch.setattr(pictures, "_dark", {})


def grey(path, *values):
    Image.fromarray(np.array([values], np.uint16)).save(path)
    return path


def colour(path, *values):
    return png(path, 1, 1, depth=16, colour=2, rows=b"\0" + struct.pack(">3H", *values))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("values", "bits"), [((0, 4080), 12), ((0, 1023), 10), ((5, 16383), 14), ((0, 200), 8)])
def test_a_note_says_the_factor(tmp_path, capsys, values, bits, suffix):
    path = grey(tmp_path / f"a.{suffix}", *values)
    read_picture(path)
    read_picture(path)
    assert capsys.readouterr().out == (
        f"note: {path} of 16 bits: no value is above {values[1]} of 65535, which is read nearly black; if the values "
        f"have {bits} bits, multiply them by {2 ** (16 - bits)} and save the pictures again.\n"
    )


def test_colours(tmp_path, capsys):
    read_picture(colour(tmp_path / "a.png", 4080, 0, 100))
    assert "no value is above 4095 of 65535" in capsys.readouterr().out
    rows = b"\0" + struct.pack(">4H", 4080, 0, 100, 65535)  # opaque
    read_picture(png(tmp_path / "b.png", 1, 1, depth=16, colour=6, rows=rows))
    rows = b"\0" + struct.pack(">2H", 4080, 65535)
    read_picture(png(tmp_path / "c.png", 1, 1, depth=16, colour=4, rows=rows))
    assert len(pictures._dark) == 3


@pytest.mark.parametrize("values", [(0, 0), (0, 16384), (0, 65535)])
def test_no_note_where_the_range_is_used_or_all_is_black(tmp_path, capsys, values):
    read_picture(grey(tmp_path / "a.png", *values))
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "b.png")
    read_picture(tmp_path / "b.png")
    assert capsys.readouterr().out == ""


def test_many_are_counted_and_not_listed(tmp_path, capsys):
    paths = [grey(tmp_path / f"{number}.png", 0, 4000 + number) for number in range(30)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_picture, paths * 2))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert any(line.startswith("note: 10 pictures, such as ") and "multiply them by 16" in line for line in lines)


def test_a_range_that_the_file_states_is_used(tmp_path, capsys):
    """PGM has a largest value, TIFF a number of bits: nothing is to be guessed."""
    values = np.array([0, 2048, 4095, 4095], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 4095\n" + values.tobytes())
    expected = [0, 128, 255, 255]
    np.testing.assert_allclose(read_picture(tmp_path / "a.pgm")[0, :, 0], expected, atol=1)
    number = int("".join(f"{value:012b}" for value in values), 2)
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    directory = struct.pack("<H", len(entries))
    for tag, value in entries.items():
        directory += struct.pack("<HHIHH", tag, 3, 1, value, 0)
    strip = number.to_bytes(6, "big") + bytes(2)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 16) + strip + directory + bytes(4))
    assert read_picture(tmp_path / "a.tif")[0, :, 0].tolist() == expected
    assert capsys.readouterr().out == ""
