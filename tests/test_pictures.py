"""Odd files in, upright RGB or one clear line out."""

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lpcam_jax.data.formats import SUFFIXES
from lpcam_jax.data.pictures import picture_size, read_picture
from lpcam_jax.data.resizing import resize_bicubic
from lpcam_jax.data.search import find_pictures, search, unique_ids
from lpcam_jax.data.unlabelled import Pictures
from lpcam_jax.machine.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def corners() -> np.ndarray:
    """uint8 (2, 3, 3): six colours no turn or flip maps to itself."""
    return np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (128, 128, 0)]], np.uint8)


def png(path: Path, width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> Path:
    """A PNG of kinds Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def with_orientation(path: Path, pixels: np.ndarray, value: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def one_line(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text.isprintable()
    assert ";" in text, "what was found; what to do"
    return text


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("value", range(10))
def test_exif_orientation_is_applied(tmp_path, corners, value, suffix):
    stored = {  # what a camera stores so that its orientation tag leads back to `corners`
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.swapaxes(0, 1),
        6: np.rot90(corners, 1),
        7: np.rot90(corners, 2).swapaxes(0, 1),
        8: np.rot90(corners, -1),
    }.get(value, corners)
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    np.testing.assert_array_equal(read_picture(path), corners)
    assert picture_size(path) == (2, 3)


def test_rotated_jpeg(tmp_path):
    path = with_orientation(tmp_path / "a.jpg", np.zeros((20, 40, 3), np.uint8), 6)
    assert read_picture(path).shape == (40, 20, 3)
    assert picture_size(path) == (40, 20)


def smooth_noise(size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3), as sharp as a photograph of many megapixels is."""
    small = np.random.default_rng(0).integers(0, 256, (size[0] // 3, size[1] // 3, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("enough", "expected"), [(500, (601, 999)), (499, (301, 500)), (130, (151, 250)), (9, (76, 125))]
)
@pytest.mark.parametrize("options", [{}, {"format": "MPO"}, {"mode": "CMYK"}, {"mode": "L"}])
def test_a_large_jpeg_is_decoded_in_fewer_pixels_where_these_are_enough(tmp_path, enough, expected, options):
    options = dict(options)
    image = Image.fromarray(smooth_noise((601, 999))).convert(options.pop("mode", "RGB"))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, **options)
    less, whole = read_picture(tmp_path / "a.jpg", enough=enough), read_picture(tmp_path / "a.jpg")
    assert less.shape == (*expected[::-1], 3)
    assert picture_size(tmp_path / "a.jpg", enough=enough) == less.shape[:2]
    assert picture_size(tmp_path / "a.jpg") == whole.shape[:2] == (999, 601)
    of_whole = resize_bicubic(resize_bicubic(whole, less.shape[:2]), (60, 36))
    assert np.abs(resize_bicubic(less, (60, 36)) - of_whole.astype(float)).mean() < 5  # of noise


def test_other_formats_are_decoded_as_they_are(tmp_path):
    Image.fromarray(smooth_noise((60, 99))).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", enough=9).shape == (60, 99, 3)
    assert picture_size(tmp_path / "a.png", enough=9) == (60, 99)


@pytest.mark.parametrize("mode", ["CMYK", "L", "YCbCr"])
def test_jpeg_modes(tmp_path, mode):
    Image.new("RGB", (16, 8), (200, 200, 200)).convert(mode).save(tmp_path / "a.jpg")
    image = read_picture(tmp_path / "a.jpg")
    assert image.shape == (8, 16, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "1", "L", "LA"])
def test_png_modes_and_one_pixel(tmp_path, mode):
    Image.new("RGB", (1, 1), WHITE).convert(mode).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").tolist() == [[list(WHITE)]]
    assert picture_size(tmp_path / "a.png") == (1, 1)


