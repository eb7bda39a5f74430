"""One's own data: images/, labels.csv, masks/."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.annotations.rows import refuse
from lpcam_jax.data.folder import Folder, look_into
from lpcam_jax.machine.errors import UserError


def make(root: Path, table: str | bytes | None, *names: str, masks: dict[str, list[list[int]]] | None = None) -> Path:
    """A data set of 3x2 pictures (width x height)."""
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10, 20, 30)).save(path, format="PNG")
    for name, rows in (masks or {}).items():
        path = root / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(rows, np.uint8)).save(path)
    if table is not None:
        (root / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        Folder(root, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(str(root))
    return text


def test_records(tmp_path):
    table = "name,labels\na.jpg,dog;cat\nsub/b,dog\nsub/c.png,\n"
    source = Folder(make(tmp_path, table, "a.jpg", "sub/b.jpg", "sub/c.png", "unlisted.jpg"))
    assert source.class_names == ("cat", "dog")
    assert source.ids == ["a", "sub/b", "sub/c"]
    assert source.labels.dtype == np.float32
    assert source.labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert not source.has_masks
    assert len(source) == 3
    records = list(source)
    assert [record.id for record in records] == source.ids
    assert records[1].image.shape == (2, 3, 3)
    assert records[1].labels.tolist() == [0, 1]
    assert records[1].mask is None
    assert source.size(1) == (2, 3)


def test_separators(tmp_path):
    table = "name,labels\na,traffic light; car\nb,car;traffic light\nc,traffic light;\nd, bus ;car;\n\n"
    source = Folder(make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    assert source.class_names == ("bus", "car", "traffic light")
    assert source.labels.tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]]


def labels_of(root: Path) -> dict[str, list[str]]:
    source = Folder(root)
    names = np.array(source.class_names)
    return {name: names[row > 0].tolist() for name, row in zip(source.ids, source.labels, strict=True)}


A, B, C, D = ["cat", "traffic light"], ["dog"], [], ["cat", "dog"]


@pytest.mark.parametrize(
    "cells",
    [
        ("traffic light;cat", "dog", "", "dog ; cat"),
        ("cat|traffic light|", "|dog", "", "dog|cat"),
        ('"cat,traffic light"', "dog", "", '"cat,dog"'),
        ('"traffic light, cat"', "dog", '""', '"cat , dog,"'),
        ("\"['cat', 'traffic light']\"", "['dog']", "[]", "\"['dog', 'cat']\""),
        ('"[""cat"", ""traffic light""]"', '"[""dog""]"', "[]", '"[""cat"",""dog""]"'),  # JSON
        ("\"['cat' 'traffic light']\"", "['dog']", "[]", "\"['cat'\n 'dog']\""),  # NumPy
        ("['cat', 'traffic light']", "['dog']", "[]", "['cat', 'dog']"),  # with no quotes around
        ("\"('cat', 'traffic light')\"", "\"('dog',)\"", "()", "\"{'cat', 'dog'}\""),
        ('"[cat, traffic light]"', "[dog]", "[]", '"[cat, dog]"'),
        ("cat;traffic light", "dog", "nan", "cat;dog"),
        ("cat;traffic light", "dog", "None", "cat;dog"),
        ("cat;traffic light", "['dog']", "NaN", "cat;dog"),
    ],
)
def test_several_labels_in_one_cell(tmp_path, cells):
    table = "\n".join(["name,labels", *(f"{name},{cell}" for name, cell in zip("abcd", cells, strict=True))])
    root = make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert labels_of(root) == {"a": A, "b": B, "c": C, "d": D}


@pytest.mark.parametrize("header", ["name,labels", "Name,Labels", ",name,labels", "Unnamed: 0,name,labels"])
def test_the_index_that_pandas_writes(tmp_path, header):
    index = "0," if header.count(",") > 1 else ""
    root = make(tmp_path, f"{header}\n{index}a,cat\n{index}b,dog\n", "a.jpg", "b.jpg")
    assert labels_of(root) == {"a": ["cat"], "b": ["dog"]}


@pytest.mark.parametrize("first", ["name", "image_id", "", ",name"])
@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_a_column_for_each_class(tmp_path, first, yes, no):
    index = "7," if first == ",name" else ""
    table = (
        f"{first},cat,traffic light,bird\n{index}a.jpg,{yes},{yes},{no}\n"
        f"{index}b,{no},{yes},{no}\n{index}c,{no},{no},{no}\n"
    )
    root = make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg")
    assert labels_of(root) == {"a": ["cat", "traffic light"], "b": ["traffic light"], "c": []}
    assert look_into(root, refuse).unused == ["bird"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        # Both readings of the same cells.
        ('a,"cat, red;dog"\nb,cat;dog\n', "3 classes if the comma separates labels, 3 if it does not"),
        ('a,"cat,dog;owl"\nb,cat;"owl,cow"\n', "fields: 3"),
        ("a,cat|dog\nb,cat;dog\n", "2 classes if the bar separates labels, 3 if it does not, as in 'cat|dog'"),
        ("a,cat dog\nb,cat;owl\n", "3 classes if the space separates labels, 3 if it does not, as in 'cat dog'"),
        (
            "a,polar bear\nb,brown bear\n",
            "3 classes if the space separates labels, 2 if it does not, as in 'brown bear'",
        ),
        ("a,polar bear\nb,bear\n", "2 classes if the space separates labels, 2 if it does not, as in 'polar bear'"),
        ('a,"canis, wolf"\nb,"canis, dog"\n', "3 classes if the comma separates labels, 2 if it does not"),
        ("a,traffic light\nb,cat\n", "3 classes if the space separates labels, 2 if it does not"),
        ('a,"cat, red"\nb,dog\n', "3 classes if the comma separates labels, 2 if it does not, as in 'cat, red'"),
        # Lists that are none, columns that are none.
        ("a,\"['cat', ['dog']]\"\n", "is no list of labels"),
        ("a,\"['cat'; 'dog']\"\n", "is no list of labels"),
        ("a,[cat dog]\n", "is no list of labels"),
    ],
)
def test_two_readings_are_shown_and_none_is_taken(tmp_path, table, message):
    text = refusal(make(tmp_path, f"name,labels\n{table}", "a.jpg", "b.jpg"))
    assert message in text
    assert "; " in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,cat,dog\na,1,0\nb,1,2\nc,0,1\n", "line 3: '2' for dog; write 0 or 1"),
        ("name,cat,dog\na,1,0\nb,1,\nc,0,1\n", "line 3: '' for dog; write 0 or 1"),
        ("name,cat,dog\na,1,0\nb,1\n", "line 3: fields: 2 instead of 3"),
        ("name,cat,cat\na,1,0\n", "two columns for cat"),
        ("name,cat,split\na,1,train\n", "the first line is 'name,cat,split'; it must be 'name,labels', or 'name'"),
        ("a.jpg,0\nb.jpg,1\n", "the first line is 'a.jpg,0'; it must be"),
        ("a,0\nb,1\n", "the first line is 'a,0'; it must be"),
    ],
)
def test_columns_that_are_no_classes(tmp_path, table, message):
    assert message in refusal(make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg"))


def test_names_that_hold_what_separates_elsewhere(tmp_path):
    table = 'name,labels\na,"tench, Tinca tinca;"\nb,"tench, Tinca tinca;police car"\nc,car;\nd,police car;\n'
    root = make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert Folder(root).class_names == ("car", "police car", "tench, Tinca tinca")


def test_what_pandas_writes_for_nothing_is_said(tmp_path, capsys):
    root = make(tmp_path, "name,labels\na,cat\nb,nan\nc,nan\nd,[]\n", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    Folder(root), Folder(root)
    assert capsys.readouterr().out.splitlines() == [
        f"note: {root / 'labels.csv'}: 2 pictures with nan for a label; "
        "read as none of the classes; leave out the lines of pictures whose classes are not known"
    ]


@pytest.mark.parametrize("nothing", ["none", "NONE", "NA", "n/a", "Null", "#N/A", "<NA>"])
def test_what_others_write_for_nothing_is_no_class(tmp_path, nothing):
    source = Folder(make(tmp_path, f"name,labels\na,cat\nb,{nothing}\nc,dog\n", "a.jpg", "b.jpg", "c.jpg"))
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.labels, [[1, 0], [0, 0], [0, 1]])


def test_byte_order_mark_and_windows_lines(tmp_path):
    source = Folder(make(tmp_path, b"\xef\xbb\xbfname, labels\r\n./sub//a,caf\xc3\xa9\r\n", "sub/a.jpg"))
    assert source.class_names == ("café",)
    assert source.ids == ["sub/a"]


def test_chosen_classes(tmp_path):
    masks = {"a.png": [[0, 1, 2], [3, 255, 0]]}
    root = make(tmp_path, "name,labels\na,cat;dog;cow\nb,cow\n", "a.jpg", "b.jpg", masks=masks)
    source = Folder(root, classes=("dog", "cat"))
    assert source.class_names == ("dog", "cat")
    assert source.labels.tolist() == [[1, 1], [0, 0]]
    assert source[0].mask.tolist() == [[0, 2, 0], [1, 255, 0]]
    assert "no class bird; choose from cat, cow, dog" in refusal(root, classes=("dog", "bird"))
    assert "twice" in refusal(root, classes=("dog", "dog"))


def test_masks_are_optional(tmp_path):
    masks = {"sub/a.png": [[0, 1, 2], [2, 255, 0]]}
    source = Folder(make(tmp_path, "name,labels\nsub/a,cat;dog\nb,cat\n", "sub/a.jpg", "b.jpg", masks=masks))
    assert source.has_masks
    assert source[0].mask.dtype == np.uint8
    assert source[0].mask.tolist() == masks["sub/a.png"]
    assert source[1].mask is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1]], "mask is 2x1, its picture 3x2"),
        ([[0, 1, 9], [0, 0, 0]], "holds 9; only 0..1"),
        ([[0, 255, 255], [0, 0, 0]], "only 0 and 255"),
    ],
)
def test_wrong_mask_is_named_when_read(tmp_path, rows, message):
    source = Folder(make(tmp_path, "name,labels\na,cat\n", "a.jpg", masks={"a.png": rows}))
    with pytest.raises(UserError, match=message) as caught:
        source[0]
    assert str(caught.value).startswith(str(tmp_path / "masks" / "a.png"))


def test_names_that_differ_in_the_extension(tmp_path):
    masks = {"a.png.png": [[1, 1, 1], [0, 0, 0]]}
    root = make(tmp_path, "name,labels\na.jpg,cat\na.png,cat\n", "a.jpg", "a.png", masks=masks)
    source = Folder(root)
    assert source.ids == ["a.jpg", "a.png"]
    assert source[0].mask is None
    assert source[1].mask is not None
    make(root, "name,labels\na,cat\n")
    assert "a can be a.jpg or a.png; write the extension" in refusal(root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            None,
            "no labels: neither labels.csv, COCO, VOC, LabelMe, YOLO, Label Studio or CVAT nor one folder per class",
        ),
        ("", "must be 'name,labels'"),
        ("a.jpg,cat\n", "first line is 'a.jpg,cat'; it must be 'name,labels'"),
        ("name;labels\na;cat\n", "first line is 'name;labels'; it must be"),
        ("name,labels\n", "no picture after the header"),
        ("name,labels\na,\n", "no picture has a label"),
        ("name,labels\na,cat,dog\n", "line 2: fields: 3 instead of 2"),
        ("name,labels\na\n", "line 2: fields: 1 instead of 2"),
        ("name,labels\n,cat\n", "line 2: no name"),
        ("name,labels\na,cat\na.jpg,dog\n", "a.jpg occurs twice; keep one row"),
        ("name,labels\na,cat\nb,x\nc,x\nd,x\ne,x\n", "4 of 5 pictures are not in"),
        ("name,labels\n../a.jpg,cat\n", "line 2: '../a.jpg' leads out"),
        ("name,labels\nsub/../../a.jpg,cat\n", "leads out"),
        ("name,labels\n/etc/passwd,cat\n", "leads out"),
        ("name,labels\na,caf\xe9\n".encode("latin-1"), "not UTF-8"),
        ("name,labels\na,cat\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_wrong_tables(tmp_path, table, message):
    assert message in refusal(make(tmp_path, table, "a.jpg"))


def test_first_three_missing_are_named(tmp_path):
    text = refusal(make(tmp_path, "name,labels\na,cat\nb,x\nc,x\nd,x\ne,x\n", "a.jpg"))
    assert "b, c, d, ...;" in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('name,labels\n"a\nb",cat\n', "not in {root}/images: 'a\\nb'; add them"),
        ('name,labels\n"a\x1b[31m",cat\n', "not in {root}/images: 'a\\x1b[31m'; add them"),
        ('name,labels\n"../a\nb",cat\n', "'../a\\nb' leads out"),
        ('name,labels\na,"big\ncat;"\n', "no class dog; choose from 'big\\ncat'"),
    ],
)
def test_names_that_would_break_the_line_are_quoted(tmp_path, table, message):
    assert message.format(root=tmp_path) in refusal(make(tmp_path, table, "a.jpg"), classes=("dog",))


def test_folder_name_that_would_break_the_line_is_quoted(tmp_path):
    root = make(tmp_path / "a\nb", "name,labels\nc,cat\n", "c.jpg", masks={"d.png": [[0, 1, 1], [0, 0, 0]]})
    with pytest.raises(UserError) as caught:
        Folder(root)
    assert str(caught.value).startswith(f"{str(root / 'masks')!r}: none of its 1 masks")
    assert str(caught.value).isprintable()


def test_missing_folders(tmp_path):
    assert "no such folder" in refusal(tmp_path / "gone")
    (tmp_path / "labels.csv").write_text("name,labels\na,cat\n")
    assert "images" in refusal(tmp_path)


def test_masks_of_other_pictures(tmp_path):
    root = make(tmp_path, "name,labels\na,cat\n", "a.jpg", masks={"a_mask.png": [[0, 1, 1], [0, 0, 0]]})
    assert "none of its 1 masks has a picture; name them a.png" in refusal(root)


def test_more_classes_than_a_mask_can_count(tmp_path):
    names = ";".join(f"class {i:03}" for i in range(300))
    root = make(tmp_path, f"name,labels\na,{names}\n", "a.jpg")
    assert len(Folder(root).class_names) == 300
    make(root, None, masks={"a.png": [[0, 1, 1], [0, 0, 0]]})
    assert "300 classes" in refusal(root)
