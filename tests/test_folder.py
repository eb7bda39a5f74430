"""One's own data: images/, labels.csv, masks/."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.folder import Folder
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
    table = "name,labels\na.jpg,dog cat\nsub/b,dog\nsub/c.png,\n"
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
    table = 'name,labels\na,traffic light; car\nb,car|traffic light\nc,traffic light;\nd,"car  bus "\n\n'
    source = Folder(make(tmp_path, table, "a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    assert source.class_names == ("bus", "car", "traffic light")
    assert source.labels.tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]]


def test_byte_order_mark_and_windows_lines(tmp_path):
    source = Folder(make(tmp_path, b"\xef\xbb\xbfname, labels\r\n./sub//a,caf\xc3\xa9\r\n", "sub/a.jpg"))
    assert source.class_names == ("café",)
    assert source.ids == ["sub/a"]


def test_chosen_classes(tmp_path):
    masks = {"a.png": [[0, 1, 2], [3, 255, 0]]}
    root = make(tmp_path, "name,labels\na,cat dog cow\nb,cow\n", "a.jpg", "b.jpg", masks=masks)
    source = Folder(root, classes=("dog", "cat"))
    assert source.class_names == ("dog", "cat")
    assert source.labels.tolist() == [[1, 1], [0, 0]]
    assert source[0].mask.tolist() == [[0, 2, 0], [1, 255, 0]]
    assert "no class bird; choose from cat, cow, dog" in refusal(root, classes=("dog", "bird"))
    assert "twice" in refusal(root, classes=("dog", "dog"))


def test_masks_are_optional(tmp_path):
    masks = {"sub/a.png": [[0, 1, 2], [2, 255, 0]]}
    source = Folder(make(tmp_path, "name,labels\nsub/a,cat dog\nb,cat\n", "sub/a.jpg", "b.jpg", masks=masks))
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
        (None, "no labels: neither labels.csv, COCO JSON, VOC XML nor one folder per class; write labels.csv"),
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
