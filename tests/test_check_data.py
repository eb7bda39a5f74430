"""`check-data`: each finding by a real file; and what training refuses before it starts."""

import json
import os
import re
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.commands.check_data import describe
from lpcam_jax.data.checks import check_folder, check_labels
from lpcam_jax.data.unlabelled import Pictures
from lpcam_jax.machine.errors import UserError

SIZE = (48, 40)  # width, height
LABELS = {f"{n:02}": ("cat", "dog", "cat dog", "")[n % 4] for n in range(24)}


def picture(path: Path, *, size=SIZE, mode="RGB", seed=0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *os.fsencode(path.name)]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def mask(path: Path, *values: int, size=SIZE, mode="L") -> Path:
    """Stripes of the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.resize(np.repeat(np.array(values, np.uint8), 4), (size[1], size[0]))
    Image.fromarray(np.sort(rows)).convert(mode).save(path)
    return path


def table(root: Path, labels: dict[str, str]) -> Path:
    (root / "labels.csv").write_text("\n".join(["name,labels", *(f"{k},{v}" for k, v in labels.items())]) + "\n")
    return root


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set with nothing to find: 24 pictures, 12 a class, with masks."""
    root = tmp_path / "my_data"
    for name, labels in LABELS.items():
        picture(root / "images" / f"{name}.jpg")
        mask(
            root / "masks" / f"{name}.png", 0, 255, *(1 + ["cat", "dog"].index(one) for one in labels.split()), 0, 0, 0
        )
    return table(root, LABELS)


def mask_free(root: Path) -> Path:
    for file in (root / "masks").iterdir():
        file.unlink()
    return root


@pytest.fixture
def command(program):
    return partial(program, "lpcam_jax.__main__")


def found(root: Path) -> dict[str, str]:
    """Each line that is printed about a finding, by its severity."""
    lines = {}
    for finding in check_folder(root).findings:
        line = str(finding)
        assert line.isprintable()
        assert "; " in line, "what was found; what to do"
        lines[line] = finding.severity.name
    return lines


def only(root: Path, severity: str, pattern: str) -> None:
    """The one finding is this."""
    ((line, of),) = found(root).items()
    assert of == severity
    assert re.search(pattern, line), line


# The whole.


def test_nothing_to_find(command, data):
    assert found(data) == {}
    finished = command("check-data", data)
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert lines[0] == f"24 pictures, 2 classes, labels from {data / 'labels.csv'}"
    assert lines[1] == "sizes (width x height): 48x40 to 48x40"
    words = [line.split() for line in lines]
    for expected in (["class", "pictures", "+cat", "+dog"], ["cat", "12", "-", "6"], ["dog", "12", "6", "-"]):
        assert expected in words
    assert ["(none)", "6"] in words
    assert lines[-1] == "0 errors, 0 warnings, 0 notes"
    assert "24/24" in finished.err


def test_exit_codes(command, data):
    (data / "masks/00.png").unlink()
    assert command("check-data", data).code == 0  # a note
    picture(data / "images/new.jpg")
    assert command("check-data", data).code == 1
    (data / "images/empty.jpg").touch()
    finished = command("check-data", data)
    assert finished.code == 2
    assert [line.split()[0] for line in finished.out.splitlines()[-4:-1]] == ["error", "warning", "note"]
    assert finished.out.endswith("1 error, 1 warning, 1 note\n")


def test_large_pictures_are_counted(command, data):
    picture(data / "images" / "large.jpg", size=(1000, 700))
    picture(data / "images" / "larger.jpg", size=(700, 900))
    finished = command("check-data", data)
    assert finished.code in (0, 1), finished
    lines = finished.out.splitlines()
    assert lines[1].endswith(" to 700x900") or lines[1].endswith(" to 1000x700")
    assert lines[2] == "2 of them are shrunk to 640 pixels for the networks (--data.longest)"


def test_few_pictures_have_a_recipe_of_their_own(command, data):
    advice = "configs/folder_few_chain.py"
    assert advice in command("check-data", data).out
    for n in range(200):
        picture(data / "images" / f"more_{n}.jpg", size=(8, 8))
    rows = "".join(f"more_{n},cat\n" for n in range(200))
    (data / "labels.csv").write_text((data / "labels.csv").read_text() + rows)
    assert advice not in command("check-data", data).out


def test_no_folder(command, tmp_path):
    finished = command("check-data", tmp_path / "gone")
    assert (finished.code, finished.out) == (2, "")
    assert re.fullmatch(r"error: .*gone: no such folder; [^\n]*\n", finished.err)


