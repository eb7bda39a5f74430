"""The same pictures, labelled in eight ways: a table, COCO, VOC, LabelMe, YOLO, Label Studio, CVAT, class folders."""

import itertools
import json
import re
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.annotations.layouts import read_labels
from lpcam_jax.data.annotations.rows import refuse
from lpcam_jax.data.folder import Folder, look_into
from lpcam_jax.machine.errors import UserError

ONE_CLASS_EACH = {
    "cat/a.jpg": ["cat"],
    "dog/a.jpg": ["dog"],
    "dog/b.png": ["dog"],
    "traffic light/x/1.jpg": ["traffic light"],
}
SEVERAL = {"a.jpg": ["dog", "cat"], "sub/b.png": ["traffic light"], "c.jpg": [], "d.jpg": ["cat"]}


def pictures(folder: Path, *names: str) -> Path:
    """3x2 pictures (width x height)."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10, 20, 30)).save(path, format="PNG")
    return folder


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_of(labels: dict[str, list[str]]) -> str:
    return "\n".join(["name,labels", *(f"{name},{';'.join(names)};" for name, names in labels.items())])


def coco_of(labels: dict[str, list[str]], *, unused: str = "animal") -> dict:
    """As Roboflow exports it: a category more than there are, and two annotations of the same class."""
    names = [unused, *sorted({name for names in labels.values() for name in names})]
    annotations = [(n, names.index(one)) for n, some in enumerate(labels.values()) for one in [*some, *some]]
    return {
        "info": {},
        "images": [{"id": n, "file_name": name, "width": 3, "height": 2} for n, name in enumerate(labels)],
        "annotations": [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(annotations)],
        "categories": [{"id": n, "name": name, "supercategory": unused} for n, name in enumerate(names)],
    }


def xml_of(name: str, labels: list[str]) -> str:
    objects = "".join(f"<object><name>{escape(one)}</name><difficult>1</difficult></object>" for one in labels)
    return f"<annotation><folder>x</folder><filename>{escape(name)}</filename>{objects}</annotation>"


def labelme_of(name: str, labels: list[str], **fields) -> str:
    shape = {"points": [[0, 0], [1, 1]], "group_id": None, "shape_type": "rectangle", "flags": {}}
    shapes = [{"label": label, **shape} for label in [*labels, *labels]]
    values = {"version": "5.0.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": "A" * 99}
    return json.dumps(values | fields)


def task_of(name: str, labels: list[str]) -> dict:
    """As Label Studio exports it: a picture that was uploaded, boxes, and a choice; an annotation that was skipped."""
    corner = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0}
    boxes = [{"type": "rectanglelabels", "value": {**corner, "rectanglelabels": [one]}} for one in labels[1:]]
    choices = [{"type": "choices", "value": {"choices": labels[:1]}}, {"type": "rating", "value": {"rating": 3}}]
    skipped = {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["nothing"]}}]}
    annotations = [{"was_cancelled": False, "result": [*boxes, *choices]}, skipped]
    address = f"/data/upload/1/0a1b2c3d-{name}" if "/" not in name else f"s3://bucket/{name}"
    return {"id": 1, "annotations": annotations, "data": {"meta": "text", "image": address}}


def make(root: Path, layout: str, labels: dict[str, list[str]]) -> Path:
    match layout:
        case "csv":
            write(pictures(root / "images", *labels).parent / "labels.csv", csv_of(labels))
        case "coco":
            write(pictures(root / "images", *labels).parent / "annotations.json", json.dumps(coco_of(labels)))
        case "voc":
            pictures(root / "JPEGImages", *labels)
            for name, some in labels.items():
                write(root / "Annotations" / f"{name}.xml", xml_of(Path(name).name, some))
        case "labelme":
            pictures(root / "images", *labels)
            for name, some in labels.items():
                write((root / "images" / name).with_suffix(".json"), labelme_of(Path(name).name, some))
        case "yolo":
            names = sorted({name for names in labels.values() for name in names})
            for name, some in labels.items():
                lines = [f"{names.index(one)} 0.5 0.5 0.1 .2\n" for one in [*some, *some]]
                write((root / "labels" / name).with_suffix(".txt"), "".join(lines))
            write(pictures(root / "images", *labels).parent / "classes.txt", "\n".join(names))
        case "studio":
            pictures(root / "images", *labels)
            write(root / "project-1.json", json.dumps([task_of(name, some) for name, some in labels.items()]))
        case "cvat":
            pictures(root / "JPEGImages", *labels)
            names = ["background", *sorted({name for names in labels.values() for name in names})]
            write(
                root / "labelmap.txt", "# name:colour\n" + "".join(f"{one}:{n},0,9::\n" for n, one in enumerate(names))
            )
            for name, some in labels.items():
                mask = np.zeros((2, 3, 3), np.uint8) + np.array([0, 0, 9], np.uint8)
                mask[0, : len(some), 0] = [names.index(one) for one in some]
                path = (root / "SegmentationClass" / name).with_suffix(".png")
                Image.fromarray(mask).save(write(path, b""))
        case "folders":
            pictures(root, *labels)
    return root


def labels_of(source: Folder) -> dict[str, list[str]]:
    names = np.array(source.class_names)
    return {name: names[row > 0].tolist() for name, row in zip(source.ids, source.labels, strict=True)}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        Folder(root)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(str(root))
    assert "; " in text, "what was found; what to do"
    return text


def defects(root: Path) -> list[str]:
    found = []
    look_into(root, found.append)
    return found


# The same in every layout.


@pytest.mark.parametrize("layout", ["csv", "coco", "voc", "labelme", "yolo", "studio", "cvat", "folders"])
def test_the_same_pictures_in_eight_layouts(tmp_path, layout):
    root = make(tmp_path, layout, ONE_CLASS_EACH)
    mask = [[0, 1, 2], [3, 255, 0]]
    write(root / "masks/dog/a.png", b"")
    Image.fromarray(np.array(mask, np.uint8)).save(root / "masks/dog/a.png")
    source = Folder(root)
    assert source.class_names == ("cat", "dog", "traffic light")
    assert labels_of(source) == {
        "cat/a": ["cat"],
        "dog/a": ["dog"],
        "dog/b": ["dog"],
        "traffic light/x/1": ["traffic light"],
    }
    masks = {record.id: record.mask for record in source}
    assert masks.pop("dog/a").tolist() == mask
    assert set(masks.values()) == {None}
    assert source[0].image.shape == (2, 3, 3)
    assert source.size(0) == (2, 3)
    assert defects(root) == []


@pytest.mark.parametrize("layout", ["csv", "coco", "voc", "labelme", "yolo", "studio", "cvat"])
def test_the_same_labels_in_seven_layouts(tmp_path, layout):
    source = Folder(make(tmp_path, layout, SEVERAL))
    assert source.class_names == ("cat", "dog", "traffic light")
    assert {name: labels_of(source)[name] for name in ("a", "sub/b", "c", "d")} == {
        "a": ["cat", "dog"],
        "sub/b": ["traffic light"],
        "c": [],
        "d": ["cat"],
    }


@pytest.mark.parametrize("layout", ["coco", "voc", "labelme", "yolo", "studio", "cvat", "folders"])
def test_labels_csv_wins(tmp_path, layout):
    root = make(tmp_path, layout, {"dog/a.jpg": ["dog"]})
    make(root, "csv", {"b.jpg": ["cow"], "c.jpg": []})
    assert labels_of(Folder(root)) == {"b": ["cow"], "c": []}


def test_odd_pictures_in_a_folder_a_class(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    picture, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
    picture.save(tmp_path / "cat/turned.jpg", exif=exif)
    Image.fromarray(noise[..., 0].astype(np.uint16) << 8).save(tmp_path / "cat/deep.png")
    for mode, name in (("CMYK", "c.jpg"), ("L", "l.jpg"), ("P", "p.png"), ("RGBA", "r.png"), ("1", "1.png")):
        picture.convert(mode).save(tmp_path / "dog" / name)
    source = Folder(tmp_path)
    assert len(source) == 7
    for index, record in enumerate(source):
        assert (record.image.dtype, record.image.ndim) == (np.uint8, 3)
        assert record.image.shape == (*source.size(index), 3)
        assert source.size(index) == ((30, 20) if record.id == "cat/turned" else (20, 30))


# Where the files are.


@pytest.mark.parametrize("file", ["annotations.json", "_annotations.coco.json", "my labels.json", "annotations/x.json"])
@pytest.mark.parametrize("folder", ["images", "."])
def test_places_of_coco(tmp_path, file, folder):
    write(tmp_path / file, json.dumps(coco_of(SEVERAL)))
    pictures(tmp_path / folder, *SEVERAL)
    assert Folder(tmp_path).ids == ["a", "sub/b", "c", "d"]


@pytest.mark.parametrize("folder", ["images", "annotations"])
def test_coco_beside_the_pictures(tmp_path, folder):
    write(pictures(tmp_path / folder, *SEVERAL) / "export.json", json.dumps(coco_of(SEVERAL)))
    assert Folder(tmp_path).ids == ["a", "sub/b", "c", "d"]


def test_coco_names_with_the_folder_of_pictures(tmp_path):
    labels = {"images/a.jpg": ["cat"], "images/b.jpg": []}
    write(pictures(tmp_path, *labels) / "annotations.json", json.dumps(coco_of(labels)))
    pictures(tmp_path, "masks/images/a.png")  # which are no pictures to be labelled
    assert labels_of(Folder(tmp_path)) == {"images/a": ["cat"], "images/b": []}
    assert look_into(tmp_path, refuse).unlabelled == []


def test_a_category_without_annotation_is_no_class(tmp_path):
    root = make(tmp_path, "coco", SEVERAL)
    assert "animal" not in Folder(root).class_names
    assert look_into(root, refuse).unused == ["animal"]


@pytest.mark.parametrize("xml", ["Annotations", "annotations", "images", "JPEGImages", "."])
@pytest.mark.parametrize("folder", ["JPEGImages", "images", "."])
def test_places_of_voc(tmp_path, xml, folder):
    labels = {"a.jpg": ["cat"], "b.jpg": [], "c.jpg": ["dog", "cat"]}
    pictures(tmp_path / folder, *labels)
    for name, some in labels.items():
        write(tmp_path / xml / f"{Path(name).stem}.xml", xml_of(name, some))
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"], "b": [], "c": ["cat", "dog"]}


@pytest.mark.parametrize("folder", [".", "images", "JPEGImages"])
def test_places_of_a_folder_a_class(tmp_path, folder):
    names = ("cat/1.jpg", "dog/1.jpg", "dog/deep/er/2.jpg")
    pictures(tmp_path / folder, *names, "of no class.jpg", ".hidden/3.jpg")
    (tmp_path / folder / "bird").mkdir()
    pictures(tmp_path, "masks/cat/1.png")
    assert labels_of(Folder(tmp_path)) == {"cat/1": ["cat"], "dog/1": ["dog"], "dog/deep/er/2": ["dog"]}
    found = look_into(tmp_path, refuse)
    assert found.unused == ["bird"]
    assert [path.name for path in found.unlabelled] == ["of no class.jpg"]


def test_the_first_pictures_are_of_all_classes(tmp_path):
    pictures(tmp_path, *(f"cat/{n}.jpg" for n in range(9)), "dog/x.jpg", "dog/y.jpg", "owl/z.jpg")
    assert Folder(tmp_path).ids[:6] == ["cat/0", "dog/x", "owl/z", "cat/1", "dog/y", "cat/2"]


def test_pictures_alone_have_no_labels(tmp_path):
    pictures(tmp_path / "images", "a.jpg")
    assert read_labels(tmp_path, refuse).origin is None
    assert (
        "no labels: neither labels.csv, COCO, VOC, LabelMe, YOLO, Label Studio or CVAT nor one folder per class"
        in refusal(tmp_path)
    )


# LabelMe.


@pytest.mark.parametrize("folder", [".", "images", "JPEGImages"])
@pytest.mark.parametrize("beside", ["", "annotations", "labels"])
def test_places_of_labelme(tmp_path, folder, beside):
    labels = {"a.jpg": ["cat"], "b.jpg": [], "c.jpg": ["dog", "cat"]}
    pictures(tmp_path / folder, *labels, "not labelled yet.jpg")
    for name, some in labels.items():
        leads = f"..\\{folder}\\{name}" if beside else name
        write(tmp_path / (beside or folder) / f"{Path(name).stem}.json", labelme_of(leads, some))
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"], "b": [], "c": ["cat", "dog"]}
    assert [path.name for path in look_into(tmp_path, refuse).unlabelled] == ["not labelled yet.jpg"]


def test_one_labelme_file(tmp_path):
    write(pictures(tmp_path, "a.jpg", "b.jpg") / "a.JSON", labelme_of("a.jpg", ["cat"]))
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"]}


def test_flags_of_labelme_are_labels_where_there_is_no_shape(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    for name, flags in (("a", {"cat": True, "dog": False}), ("b", {"cat": True, "dog": True})):
        write(tmp_path / f"{name}.json", labelme_of(f"{name}.jpg", [], flags=flags))
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"], "b": ["cat", "dog"]}
    write(tmp_path / "b.json", labelme_of("b.jpg", ["owl", "__ignore__", "_background_"], flags={"blurred": True}))
    assert labels_of(Folder(tmp_path)) == {"a": [], "b": ["owl"]}
    (finding,) = look_into(tmp_path, refuse).remarks
    assert str(finding).startswith(f"{tmp_path}: 1 of 2 pictures have flags and no shape: a.jpg; read as none of")


def test_swapped_names_of_labelme_are_a_warning(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "a.json", labelme_of("b.jpg", ["cat"]))
    write(tmp_path / "b.json", labelme_of("a.jpg", ["dog"]))
    (finding,) = look_into(tmp_path, refuse).remarks
    assert finding.where == ("a (b.jpg)", "b (a.jpg)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as LabelMe JSON"),
        ("[" * 100_000, "cannot be read as LabelMe JSON"),
        ("{}", "not LabelMe, it has no list of shapes; move it away"),
        ("[]", "not LabelMe"),
        (labelme_of("a.jpg", ["cat"], shapes=[{"label": None}]), "a shape has no label"),
        (labelme_of("a.jpg", ["cat"], shapes=[7]), "a shape has no label"),
        (labelme_of("a.jpg", ["cat"], imagePath=None), "None is not an imagePath"),
        (labelme_of("\ud800.jpg", ["cat"]), "is not an imagePath"),
        (labelme_of("..", ["cat"]), "leads out"),
        (labelme_of("gone.jpg", ["cat"]), "1 of 4 pictures are not in"),
    ],
    ids=range(10),
)
def test_wrong_labelme(tmp_path, text, message):
    root = make(tmp_path, "labelme", SEVERAL)
    write(root / "images/a.json", text)
    assert message in refusal(root)


# YOLO.


@pytest.mark.parametrize("names", ["classes.txt", "labels/classes.txt", "images/obj.names", "Data.YAML", "dataset.yml"])
@pytest.mark.parametrize("labels", ["labels", "Labels", "images"])
def test_places_of_yolo(tmp_path, labels, names):
    pictures(tmp_path / "images", "train/a.jpg", "val/b.jpg", "val/c.jpg", "val/not labelled yet.jpg")
    texts = {"train/a": "1 .5 .5 .1 .1\n0 0.1 0.1 0.2 0.2 0.3 0.3\n", "val/b": "", "val/c": "2.0 5e-1 1 1 0\n\n"}
    for name, text in texts.items():
        write(tmp_path / labels / f"{name}.{'TXT' if 'b' in name else 'txt'}", text)
    is_yaml = Path(names).suffix.lower() in (".yaml", ".yml")
    mapping = "path: x\nnames:\n  0: cat\n  1: dog\n  2: traffic light\n  3: 'no'\n"
    names = names.replace("labels/", f"{labels}/")
    write(tmp_path / names, mapping if is_yaml else "cat\ndog\ntraffic light\nno\n\n")
    assert labels_of(Folder(tmp_path)) == {"train/a": ["cat", "dog"], "val/b": [], "val/c": ["traffic light"]}
    contents = look_into(tmp_path, refuse)
    assert contents.unused == ["no"]
    assert [path.name for path in contents.unlabelled] == ["not labelled yet.jpg"]


def test_one_part_of_a_yolo_export(tmp_path):
    """As Roboflow writes it: the names are above the parts."""
    for part in ("train", "valid"):
        pictures(tmp_path / part / "images", "a.jpg", "b.jpg")
        write(tmp_path / part / "labels/a.txt", "0 .5 .5 .1 .1")
        write(tmp_path / part / "labels/b.txt", "1 .5 .5 .1 .1")
    write(tmp_path / "data.yaml", "train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")
    assert f"name one of them: {tmp_path / 'train'}" in refusal(tmp_path)
    assert labels_of(Folder(tmp_path / "train")) == {"a": ["cat"], "b": ["dog"]}


def test_yolo_beside_pictures_in_the_folder_itself(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "a.txt", "0 .5 .5 .1 .1")
    write(tmp_path / "b.txt", "1 .5 .5 .1 .1")
    write(tmp_path / "README.txt", "Pictures of two cats.")
    write(tmp_path / "classes.txt", "cat\ndog")
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"], "b": ["dog"]}


def test_captions_are_no_labels(tmp_path):
    pictures(tmp_path / "images", "a.jpg", "cat/b.jpg", "dog/c.jpg")
    for name in ("a", "cat/b", "dog/c"):
        write(tmp_path / f"images/{name}.txt", "2 cats on a sofa")
    write(tmp_path / "classes.txt", "cat\ndog")
    assert labels_of(Folder(tmp_path)) == {"cat/b": ["cat"], "dog/c": ["dog"]}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.txt", None, "YOLO text files and no names of the classes; write them into"),
        ("classes.txt", "cat\ncat\n", "cat occurs twice"),
        ("classes.txt", "cat\n", "line 1: no class has the number 1"),
        ("classes.txt", b"\xff\xfe", "cannot be read as names of classes"),
        ("data.yaml", "names: [cat, owl, dog]", "other classes than in"),
        ("data.yaml", "names: [", "cannot be read as names of classes"),
        ("data.yaml", "nc: 3", "it has no list of names"),
        ("data.yaml", "names: !!python/object/apply:os.getcwd []", "cannot be read as names of classes"),
        ("data.yaml", "names: !!int ''", "cannot be read as names of classes"),
        ("data.yaml", "names: !!bool x", "cannot be read as names of classes"),
        ("data.yaml", "names: " + "[" * 3000, "cannot be read as names of classes"),
        ("labels/a.txt", "cat .5 .5 .1 .1", "line 1: 'cat .5 .5 .1 .1' is no object of YOLO"),
        ("labels/a.txt", "0 .5 .5 .1 .1\n0 .5\n", "line 2: '0 .5' is no object of YOLO"),
        ("labels/a.txt", "3 .5 .5 .1 .1", "line 1: no class has the number 3"),
        ("labels/a.txt", "9" * 5000 + " 1 1 1 1", "no class has the number 99"),
        ("labels/a.txt", b"0 .5 .5 .1 .1\n\xff", "cannot be read as YOLO text"),
        ("labels/gone.txt", "0 .5 .5 .1 .1", "1 of 5 pictures are not in"),
    ],
    ids=range(17),
)
def test_wrong_yolo(tmp_path, file, text, message):
    root = make(tmp_path, "yolo", SEVERAL)
    if text is None:
        (root / file).unlink()
    else:
        write(root / file, text)
    assert message in refusal(root)


# Names in upper case, and swapped.


def test_label_files_in_upper_case(tmp_path):
    """Cameras, Windows and old programs write them."""
    for layout, old, new in (
        ("csv", "labels.csv", "Labels.CSV"),
        ("coco", "annotations.json", "annotations.JSON"),
        ("coco", "annotations.json", "Export.Json"),
        ("coco", "annotations.json", "Annotations/x.JSON"),
        ("voc", "Annotations", "ANNOTATIONS"),
    ):
        root = make(tmp_path / new.replace("/", "_"), layout, SEVERAL)
        (root / new).parent.mkdir(exist_ok=True)
        (root / old).rename(root / new)
        if layout == "voc":
            for file in root.rglob("*.xml"):
                file.rename(file.with_suffix(".XML"))
        pictures_folder = root / ("JPEGImages" if layout == "voc" else "images")
        pictures_folder.rename(root / pictures_folder.name.title())
        pictures(root, "Masks/a.png")
        (root / "Masks/a.png").rename(root / "Masks/a.PNG")
        assert labels_of(Folder(root)) == {"a": ["cat", "dog"], "sub/b": ["traffic light"], "c": [], "d": ["cat"]}
        contents = look_into(root, refuse)
        assert [mask and mask.name for mask in contents.masks] == ["a.PNG", None, None, None]
        assert (contents.unlabelled, contents.spare_masks) == ([], [])


def test_masks_in_upper_case_of_a_folder_a_class(tmp_path):
    pictures(tmp_path, "cat/a.jpg", "dog/b.jpg", "MASKS/cat/a.png")
    (tmp_path / "MASKS/cat/a.png").rename(tmp_path / "MASKS/cat/a.Png")
    source = Folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.has_masks
    pictures(tmp_path, "MASKS/cat/a.png")  # spelled like this, it is the one
    contents = look_into(tmp_path, refuse)
    assert [path.name for path in contents.spare_masks] == ["a.Png"]


def test_swapped_names_are_a_warning(tmp_path):
    root = make(tmp_path, "voc", {"a.jpg": ["cat"], "b.jpg": ["dog"], "c.jpg": []})
    write(root / "Annotations/a.jpg.xml", xml_of("b.jpg", ["dog"]))
    write(root / "Annotations/b.jpg.xml", xml_of("a.jpg", ["cat"]))
    contents = look_into(root, refuse)
    assert [str(finding) for finding in contents.remarks] == [
        "label files with the name of one picture and the inside of another: a.jpg (b.jpg), b.jpg (a.jpg); "
        "what is written inside counts: correct it, or rename the files"
    ]
    assert labels_of(Folder(root)) == {"b": ["dog"], "a": ["cat"], "c": []}


def test_a_name_of_no_picture_is_no_warning(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    for number, name in enumerate(("a.jpg", "b.jpg")):
        write(tmp_path / f"{number}.xml", xml_of(name, [name]))
    assert look_into(tmp_path, refuse).remarks == []


# The program's own output.


def test_runs_among_the_classes_are_none(tmp_path, capsys):
    pictures(tmp_path, "cat/a.jpg", "dog/b.jpg", "runs/x/prototypes/1.jpg", "heat maps/overlays/a.png")
    write(tmp_path / "runs/x/config.json", '{"kind": "classifier", "class_names": ["cat"], "config": {}}')
    write(tmp_path / "heat maps/protocol.json", '{"class_names": ["cat"]}')
    assert labels_of(Folder(tmp_path)) == {"cat/a": ["cat"], "dog/b": ["dog"]}
    assert look_into(tmp_path, refuse).unused == []
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: results of this program in ")
    assert ": heat maps, runs/x; left out" in line


def test_links_among_the_classes(tmp_path):
    pictures(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "all").symlink_to(".", target_is_directory=True)
    (tmp_path / "a cat").symlink_to("cat", target_is_directory=True)
    assert labels_of(Folder(tmp_path)) == {"cat/a": ["cat"], "dog/b": ["dog"]}
    assert look_into(tmp_path, refuse).unused == []


def test_labels_of_pictures_that_are_not_read(tmp_path):
    root = make(tmp_path, "csv", {"a.jpg": ["cat"], "b.psd": ["dog"], "c.psd": []})
    assert "2 of 3 pictures are in formats that are not read: b.psd, c.psd; convert them to JPEG" in refusal(root)
    write(root / "labels.csv", csv_of({"a": ["cat"], "b": ["dog"], "c": ["dog"]}))
    assert "2 of 3 pictures are in formats that are not read: b, c; convert them to JPEG" in refusal(root)


# What is refused.


def test_two_kinds_of_labels(tmp_path):
    make(make(tmp_path, "coco", SEVERAL), "voc", SEVERAL)
    text = refusal(tmp_path)
    assert f"labels twice, in {tmp_path / 'annotations.json'} and in {tmp_path / 'Annotations'}" in text
    assert "keep one of them" in text


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations(["coco", "voc", "labelme", "yolo", "cvat"], 2)), ids="-".join
)
def test_any_two_kinds_of_labels(tmp_path, one, other):
    make(make(tmp_path, one, SEVERAL), other, SEVERAL)
    if (one, other) == ("coco", "labelme"):  # the usual name says it
        assert len(Folder(tmp_path)) == 4
        (tmp_path / "annotations.json").rename(tmp_path / "export.json")
    if (one, other) == ("voc", "cvat"):  # CVAT writes both, of the same objects
        assert len(Folder(tmp_path)) == 4
        return
    text = refusal(tmp_path)
    assert "labels twice, in" in text
    assert "keep one of them" in text


def test_several_json_files(tmp_path):
    pictures(tmp_path / "images", *SEVERAL)
    for name in ("train.json", "val.json"):
        write(tmp_path / "annotations" / name, json.dumps(coco_of(SEVERAL)))
    assert "2 JSON files could be its labels" in refusal(tmp_path)
    write(tmp_path / "annotations.json", json.dumps(coco_of(SEVERAL)))
    assert len(Folder(tmp_path)) == 4


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    for part in ("train", "valid"):
        pictures(tmp_path, f"{part}/cat/a.jpg")
        write(tmp_path / part / "_annotations.coco.json", json.dumps(coco_of({"cat/a.jpg": ["cat"]})))
    assert f"name one of them: {tmp_path / 'train'}" in refusal(tmp_path)
    assert labels_of(Folder(tmp_path / "train")) == {"cat/a": ["cat"]}


@pytest.mark.parametrize("layout", ["csv", "coco", "voc", "labelme", "yolo", "studio", "cvat", "folders"])
def test_a_folder_around_the_data_set(tmp_path, layout):
    make(tmp_path / "archive", layout, ONE_CLASS_EACH)
    assert f"name one of them: {tmp_path / 'archive'}" in refusal(tmp_path)


def test_one_defect_of_json_is_one_line(tmp_path):
    """Annotations of a picture or category that is refused itself are no defects of their own."""
    values = coco_of(SEVERAL)
    values["images"][0]["file_name"] = "../a.jpg"
    values["categories"][3]["name"] = ""
    write(pictures(tmp_path / "images", *SEVERAL).parent / "annotations.json", json.dumps(values))
    found = defects(tmp_path)
    assert len(found) == 2, found
    assert look_into(tmp_path, found.append).ids == ["sub/b", "c", "d"]


DOCS = (Path(__file__).parents[1] / "docs/your_own_pictures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "file"), [("csv", "labels.csv"), ("json", "a.json"), ("xml", "Annotations/a.xml")]
)
def test_the_documented_examples(tmp_path, language, file):
    (example,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    names = ["IMG_0012.jpg"] if language == "xml" else ["IMG_0012.jpg", "IMG_0013.jpg", "IMG_0014.jpg"]
    write(pictures(tmp_path / "images", *names).parent / file, example)
    expected = {"IMG_0012": ["cat", "dog"], "IMG_0013": ["cat", "traffic light"], "IMG_0014": []}
    assert labels_of(Folder(tmp_path)) == {Path(name).stem: expected[Path(name).stem] for name in names}


def changed(key: str, number: int | None, **fields) -> str:
    """The JSON with an entry changed, or added."""
    values = coco_of(SEVERAL)
    if number is None:
        values[key].append(fields)
    else:
        values[key][number] |= fields
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        pytest.param("[" * 100_000, "cannot be read as JSON", id="deep"),
        pytest.param("9" * 5000, "cannot be read as JSON", id="long number"),
        ("[]", "not COCO, it has no list of images"),
        ('{"images": []}', "not COCO, it has no list of annotations"),
        ('{"images": [], "annotations": [3], "categories": []}', "no list of annotations"),
        ('{"images": [], "annotations": [], "categories": {}}', "no list of categories"),
        ('{"images": [], "annotations": [], "categories": []}', "no picture in images"),
        (json.dumps(coco_of({"a.jpg": []})), "no picture has a label"),
        (changed("images", 1, file_name="../a.jpg"), "images[1]: '../a.jpg' leads out"),
        (changed("images", 1, file_name="/etc/passwd"), "images[1]: '/etc/passwd' leads out"),
        (changed("images", 1, file_name="x/../../a.jpg"), "leads out"),
        (changed("images", 1, file_name="a\n\x1b[31m.jpg"), r"'a\n\x1b[31m.jpg'"),
        (changed("images", 1, file_name="a\0.jpg"), r"'a\x00.jpg'"),
        (changed("images", 1, file_name="\ud800.jpg"), r"images[1]: '\ud800.jpg' is not a file_name"),
        (changed("images", 1, file_name=7), "images[1]: 7 is not a file_name"),
        (changed("images", 1, file_name=" "), "images[1]: ' ' is not a file_name"),
        (changed("images", 1, id=[1]), "images[1]: the id [1] is not a number"),
        (changed("images", 1, id=0), "images[1]: the id 0 occurs twice"),
        (changed("images", 1, file_name="a.jpg"), "a.jpg occurs twice"),
        (changed("images", 1, file_name="gone.jpg"), "1 of 4 pictures are not in"),
        (changed("categories", 1, name=None), "categories[1]: None is not a name"),
        (changed("categories", 1, id=True), "categories[1]: the id True is not a number"),
        (changed("categories", 1, id=0), "categories[1]: the id 0 occurs twice"),
        (changed("annotations", None, image_id=0), "no category has the category_id None"),
        (changed("annotations", None, image_id=99, category_id=1), "no picture has the image_id 99"),
        (changed("annotations", None, image_id={}, category_id=1), "no picture has the image_id {}"),
        pytest.param(
            changed("annotations", None, image_id="9" * 10**6), "no picture has the image_id '9999", id="long id"
        ),
    ],
)
def test_wrong_json(tmp_path, text, message):
    pictures(tmp_path / "images", *SEVERAL)
    write(tmp_path / "annotations.json", text)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a VOC annotation"),
        ("<annotation>", "cannot be read as a VOC annotation"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "cannot be read as a VOC annotation"),
        ("<svg/>", "holds 'svg', not a VOC annotation"),
        ("<annotation/>", "no filename"),
        ("<annotation><filename> </filename></annotation>", "no filename"),
        ("<annotation><filename>a.jpg</filename><object/></annotation>", "an object has no name"),
        (xml_of("../a.jpg", ["cat"]), "'../a.jpg' leads out"),
        (xml_of("..", ["cat"]), "leads out"),
        (xml_of("/etc/passwd", ["cat"]), "'/etc/passwd' leads out"),
        (xml_of("gone.jpg", ["cat"]), "1 of 4 pictures are not in"),
        (xml_of("sub/b.png", ["cat"]), "sub/b.png occurs twice"),
        ("<!DOCTYPE annotation>" + xml_of("a.jpg", ["cat"]), "it has a DOCTYPE"),
        (("<!DOCTYPE annotation>" + xml_of("a.jpg", ["cat"])).encode("utf-16"), "it has a DOCTYPE"),
        (
            '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>',
            "it has a DOCTYPE",
        ),
        (
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>',
            "it has a DOCTYPE",
        ),
        ("<annotation><filename>&a;</filename></annotation>", "cannot be read as a VOC annotation"),
        pytest.param("<annotation>" + " " * (9 << 20), "it has 9 MB", id="large"),
    ],
)
def test_wrong_xml(tmp_path, text, message):
    root = make(tmp_path, "voc", SEVERAL)
    write(root / "Annotations/a.jpg.xml", text)
    assert message in refusal(root)


def test_no_name_leaves_the_folder(tmp_path):
    """Pictures outside are there, and are not found."""
    pictures(tmp_path, "secret.jpg", "data/images/a.jpg")
    for number, name in enumerate(("../secret.jpg", "../../secret.jpg", str(tmp_path / "secret.jpg"))):
        root = tmp_path / "data"
        for layout, text in (
            ("labels.csv", csv_of({name: ["cat"]})),
            ("annotations.json", json.dumps(coco_of({name: ["cat"]}))),
        ):
            file = write(root / layout, text)
            assert "leads out of the data set" in refusal(root), number
            file.unlink()


def test_all_defects_at_once(tmp_path):
    table = "name,labels\na,cat\nb,cat,dog\n,cat\n../a,cat\nsub/b,dog\nsub/b.png,dog\ngone,cat\n"
    root = pictures(tmp_path / "images", "a.jpg", "sub/b.png").parent
    write(root / "labels.csv", table)
    found = defects(root)
    assert found[0] == refusal(root)
    for part in (
        "line 3: fields: 3",
        "line 4: no name",
        "line 5: '../a'",
        "1 of 4 pictures are not in",
        "sub/b.png occurs twice",
    ):
        assert sum(part in one for one in found) == 1, found
    assert len(found) == 5
    contents = look_into(root, found.append)
    assert (contents.ids, contents.labels.tolist()) == (["a", "sub/b"], [[1, 0], [0, 1]])


def test_names_in_another_case_or_unicode_form(tmp_path):
    root = pictures(tmp_path / "images", "cafe\u0301.jpg", "B.jpg").parent
    write(root / "labels.csv", csv_of({"caf\xe9.jpg": ["cat"], "b": ["dog"]}))
    text = refusal(root)
    assert (
        r"names of 2 of 2 pictures differ from the files' in case or Unicode form: 'caf\xe9.jpg' for 'cafe\u0301.jpg'"
        in text
    )
    assert "'b' for 'B'" in text


@pytest.mark.parametrize("layout", ["csv", "coco", "voc", "labelme", "yolo", "studio", "cvat"])
def test_damaged_label_files_are_read_or_refused_in_one_line(tmp_path, layout):
    root, rng = make(tmp_path, layout, SEVERAL), np.random.default_rng(0)
    names = ("labels.csv", "annotations.json", "Annotations/a.jpg.xml", "images/a.json", "labels/a.txt")
    names = (*names, "project-1.json", "labelmap.txt")
    file = next(file for name in names if (file := root / name).exists())
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    outcomes = set()
    for _ in range(150):
        content = whole.copy()
        content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        file.write_bytes(content[: rng.integers(1, 2 * len(content))].tobytes())
        found = defects(root)
        assert all(one.isprintable() for one in found)
        if found:
            assert refusal(root) == found[0]
            outcomes.add("refused")
        else:
            source = Folder(root)
            assert source.labels.shape == (len(source), len(source.class_names))
            outcomes.add("read")
    assert "refused" in outcomes


PARTS = [
    ("train", "val"),
    ("train2017", "val2017"),
    ("train", "test1"),
    ("images_train", "val_images"),
    ("Train", "valid"),
]


@pytest.mark.parametrize("folders", [*PARTS, ("train", "valid", "runs")])
def test_names_of_parts_have_many_forms(tmp_path, folders):
    pictures(tmp_path, *(f"{folder}/{n}.jpg" for n, folder in enumerate(folders)))
    (tmp_path / "notebooks").mkdir()
    assert f"are data sets, not classes; name one of them: {tmp_path}/" in refusal(tmp_path)


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    pictures(tmp_path, "train/1.jpg", "tram/2.jpg")
    assert Folder(tmp_path).class_names == ("train", "tram")


def test_a_choice_for_a_region_is_no_label_of_the_picture(tmp_path):
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    box = {"id": "x", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["cat"]}}
    results = [box, {"id": "x", "type": "choices", "value": {"choices": ["hidden"]}}]
    others = [{"id": "y", "type": "choices", "value": {"choices": ["dog"]}}]
    tasks = [
        {"data": {"image": f"/data/local-files/?d={name}.jpg"}, "annotations": [{"result": some}]}
        for name, some in (("a", results), ("b", others))
    ]
    write(tmp_path / "project.json", json.dumps(tasks))
    assert labels_of(Folder(tmp_path)) == {"a": ["cat"], "b": ["dog"]}


def test_uploaded_pictures_of_one_name_are_not_guessed(tmp_path):
    pictures(tmp_path / "images", "day1/a b.jpg", "day2/a b.jpg", "c.jpg")
    task = task_of("a_b.jpg", ["cat"])
    write(tmp_path / "project.json", json.dumps([task, task_of("c.jpg", ["dog"])]))
    assert "may be any of day1/a b.jpg, day2/a b.jpg; give them different names" in refusal(tmp_path)
    (tmp_path / "images" / "day2" / "a b.jpg").unlink()
    assert labels_of(Folder(tmp_path)) == {"day1/a b": ["cat"], "c": ["dog"]}