def test_transparent_parts_become_white(tmp_path):
    Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)).save(tmp_path / "rgba.png")
    assert read_picture(tmp_path / "rgba.png").tolist() == [[list(RED), list(WHITE)]]

    Image.fromarray(np.array([[[9, 255], [9, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert read_picture(tmp_path / "la.png").tolist() == [[[9, 9, 9], list(WHITE)]]

    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([*RED, *BLUE])
    palette.save(tmp_path / "index.png", transparency=1)
    assert read_picture(tmp_path / "index.png").tolist() == [[list(RED), list(WHITE)]]
    palette.save(tmp_path / "bytes.png", transparency=b"\xff\x00")
    assert read_picture(tmp_path / "bytes.png").tolist() == [[list(RED), list(WHITE)]]


def test_16_bit_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values).save(tmp_path / "grey.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 5 1 65535\n" + values.astype(">u2").tobytes())
    for name in ("grey.png", "grey.tif", "grey.pgm"):
        assert read_picture(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 128, 255], name
    rows = b"\0" + struct.pack(">3H", 65535, 32768, 256)
    assert read_picture(png(tmp_path / "c.png", 1, 1, depth=16, colour=2, rows=rows)).tolist() == [[[255, 128, 1]]]


def test_floats_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "depth.tif")
    assert "8-bit RGB" in one_line(read_picture, tmp_path / "depth.tif")


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.gif")[0, 0].tolist() == list(RED)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\0\0", b"no TIFF header at all"])
def test_damaged_exif_is_no_reason_to_fail(tmp_path, exif, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (6, 4)).save(path, exif=b"Exif\0\0" + exif)
    assert read_picture(path).shape == (4, 6, 3)
    assert picture_size(path) == (4, 6)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif"])
def test_size_decodes_nothing(tmp_path, monkeypatch, suffix):
    Image.new("RGB", (6, 4)).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    assert picture_size(tmp_path / f"a.{suffix}") == (4, 6)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_truncated(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    for kept in (len(data) // 2, 30):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(data[:kept])
        assert str(path) in one_line(read_picture, path)


def test_unreadable_files(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "folder.jpg").mkdir()
    expected = {
        "empty.jpg": "the file is empty",
        "text.jpg": "not a picture in a supported format",
        "script.jpg": "not a picture in a supported format",
        "folder.jpg": "Is a directory",
        "missing.jpg": "no such file",
        "text.jpg/a.jpg": "Not a directory",
        "x" * 300: "File name too long",
    }
    for name, message in expected.items():
        for read in (read_picture, picture_size):
            text = one_line(read, tmp_path / name)
            assert text.startswith(f"{tmp_path / name}: ")
            assert message in text


@pytest.mark.parametrize("name", ["a\nb.jpg", "tab\t.jpg", "\x1b[31mred.jpg", "a\u2028b.jpg", "caf\udce9.jpg"])
def test_names_that_would_break_the_line_are_quoted(tmp_path, name):
    path = tmp_path / name
    for read in (read_picture, picture_size, find_pictures):
        assert one_line(read, path).startswith(f"{str(path)!r}: no such ")
    path.touch()
    for read in (read_picture, picture_size):
        assert one_line(read, path) == f"{str(path)!r}: the file is empty; replace or remove it"


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):  # root, who runs tests in containers, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    assert "no permission" in one_line(read_picture, tmp_path / "a.jpg")


def test_decompression_bomb(tmp_path):
    bomb = png(tmp_path / "bomb.png", 60_000, 60_000, depth=1, colour=0, rows=b"\0")
    assert "megapixels" in one_line(read_picture, bomb)
    assert "megapixels" in one_line(picture_size, bomb)


def test_large_but_harmless_gives_no_warning(tmp_path):
    large = png(tmp_path / "large.png", 10_000, 10_000, depth=1, colour=0, rows=b"\0")
    assert picture_size(large) == (10_000, 10_000)


def test_threads_read_the_same(tmp_path, corners):
    Image.fromarray(corners).save(tmp_path / "a.png")
    with ThreadPoolExecutor(8) as pool:
        for image in pool.map(read_picture, [tmp_path / "a.png"] * 64):
            np.testing.assert_array_equal(image, corners)


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(path, format="PNG")
    return paths


def test_find_pictures(tmp_path):
    b, a, c, odd = touch(tmp_path, "b.JPG", "a.png", "sub/c.jpeg", "sub/odd.name")
    touch(tmp_path, ".hidden.jpg", "._a.png", "sub/.cache/d.jpg")
    (tmp_path / "notes.txt").touch()
    assert find_pictures(str(tmp_path)) == [a, b, c]
    assert find_pictures(f"{tmp_path}/") == [a, b, c]
    assert find_pictures(f"{tmp_path}/**/*.jpeg") == [c]
    assert find_pictures(f"{tmp_path}/*") == [a, b]
    assert find_pictures(str(odd)) == [odd]


def test_names_that_look_like_globs(tmp_path):
    (path,) = touch(tmp_path, "set [1]/a[2].png")
    assert find_pictures(str(path.parent)) == [path]
    assert find_pictures(str(path)) == [path]


def test_nothing_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for pattern in ("", str(tmp_path)):
        assert "no picture in this folder" in one_line(find_pictures, pattern)
    for pattern in ("missing", "missing/*.jpg", "x" * 300, "a\0b"):
        assert "no such picture, folder or match" in one_line(find_pictures, pattern)


def test_unique_ids():
    assert unique_ids(["a.jpg", "b.jpg"]) == ["a", "b"]
    assert unique_ids(["a.jpg", "a.png", "b.jpg"]) == ["a.jpg", "a.png", "b"]
    assert unique_ids(["a.jpg", "a.png", "a.jpg.png"]) == ["a.jpg", "a.png", "a.jpg.png"]
    assert unique_ids([".jpg", "..jpg", "...jpg", "s/..png"]) == [".jpg", "..jpg", "...jpg", "s/..png"]
    assert unique_ids(["v1.2/a", "-rf x;.jpg", "ü.jpg"]) == ["v1.2/a", "-rf x;", "ü"]


def test_pictures_are_records(tmp_path):
    paths = touch(tmp_path, "x/a.jpg", "x/a.png", "y/a.png")
    source = Pictures([*paths, paths[0]], ["cat", "dog"])
    assert source.ids == ["x/a.jpg", "x/a.png", "y/a"]
    assert (source.class_names, source.labels, source.has_masks, len(source)) == (("cat", "dog"), None, False, 3)
    records = list(source)
    assert [record.id for record in records] == source.ids
    assert all(record.image.shape == (2, 3, 3) for record in records)
    assert records[0].labels is None
    assert records[0].mask is None
    assert source.size(2) == (2, 3)


def test_ids_stay_inside(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "in/b.png")
    monkeypatch.chdir(tmp_path / "in")
    assert Pictures(["../a.png", "b.png"], ["cat"]).ids == ["a", "in/b"]
    assert Pictures(["../a.png"], ["cat"]).ids == ["a"]
    assert one_line(Pictures(["gone.png"], ["cat"]).__getitem__, 0).startswith("gone.png: ")
    assert len(Pictures([], ["cat"])) == 0


# What is a picture, and what is passed over.


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jfif", "JPEG"),
        ("a.jpe", "JPEG"),
        ("a.JPE", "JPEG"),
        ("a.apng", "PNG"),
        ("a.dib", "DIB"),
        ("a.pbm", "PPM"),
        ("a.jp2", "JPEG2000"),
        ("a.qoi", "QOI"),
        ("a.mpo", "MPO"),
    ],
)
def test_every_extension_of_a_format_that_is_read(tmp_path, name, format):
    Image.new("RGB", (8, 6), RED).save(tmp_path / name, format=format)
    assert find_pictures(tmp_path) == [tmp_path / name]
    assert find_pictures(f"{tmp_path}/*") == [tmp_path / name]
    assert read_picture(tmp_path / name).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("module", "suffix"), [("pillow_heif", "HEIC"), ("pillow_heif", "heif"), ("pillow_jxl", "JXL")]
)
def test_formats_of_plugins(tmp_path, module, suffix):
    pytest.importorskip(module)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (64, 48), RED).save(file, format="JXL" if suffix == "JXL" else "HEIF", exif=exif.tobytes())
    assert find_pictures(tmp_path) == [file]
    assert read_picture(file).shape[:2] == picture_size(file)
    assert np.abs(read_picture(file).astype(int) - RED).max() < 30