def test_help_shows_an_example(command):
    finished = command("check-data", "--help")
    assert finished.code == 0
    assert "python -m lpcam_jax check-data my_data" in finished.out
    assert "check-data" in command("--help").out


def test_pictures_alone(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.png")
    only(tmp_path, "NOTE", f"no labels; infer.py --images {tmp_path} maps them")
    assert next(describe(check_folder(tmp_path))) == "2 pictures"
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert set(found(tmp_path).values()) == {"ERROR", "NOTE"}


def test_no_picture_at_all(tmp_path):
    only(tmp_path, "ERROR", "no picture in this folder")


def test_every_layout_is_checked(data, tmp_path):
    coco, voc, folders = (tmp_path / name for name in ("coco", "voc", "folders"))
    names = ["cat", "dog"]
    values = {"categories": [{"id": n, "name": name} for n, name in enumerate(names)], "images": [], "annotations": []}
    for number, (name, labels) in enumerate(LABELS.items()):
        picture(coco / "images" / f"{name}.jpg")
        picture(voc / "JPEGImages" / f"{name}.jpg")
        picture(folders / (labels or "cat") / f"{name}.jpg")
        values["images"].append({"id": number, "file_name": f"{name}.jpg"})
        for one in labels.split():
            values["annotations"].append({"image_id": number, "category_id": names.index(one)})
        objects = "".join(f"<object><name>{one}</name></object>" for one in labels.split())
        (voc / "Annotations").mkdir(exist_ok=True)
        text = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        (voc / "Annotations" / f"{name}.xml").write_text(text)
    (coco / "annotations.json").write_text(json.dumps(values))
    assert found(coco) == found(voc) == {}
    assert set(found(folders).values()) == {"WARNING"}  # the classes are small
    tables = [list(describe(check_folder(root)))[1:] for root in (data, coco, voc)]
    assert tables[0] == tables[1] == tables[2]
    for root in (coco, voc, folders):
        file = next(root.rglob("03.jpg"))
        file.write_bytes(file.read_bytes()[:700])
        mask(root / "masks" / file.relative_to(root if root == folders else file.parent).with_suffix(".png"), 0, 9)
        errors = [line for line, severity in found(root).items() if severity == "ERROR"]
        assert len(errors) == 2, errors
        assert "damaged picture" in errors[0]
        assert "the mask holds 9" in errors[1]


def test_many_classes_are_shown_by_their_strongest_pairs(tmp_path):
    names = [f"class {n:02}" for n in range(20)]
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.jpg")
    table(tmp_path, {"0": ";".join(names), "1": f"{names[7]};{names[3]}", "2": ""})
    lines = list(describe(check_folder(tmp_path)))
    assert "       2 class 03 + class 07" in lines
    assert len([line for line in lines if " + " in line]) == 10
    assert max(map(len, lines)) <= 160


# Labels.


def test_five_defects_are_five_lines(data):
    (data / "labels.csv").write_text(
        "name,labels\n00,cat\n01,dog\n02\n,cat\n../03,cat\ngone,cat\n00.jpg,cat\n04,cat\n05,\n"
    )
    errors = [line for line, severity in found(data).items() if severity == "ERROR"]
    for part in (
        "line 4: fields: 1",
        "line 5: no name",
        "leads out",
        "1 of 6 pictures are not in",
        "00.jpg occurs twice",
    ):
        assert sum(part in line for line in errors) == 1, errors
    assert len(errors) == 5


def test_thousands_of_defects_are_not_thousands_of_lines(data):
    with (data / "labels.csv").open("a") as file:
        file.write("a,b,c\n" * 5000)
    lines = [*found(data)]
    assert len(lines) == 21
    assert lines[-1].startswith("4980 more of the labels")


@pytest.mark.parametrize("content", ["", "id;label\n", "name,labels\n", b"name,labels\n\xff,cat\n"])
def test_a_table_that_cannot_be_read_hides_no_damaged_picture(data, content):
    (data / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (data / "images/03.jpg").write_bytes(b"")
    lines = found(data)
    assert [severity for line, severity in lines.items() if "labels.csv" in line] == ["ERROR"]
    assert [severity for line, severity in lines.items() if "images/03.jpg" in line] == ["ERROR"]


def test_pictures_without_labels(data):
    for n in range(5):
        picture(data / f"images/new/{n}.jpg")
    only(data, "WARNING", r"without labels: images/new/0.jpg, .*2.jpg, ... \(5 in all\); label them")


def test_labels_without_pictures(data):
    table(data, {**LABELS, "gone": "cat", "lost/too.jpg": "dog"})
    only(data, "ERROR", "2 of 26 pictures are not in .*images: gone, lost/too.jpg; add them or remove them")


def test_a_class_in_all_pictures(data):
    table(data, {name: f"{labels} thing" for name, labels in LABELS.items()})
    mask_free(data)
    only(data, "WARNING", "in all 24 pictures: thing; add pictures without")


def test_all_labels_the_same(data):
    table(data, dict.fromkeys(LABELS, "dog;cat"))
    mask_free(data)
    only(data, "ERROR", "nothing to tell apart, all 24 pictures have the same labels: cat, dog; add pictures")


def test_no_label_at_all(data):
    table(data, dict.fromkeys(LABELS, ""))
    mask_free(data)
    only(data, "ERROR", "no picture has a label")


def test_a_small_class(data):
    table(data, {**LABELS, "03": "cow", "07": "cow"})
    mask_free(data)
    only(data, "WARNING", r"classes in fewer than 10 pictures: cow \(2\)")


def test_a_category_in_no_picture(tmp_path):
    for n in range(10):
        for name in ("cat", "dog"):
            picture(tmp_path / name / f"{name}{n}.jpg")
    (tmp_path / "bird").mkdir()
    only(tmp_path, "NOTE", "named, but in no picture: bird; they are left out")


def test_classes_spelled_in_two_ways(data):
    table(data, {name: labels if name < "12" else labels.title() for name, labels in LABELS.items()})
    mask_free(data)
    lines = [line for line in found(data) if "classes that differ only" in line]
    assert lines == [
        "classes that differ only in case or Unicode form: 'Cat' and 'cat', 'Dog' and 'dog'; "
        "spell each class in one way"
    ]


def test_two_kinds_of_labels(data):
    (data / "labels.csv").unlink()
    (data / "annotations.json").write_text("{}")
    (data / "images/a.xml").write_text("<annotation/>")
    only(data, "ERROR", r"labels twice, in .*annotations.json and in .*images/\*.xml; keep one")


def test_what_lists_name_is_of_fitting_length(data):
    names = [f"class number {n:04} " + "x" * 200 for n in range(300)]
    table(data, {name: ";".join([*names, *(["Cat"] if n % 2 else ["cat"])]) for n, name in enumerate(LABELS)})
    for n in range(200):
        picture(data / "images/same" / f"{n}{'y' * 150}.jpg", seed=1).write_bytes(b"no picture")
    (data / "images/copy").mkdir()
    for n in range(200):
        (data / f"images/copy/{n}{'y' * 150}.jpg").write_bytes((data / "images/00.jpg").read_bytes())
    mask(data / "masks/01.png", *range(1, 200))
    lines = [*found(data)]
    assert max(map(len, lines)) < 1500, max(lines, key=len)
    (data / "labels.csv").write_text("name," + "x" * 50_000)
    assert max(map(len, found(data))) < 1500


def test_names_that_are_one_elsewhere_are_shortened(tmp_path):
    for n in range(64):
        picture(tmp_path / "cat" / "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("abcdef.jpg")))
    picture(tmp_path / "dog" / "a.jpg")
    (line,) = (line for line in found(tmp_path) if "differ only in case" in line)
    assert "'cat/ABCDEF.jpg' and 'cat/ABCDEf.jpg' and 'cat/ABCDeF.jpg' and ...; rename" in line


# The files around the pictures.


def test_what_is_passed_over_is_counted_and_named(data):
    (data / "images/scan.jxl.part").mkdir()
    for name in ("a.PSD", "b.psd", "raw/c.NEF"):
        (data / "images" / name).parent.mkdir(exist_ok=True)
        (data / "images" / name).write_bytes(b"?")
    (data / "images/copy").write_bytes((data / "images/00.jpg").read_bytes())
    (data / "images/film.mp4").write_bytes(b"?")
    for name in ("notes.txt", "00.xml", ".hidden.psd"):
        (data / "images" / name).write_bytes(b"?")
    lines = {line: severity for line, severity in found(data).items() if "labels twice" not in line}
    assert lines == {
        "pictures in formats that are not read (1 .nef, 2 .psd): a.PSD, b.psd, raw/c.NEF; "
        "convert them to JPEG or PNG: they are left out": "WARNING",
        "pictures without a picture's extension: copy; "
        "give them the extension of their format, such as .jpg": "WARNING",
        "files that are no pictures: film.mp4; left out": "NOTE",
    }


def test_a_folder_within_itself(data):
    (data / "images/again").symlink_to(".", target_is_directory=True)
    (data / "images/up").symlink_to("..", target_is_directory=True)
    only(data, "NOTE", "links to folders that are read already: again, up; not followed")
    assert next(describe(check_folder(data))).startswith("24 pictures, 2 classes")


# Pictures.


def test_damaged_pictures(data):
    for name in ("00", "01"):
        file = data / f"images/{name}.jpg"
        file.write_bytes(file.read_bytes()[: 600 + int(name)])
    (data / "images/02.jpg").write_bytes(b"")
    (data / "images/03.jpg").write_bytes(b"<html>404</html>")
    lines = {line: severity for line, severity in found(data).items() if "mask" not in line}
    assert set(lines.values()) == {"ERROR"}
    one, two, three = sorted(lines)
    assert re.match(r"damaged picture \(.*\): images/00.jpg, images/01.jpg; replace or remove it", one)
    assert re.match(r"not a picture in a supported format \(.*\): images/03.jpg; convert or remove it", two)
    assert re.match(r"the file is empty: images/02.jpg; replace or remove it", three)


def test_odd_pictures_are_notes(data):
    images = mask_free(data) / "images"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(images / "00.jpg", exif=exif)
    picture(images / "01.jpg", mode="CMYK")
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(images / "deep.png")
    picture(images / "clear.png", mode="RGBA")
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    frames[0].save(images / "film.gif", save_all=True, append_images=frames[1:])
    for name in ("02", "03", "04"):
        (images / f"{name}.jpg").unlink()
    others = {"deep": LABELS["02"], "clear": LABELS["03"], "film": LABELS["04"]}
    table(data, {name: labels for name, labels in LABELS.items() if not "02" <= name <= "04"} | others)
    assert found(data) == {
        "pictures rotated by EXIF: images/00.jpg; read upright": "NOTE",
        "pictures in CMYK: images/01.jpg; read as RGB": "NOTE",
        "pictures of 16 bits: images/deep.png; the high byte of each value is read": "NOTE",
        "pictures with transparency: images/clear.png; transparent parts become white": "NOTE",
        "pictures of several frames: images/film.gif; the first is read": "NOTE",
    }


def test_tiny_pictures(data):
    picture(mask_free(data) / "images/00.jpg", size=(1, 1))
    picture(data / "images/01.jpg", size=(400, 31))
    only(data, "WARNING", "less than 32 pixels wide or high: images/00.jpg, images/01.jpg")


@pytest.mark.parametrize(
    ("side", "expected"),
    [(10_000, {"100 megapixels": "WARNING", "damaged picture": "ERROR"}), (60_000, {"178 megapixels": "ERROR"})],
)
def test_huge_pictures(tmp_path, side, expected):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"?") + chunk(b"IEND", b""))
    lines = {line: severity for line, severity in found(tmp_path).items() if severity != "NOTE"}
    assert len(lines) == len(expected)
    for part, severity in expected.items():
        assert [of for line, of in lines.items() if part in line] == [severity]


def test_names_that_are_one_on_another_system(data):
    names = {"a/B.jpg": "cat", "a/b.jpg": "dog", "caf\xe9.png": "", "cafe\u0301.png": "cat dog"}
    for name in names:
        picture(mask_free(data) / "images" / name)
    table(data, {**LABELS, **names})
    only(data, "WARNING", r"differ only in case or Unicode form: .*'images/a/B.jpg' and 'images/a/b.jpg', 'images/cafe")


@pytest.mark.parametrize(
    ("name", "what"), [("04", "the same picture twice: "), ("05", "the same picture twice, with different labels: ")]
)
def test_the_same_picture_twice(data, name, what):
    file = mask_free(data) / f"images/{name}.jpg"
    file.write_bytes((data / "images/00.jpg").read_bytes())
    only(data, "WARNING", f"{what}images/00.jpg = images/{name}.jpg; keep one")


def test_hostile_names_keep_to_their_line(tmp_path):
    names = ("a\nb.jpg", "\x1b[31m.jpg", "caf\udce9.jpg", "..jpg", "-rf *.jpg")
    for name in names:
        picture(tmp_path / "cat\nfish" / name, seed=1, format="JPEG")
        picture(tmp_path / "dog" / name, seed=2, format="JPEG")
    (tmp_path / "dog" / names[0]).write_bytes(b"")
    (tmp_path / "dog" / names[2]).write_bytes(b"x")
    assert "ERROR" in found(tmp_path).values()
    assert all(line.isprintable() for line in describe(check_folder(tmp_path)))


# Masks.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: mask(path, 0, 1, size=(40, 48)), "the mask is 40x48, its picture 48x40"),
        (lambda path: mask(path, 0, 1, 3, 77), "the mask holds 3, 77: .*only 0..2 and 255"),
        (lambda path: mask(path, 0, 255), "the mask holds only 0 and 255.*store objects as their class index, 1..2"),
        (lambda path: mask(path, 0, 1, mode="RGB"), r"a colour picture \(RGB\).*palette or 8-bit grey"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "damaged picture|not a picture"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: Image.new("L", SIZE).save(path, format="JPEG"), "the mask is a JPEG file"),
    ],
)
def test_wrong_masks(data, make, message):
    for name in ("00", "04"):
        make(data / f"masks/{name}.png")
    only(data, "ERROR", message)
    ((line, _),) = found(data).items()
    assert "masks/00.png, masks/04.png; " in line


def test_a_mask_can_be_wrong_in_two_ways(data):
    mask(data / "masks/00.png", 0, 9, size=(40, 48))
    assert set(found(data).values()) == {"ERROR"}
    assert len(found(data)) == 2


def test_masks_that_contradict_the_labels(data):
    mask(data / "masks/00.png", 0, 2, 255, 0, 0)
    assert [*found(data)] == [
        "masks with classes that are not in the labels: masks/00.png (dog); "
        "correct the labels or the mask; classes are numbered from 1 in alphabetical order",
        "masks without a class that is in the labels: masks/00.png (cat); "
        "correct the labels or the mask; classes are numbered from 1 in alphabetical order",
    ]
    assert set(found(data).values()) == {"WARNING"}


def test_masks_of_no_picture(data):
    mask(data / "masks/zebra.png", 0)
    Image.new("L", SIZE).save(data / "masks/00.jpg")
    only(data, "WARNING", "masks of no picture: masks/00.jpg, masks/zebra.png; name a mask like its picture, ID.png")
    for file in (data / "masks").glob("[0-9]*.png"):
        file.rename(file.with_stem(f"{file.stem}_mask"))
    only(data, "ERROR", "none of its 26 masks has a picture; name them 00.png")


def test_pictures_without_a_mask(data):
    for name in ("00", "01"):
        (data / f"masks/{name}.png").unlink()
    only(data, "NOTE", "pictures without a mask: images/00.jpg, images/01.jpg")
    mask_free(data)
    assert found(data) == {}