@pytest.mark.skipif({".heic", ".jxl"} & SUFFIXES != set(), reason="the plugins are installed")
def test_formats_whose_plugin_is_not_installed_are_named(tmp_path, capsys):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "b.jxl").write_bytes(b"\xff\n")
    advice = "IMG_1.HEIC, b.jxl; pip install pillow-heif pillow-jxl-plugin, or convert them to JPEG or PNG"
    for pattern in (tmp_path, f"{tmp_path}/*"):
        text = one_line(find_pictures, pattern)
        assert "only pictures in formats that are not read (1 .heic, 1 .jxl): " in text
        assert advice in text
    (a,) = touch(tmp_path, "a.jpg")
    assert find_pictures(tmp_path) == [a]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: pictures in formats that are not read (1 .heic, 1 .jxl): ")
    assert advice in line


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*.png"])
def test_a_folder_with_a_pictures_name_is_none(tmp_path, pattern):
    (tmp_path / "x.png").mkdir()
    a, b = touch(tmp_path, "a.png", "x.png/b.png")
    found = find_pictures(f"{tmp_path}{pattern}")
    assert found == ([a] if pattern == "/*" else [a, b])


def test_a_pipe_is_no_picture_and_a_link_to_nothing_is_named(tmp_path):
    (a,) = touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert find_pictures(tmp_path) == [a, tmp_path / "gone.png"]
    assert "no such file" in one_line(read_picture, tmp_path / "gone.png")