# Before training.


class Labelled(Pictures):
    """Pictures of which the labels alone are known."""

    def __init__(self, labels, names=("cat", "dog")):
        super().__init__([f"{n}.jpg" for n in range(len(labels))], names)
        self.labels = np.array(labels, np.float32)


@pytest.mark.parametrize("labels", [[[1, 0], [0, 1]], [[1, 0], [1, 1], [0, 1]], [[0, 1], [1, 0], [0, 0]]])
def test_labels_to_train_on(labels, capsys):
    check_labels(Labelled(labels))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 0]], "none of the 1 pictures has a label"),
        ([[0, 0], [0, 0]], "none of the 2 pictures has a label"),
        ([[1, 0], [1, 0]], "nothing to tell apart, all 2 pictures have the same labels: cat"),
        ([[1, 1], [1, 1]], "same labels: cat, dog"),
    ],
)
def test_labels_that_teach_nothing(labels, message):
    with pytest.raises(UserError, match=message) as caught:
        check_labels(Labelled(labels))
    assert "; " in str(caught.value)


def test_classes_that_a_part_lacks_are_a_warning(capsys):
    check_labels(Labelled([[1, 0], [0, 0]]))
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "warning: the pictures to train on: classes in no picture: dog; "
        "their heat maps will be empty: add pictures of them, or leave the classes out"
    ]
    check_labels(Labelled([[1, 0]]))  # a dry run on one picture
    assert "no picture: dog" in capsys.readouterr().out
    check_labels(Labelled([[1, 0], [1, 1]]))
    assert "in all 2 pictures: cat" in capsys.readouterr().out


def test_training_is_refused_before_it_starts(program, data, tmp_path):
    table(data, dict.fromkeys(LABELS, "cat"))
    finished = program("train.py", "configs/folder.py", "--data.root", data, "--workdir", tmp_path / "run")
    assert finished.code == 2
    assert re.fullmatch(
        r"error: the pictures to train on: nothing to tell apart, all 22 .*: cat; [^\n]*\n", finished.err
    )
    assert not (tmp_path / "run").exists()  # of the classes there are now; the same command works when they are mended