# Links.


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.png"])
def test_links_in_circles(tmp_path, pattern):
    paths = touch(tmp_path / "data", "cat/a.png", "cat/b.png", "dog/c.png", "dog/deep/d.png")
    links = {"cat/again": ".", "cat/up": "..", "dog/deep/up": "../..", "a": "dog", "dog/self": "self", "out": "../.."}
    for name, target in links.items():
        (tmp_path / "data" / name).symlink_to(target, target_is_directory=True)
    assert find_pictures(tmp_path / f"data{pattern}") == paths


def test_links_to_folders_elsewhere_are_followed_once(tmp_path):
    touch(tmp_path, "disk/a.png", "data/b.png")
    for name in ("one", "two"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "disk", target_is_directory=True)
    found, passed_over = search(tmp_path / "data")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["data/b.png", "data/one/a.png"]
    assert [str(finding) for finding in passed_over] == [
        "links to folders that are read already: two; not followed: each folder is read once"
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):  # root, who runs tests in containers, may read everything
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, passed_over = search(tmp_path)
    assert found == [tmp_path / "a.png"]
    assert [str(finding) for finding in passed_over] == [
        "folders that cannot be read: closed; change their permissions"
    ]


# What this program wrote itself.

MARKS = {
    "protocol.json": '{"version": "1", "class_names": ["cat"]}',
    "config.json": '{"kind": "classifier", "class_names": ["cat"], "config": {}}',
    "metrics.jsonl": '{"step": 1, "loss": 0.5}\n',
    "metrics.json": '{"pictures": 1, "protocol": {}}',
    "sweep.json": '{"protocol": {}}',
    "faithfulness.json": '{"pictures": 1, "protocol": {}}',
}


@pytest.mark.parametrize("pattern", ["", "/**", "/*/*/*.png", "/**/*.png"])
@pytest.mark.parametrize("mark", MARKS)
def test_folders_that_this_program_wrote_are_passed_over_in_one_line(tmp_path, capsys, mark, pattern):
    touch(tmp_path, "runs/x/overlays/a.png", "runs/x/b.png", "runs/y/b.png")
    (one,) = touch(tmp_path, "cat/deep/a.png")
    for run in ("x", "y"):
        (tmp_path / "runs" / run / mark).write_text(MARKS[mark])
    assert find_pictures(f"{tmp_path}{pattern}") == [one]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: results of this program in ")
    assert line.endswith(": runs/x, runs/y; left out: this program wrote them")
    find_pictures(f"{tmp_path}{pattern}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model": "theirs"}'),
        ("protocol.json", '{"scanner": 7}'),
        ("protocol.json", "{"),
        ("metrics.jsonl", "epoch 1\n"),
        ("metrics.json", '{"accuracy": 1}'),
    ],
)
def test_files_of_others_by_these_names(tmp_path, name, text):
    paths = touch(tmp_path, "cat/a.png", "dog/overlays/b.png")
    (tmp_path / "dog" / name).write_text(text)
    (tmp_path / name).write_text(text)
    assert find_pictures(tmp_path) == paths


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.png"])
def test_results_among_the_pictures_themselves(tmp_path, pattern):
    """`infer.py --images H --out H`, and the same again."""
    one, two = touch(tmp_path, "a.png", "sub/b.png")
    touch(tmp_path, "overlays/a.png", "seeds/sub/b.png", "gallery/pictures/a.png", "thresholds.png")
    (tmp_path / "protocol.json").write_text(MARKS["protocol.json"])
    assert find_pictures(f"{tmp_path}{pattern}") == [one, two]


def test_results_alone_are_no_pictures(tmp_path):
    touch(tmp_path, "overlays/a.png", "thresholds.png")
    (tmp_path / "protocol.json").write_text(MARKS["protocol.json"])
    assert "no picture in this folder, only results of this program in" in one_line(find_pictures, tmp_path)
