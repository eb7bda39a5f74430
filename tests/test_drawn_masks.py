"""Masks that label files draw: what `export` writes is read back, pixel by pixel, and what cannot be drawn is said."""

import base64
import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from scipy.ndimage import gaussian_filter, label
from test_masks import packed_grey

from lpcam_jax.data.annotations import brush, run_lengths
from lpcam_jax.data.checks import check_folder
from lpcam_jax.data.folder import Folder
from lpcam_jax.exports.coco import coco_instances
from lpcam_jax.exports.cvat import cvat_archive
from lpcam_jax.exports.label_studio import label_studio_tasks
from lpcam_jax.exports.labelme import labelme_document
from lpcam_jax.exports.yolo import yolo_description, yolo_labels
from lpcam_jax.machine.errors import UserError

CLASSES = ("traffic light", "Größe 2", "cat")  # not in the order of the alphabet
HOLES = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 2, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 3]]  # and an island
LAYOUTS = ("coco polygons", "coco rle", "coco lists", "labelme", "yolo", "studio polygons", "studio rle", "cvat")


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    """Of odd sizes, with holes, parts, single pixels, ignored pixels, and nothing at all."""
    heat = gaussian_filter(np.random.default_rng(0).random((4, 37, 53)), (0, 2, 2))
    noise = np.random.default_rng(1).integers(0, 4, (23, 6))
    smooth = np.where(heat.max(axis=0) < 0.55, 255, heat.argmax(axis=0))
    found = {
        "a 1": smooth,
        "sub/ü.b": np.array(HOLES),
        "noise": noise,
        "one": np.ones((1, 1)),
        "empty": np.zeros((7, 5)),
    }
    return {name: mask.astype(np.uint8) for name, mask in found.items()}


def sure(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 255, 0, mask)


def pictures(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(folder / f"{name}.png")
    return folder


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def accepted(tasks: list[dict]) -> str:
    """Tasks whose predictions somebody has submitted, as Label Studio exports them."""
    return json.dumps([{"id": 1, "annotations": task.pop("predictions"), "drafts": [], **task} for task in tasks])


def make(root: Path, layout: str, masks: dict[str, np.ndarray]) -> Path:
    """A data set of pictures and of what `export` writes."""
    pictures(root / "images", masks)
    kind, _, regions = layout.partition(" ")
    by_file = [(f"{name}.png", mask) for name, mask in masks.items()]
    match kind:
        case "coco":
            document = coco_instances(by_file, CLASSES, run_lengths=regions != "polygons")
            for one in document["annotations"] if regions == "lists" else ():
                whole = rle.decode({**one["segmentation"], "counts": one["segmentation"]["counts"].encode()})
                flat = whole.T.ravel()
                edges = np.flatnonzero(np.diff(flat, prepend=0, append=-1))
                one["segmentation"]["counts"] = np.diff(edges, prepend=0).tolist()
            write(root / "annotations.json", json.dumps(document))
        case "labelme":
            for file, mask in by_file:
                document = labelme_document(file, mask, CLASSES)
                write((root / "images" / file).with_suffix(".json"), json.dumps(document))
        case "yolo":
            for name, mask in masks.items():
                write(root / "labels" / f"{name}.txt", yolo_labels(mask))
            write(root / "data.yaml", yolo_description(CLASSES))
        case "studio":
            prefix = "/data/local-files/?d=photos/"
            write(
                root / "tasks.json",
                accepted(label_studio_tasks(by_file, CLASSES, prefix=prefix, brushes=regions == "rle")),
            )
        case "cvat":
            with zipfile.ZipFile(io.BytesIO(cvat_archive(masks.items(), CLASSES))) as archive:
                archive.extractall(root)
    return root


def in_order_of(names: tuple[str, ...], mask: np.ndarray) -> np.ndarray:
    """A mask of CLASSES, renumbered."""
    values = {n: names.index(name) + 1 for n, name in enumerate(CLASSES, start=1) if name in names}
    return np.vectorize(lambda value: values.get(value, 0), otypes=[int])(mask)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_is_read_back_pixel_by_pixel(tmp_path, masks, layout):
    source = Folder(make(tmp_path, layout, masks))
    assert source.class_names == tuple(sorted(CLASSES))
    assert set(source.ids) == set(masks)
    assert source.has_masks
    for index, name in enumerate(source.ids):
        expected = in_order_of(source.class_names, sure(masks[name]))
        np.testing.assert_array_equal(source.mask(index), expected)
        np.testing.assert_array_equal(source[index].mask, expected)
        assert {n for n in range(1, 4) if source.labels[index][n - 1]} == set(np.unique(expected)) - {0}
    only = Folder(tmp_path, classes=("cat",))
    index = only.ids.index("noise")
    np.testing.assert_array_equal(only.mask(index), masks["noise"] == 3)
    assert not [one for one in check_folder(tmp_path).findings if "region" in str(one) or "mask" in str(one)]


# The codes, against other implementations


def read_brush(code: list[int]) -> np.ndarray:
    """The values of a brush code, one by one, from its text of bits."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = take(1)
        count = take(sizes[take(2)]) + 1
        values += [take(word)] * count if repeated else [take(word) for _ in range(count)]
    assert len(values) == total
    return np.array(values)


def literal_brush(values: list[int]) -> np.ndarray:
    """A brush code that repeats nothing, as of a picture in colours."""
    bits = f"{len(values):032b}{7:05b}" + "0010" * 4
    for start in range(0, len(values), 8):
        part = values[start : start + 8]
        bits += f"000{len(part) - 1:03b}" + "".join(f"{value:08b}" for value in part)
    return np.array([int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)], np.uint8)


def test_codes_are_those_of_other_programs():
    numbers = np.random.default_rng(0)
    for size in [(1, 1), (1, 9), (7, 1), *numbers.integers(2, 30, (40, 2)).tolist(), (300, 200)]:
        whole = gaussian_filter(numbers.random(size), numbers.choice([0, 3])) < 0.5
        whole[-1, -1] = True
        counts = rle.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()
        assert run_lengths.encode(whole, (0, 0), size) == {"size": list(size), "counts": counts}
        np.testing.assert_array_equal(run_lengths.decode(counts, size), whole)
        values = read_brush(brush.encode(whole)).reshape(*size, 4)
        np.testing.assert_array_equal(values, np.where(whole, 255, 0)[..., None].repeat(4, axis=-1))
        np.testing.assert_array_equal(brush.decode(np.array(brush.encode(whole), np.uint8), size), whole)
    coloured = np.zeros((5, 6, 4), int)
    coloured[1:4, 2:5] = 200, 0, 17, 255
    np.testing.assert_array_equal(brush.decode(literal_brush(coloured.ravel().tolist()), (5, 6)), coloured[..., 3] > 0)


def test_pycocotools_reads_what_is_written(masks, tmp_path):
    document = coco_instances([(f"{name}.png", mask) for name, mask in masks.items()], CLASSES, run_lengths=True)
    write(tmp_path / "a.json", json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):  # it chats
        found = COCO(str(tmp_path / "a.json"))
    for number, mask in enumerate(masks.values(), start=1):
        annotations = found.loadAnns(found.getAnnIds(number))
        assert len(annotations) == sum(label(mask == value)[1] for value in (1, 2, 3))
        drawn = np.zeros(mask.shape, int)
        for one in annotations:
            inside = found.annToMask(one)
            drawn += inside * one["category_id"]
            y, x = np.nonzero(inside)
            assert one["area"] == inside.sum()
            assert one["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        np.testing.assert_array_equal(drawn, sure(mask))


# What other programs write


def one_picture(root: Path, *, size: tuple[int, int] = (4, 6)) -> dict[str, np.ndarray]:
    masks = {"a": np.zeros(size, np.uint8), "b": np.zeros(size, np.uint8)}
    pictures(root / "images", masks)
    return masks


def mask_of(root: Path, name: str = "a") -> list | None:
    source = Folder(root)
    mask = source.mask(source.ids.index(name))
    return None if mask is None else mask.tolist()


def coco_of(*annotations: dict) -> str:
    images = [{"id": n, "file_name": f"{name}.png", "height": 4, "width": 6} for n, name in enumerate("ab")]
    annotations = [{"id": n, "image_id": 0, "category_id": 0, **one} for n, one in enumerate(annotations)]
    categories = [{"id": n, "name": name} for n, name in enumerate(("cat", "dog"))]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


LEFT, TOP = [[0, 0, 2, 0, 2, 4, 0, 4]], [[0, 0, 6, 0, 6, 1, 0, 1]]


def test_later_annotations_of_coco_lie_over_earlier_ones_and_crowds_below(tmp_path):
    one_picture(tmp_path)
    crowd = {"segmentation": run_lengths.encode(np.ones((4, 6), bool), (0, 0), (4, 6)), "iscrowd": 1}
    dog = {"category_id": 1, "segmentation": TOP}
    write(tmp_path / "annotations.json", coco_of({"segmentation": LEFT}, dog, crowd))
    assert mask_of(tmp_path) == [[2] * 6, *[[1, 1, 255, 255, 255, 255]] * 3]
    assert mask_of(tmp_path, "b") == [[0] * 6] * 4


@pytest.mark.parametrize("outline", [[], [[]]])
def test_a_box_beside_a_region_makes_no_mask(tmp_path, outline):
    one_picture(tmp_path)
    box = {"category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": outline}
    write(tmp_path / "annotations.json", coco_of({"segmentation": LEFT}, box, {"image_id": 1, "segmentation": LEFT}))
    assert mask_of(tmp_path) is None
    assert mask_of(tmp_path, "b") == [[1, 1, 0, 0, 0, 0]] * 4
    write(tmp_path / "annotations.json", coco_of(box))
    assert not Folder(tmp_path).has_masks


def test_png_masks_win_over_regions(tmp_path):
    one_picture(tmp_path)
    write(tmp_path / "annotations.json", coco_of({"segmentation": LEFT}))
    write(tmp_path / "masks" / "b.png", b"")
    Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / "masks" / "b.png")
    assert (mask_of(tmp_path), mask_of(tmp_path, "b")) == (None, [[1] * 6] * 4)


def test_masks_and_ignored_regions_of_labelme(tmp_path):
    one_picture(tmp_path)
    png = io.BytesIO()
    Image.fromarray(np.array([[True, False], [True, True]])).save(png, "PNG")
    stamp = {"shape_type": "mask", "points": [[4, 2], [5, 3]], "mask": base64.b64encode(png.getvalue()).decode()}
    left = {"shape_type": "polygon", "points": np.reshape(LEFT, (-1, 2)).tolist()}
    shapes = [{"label": "cat", **stamp}, {"label": "__ignore__", **left}]
    document = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 4, "imageWidth": 6}
    write(tmp_path / "images" / "a.json", json.dumps(document))
    ignored, cat = [255, 255, 0, 0], [1, 0]
    assert mask_of(tmp_path) == [[*ignored, 0, 0]] * 2 + [[*ignored, *cat], [*ignored, 1, 1]]
    shapes[0]["points"] = [[5, 3], [6, 4]]
    write(tmp_path / "images" / "a.json", json.dumps(document))
    assert mask_of(tmp_path) is None
    (finding,) = (one for one in check_folder(tmp_path).findings if "drawn" in one.what)
    assert "its mask leads out of the picture" in finding.what


def test_boxes_and_poses_of_yolo_are_no_masks(tmp_path):
    one_picture(tmp_path)
    polygon = "0 0 0 .5 0 .5 1 0 1"
    write(tmp_path / "labels" / "a.txt", polygon)
    write(tmp_path / "labels" / "b.txt", f"{polygon}\n1 .5 .5 .1 .1\n")
    write(tmp_path / "data.yaml", "names: [cat, dog]")
    assert (mask_of(tmp_path), mask_of(tmp_path, "b")) == ([[1, 1, 1, 0, 0, 0]] * 4, None)
    write(tmp_path / "data.yaml", "names: [cat, dog]\nkpt_shape: [2, 2]")
    assert not Folder(tmp_path).has_masks


def test_turned_boxes_of_yolo_are_no_masks(tmp_path):
    one_picture(tmp_path)
    turned, upright = "0 .5 .1 .9 .5 .5 .9 .1 .5", "1 .1 .1 .4 .1 .4 .4 .1 .4"
    write(tmp_path / "classes.txt", "cat\ndog")
    write(tmp_path / "labels" / "a.txt", f"{turned}\n{upright}")
    assert not Folder(tmp_path).has_masks
    for polygons in (upright, f"{turned}\n1 .1 .1 .4 .1 .4 .4", "0 .5 .1 .9 .5 .5 .9 .1 .2"):
        write(tmp_path / "labels" / "a.txt", polygons)
        assert Folder(tmp_path).has_masks, polygons


def studio_of(*results: dict, **fields) -> str:
    annotations = [{"result": [{"original_height": 4, "original_width": 6, **one} for one in results]}]
    return json.dumps([{"data": {"image": "a.png"}, "annotations": annotations, **fields}])


def test_the_annotation_of_label_studio_that_counts(tmp_path):
    one_picture(tmp_path)

    def of(name: str, **fields) -> dict:
        value = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": [name]}
        return {"result": [{"type": "polygonlabels", "value": value}], **fields}

    for annotations, expected in (
        ([of("cat"), of("dog")], ("dog",)),
        ([of("cat", ground_truth=True), of("dog")], ("cat",)),
        ([of("cat"), of("dog", was_cancelled=True)], ("cat",)),
    ):
        write(tmp_path / "tasks.json", studio_of(annotations=annotations))
        assert Folder(tmp_path).class_names == expected
        assert mask_of(tmp_path) == [[1, 1, 1, 0, 0, 0]] * 4


def test_pictures_of_label_studio_are_found_by_their_address_and_never_outside(tmp_path):
    one_picture(tmp_path / "set")
    pictures(tmp_path / "set" / "images", {"sub/c d": np.zeros((4, 6))})
    pictures(tmp_path, {"outside": np.zeros((4, 6))})
    result = {"type": "choices", "value": {"choices": ["cat"]}}
    for address, found in {
        "a.png": "a",
        "/data/local-files/?d=disk/sub/c%20d.png": "sub/c d",
        "s3://bucket/photos/b.png": "b",
        "https://host/x/b.png?token=1": "b",
        "/data/upload/3/01234567-a.png": "a",
        "/data/upload/3/01234567-c_d.png": "sub/c d",
        "/data/local-files/?d=../outside.png": "",
        "../../set/outside.png": "",
        f"{'x' * 5000}.png": "",
        "\0.png": "",
        "no picture": "",
    }.items():
        write(tmp_path / "set" / "tasks.json", studio_of(result, data={"id": 7, "image": address}))
        if found:
            assert Folder(tmp_path / "set").ids == [found]
        else:
            with pytest.raises(UserError, match=r"pictures are not in|no picture in its data"):
                Folder(tmp_path / "set")


def test_predictions_of_label_studio_are_no_labels(tmp_path):
    tasks = label_studio_tasks([("a.png", one_picture(tmp_path)["a"] + 1)], ("cat",), prefix="")
    write(tmp_path / "tasks.json", json.dumps(tasks))
    with pytest.raises(UserError, match=r"tasks.json: no task has an annotation; submit some in Label Studio"):
        Folder(tmp_path)


def test_ignored_pixels_and_numbers_of_cvat(tmp_path):
    one_picture(tmp_path)
    write(
        tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,128,0::\ncat: 1,2,3::\ndog:9,9,9::\n"
    )
    colours = np.zeros((4, 6, 3), np.uint8) + np.array([0, 128, 0], np.uint8)
    colours[0], colours[1] = (224, 224, 192), (9, 9, 9)
    numbers = np.zeros((4, 6), np.uint8)
    numbers[0], numbers[3] = 255, 1
    for name, values in (("a", colours), ("b", numbers)):
        write(tmp_path / "SegmentationClass" / f"{name}.png", b"")
        Image.fromarray(values).save(tmp_path / "SegmentationClass" / f"{name}.png")
    assert Folder(tmp_path).class_names == ("cat", "dog")
    assert mask_of(tmp_path) == [[255] * 6, [2] * 6, [0] * 6, [0] * 6]
    assert mask_of(tmp_path, "b") == [[255] * 6, [0] * 6, [0] * 6, [1] * 6]


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x23")])
def test_numbers_of_few_bits_of_cvat(tmp_path, depth, row):
    """Pillow would stretch them: the largest number would be 255, which is ignored."""
    pictures(tmp_path / "images", {"a": np.zeros((1, 4))})
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ncat:1,2,3::\ndog:9,9,9::\nowl:7,7,7::\n")
    (tmp_path / "SegmentationClass").mkdir()
    packed_grey(tmp_path / "SegmentationClass" / "a.png", 4, depth=depth, row=row)
    # Folder numbers the classes by the alphabet, and those that are in no picture are none.
    assert mask_of(tmp_path) == ([[0, 1, 0, 1]] if depth == 1 else [[0, 1, 2, 3]])


# What is wrong


SHAPES = {
    r"its code is damaged": {"size": [4, 6], "counts": "~~~"},
    r"its code ends too early": {"size": [4, 6], "counts": "o"},
    r"its code does not cover the picture": {"size": [4, 6], "counts": [3, 9]},
    r"its code is for a picture of size": {"size": [6, 4], "counts": [24]},
    r"its run-length code has no size": {"counts": [24]},
    r"its corners are not pairs of numbers": [[1, 1, 2, 2, 3, 3, 4]],
    r"its run-length code has no size and counts": {"size": [4, float("inf")], "counts": [24]},
    r"its corners are not pairs": [[1, 1, 2, 2, 10**400, 3]],
    r"its corners are not finite": [[1, 1, 2, 2, float("nan"), 3]],
    r"a corner lies far outside the picture": [[1, 1, 2, 2, 1e9, 3]],
    r"its segmentation is neither": "everything",
}


@pytest.mark.parametrize("reason", SHAPES)
def test_a_region_that_cannot_be_drawn_costs_the_mask_not_the_label(tmp_path, capsys, reason):
    one_picture(tmp_path)
    bad = {"image_id": 1, "segmentation": SHAPES[reason]}
    write(tmp_path / "annotations.json", coco_of({"segmentation": LEFT, "category_id": 1}, bad))
    source = Folder(tmp_path)
    assert source.labels.tolist() == [[0, 1], [1, 0]]
    assert [record.mask is None for record in source] == [False, True]
    assert source.mask(1) is None
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"warning: {tmp_path / 'annotations.json'}, b.png: region 0 cannot be drawn ({reason}")
    (finding,) = (one for one in check_folder(tmp_path).findings if "drawn" in one.what)
    assert (finding.severity.name, finding.where) == ("WARNING", ("images/b.png",))


def test_regions_of_a_picture_of_another_size(tmp_path):
    one_picture(tmp_path, size=(8, 12))
    write(tmp_path / "annotations.json", coco_of({"segmentation": LEFT}))
    assert mask_of(tmp_path) is None
    (finding,) = (one for one in check_folder(tmp_path).findings if "drawn" in one.what)
    assert finding.what == "its regions are drawn on a picture of 6x4, the picture is 12x8 (width x height)"
    assert len(finding.where) == 2


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (7, r"tasks.json, task \[0\]: its annotations are no list; export as JSON again"),
        ([{"result": 7}], r"tasks.json, task \[0\]: its annotation has no list of objects named result"),
        ([{"result": [None]}], r"tasks.json, task \[0\]: its annotation has no list of objects named result"),
    ],
)
def test_wrong_label_studio(tmp_path, annotations, message):
    one_picture(tmp_path)
    # What is right beside it, so that the file is known as Label Studio's.
    tasks = [{"data": {"image": "a.png"}, "annotations": annotations}, *json.loads(studio_of())]
    write(tmp_path / "tasks.json", json.dumps(tasks))
    with pytest.raises(UserError, match=message):
        Folder(tmp_path)


def grey(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (6, 4), value).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelmap.txt": "cat:1,2\n"}, r"labelmap.txt, line 1: .* is no class; write: name:red,green,blue::"),
        ({"labelmap.txt": "cat:1,2,3::\ndog:1,2,3::"}, r"labelmap.txt, line 2: .* occurs twice"),
        ({"labelmap.txt": "cat:1,2,3::"}, r"a.png: the colour 9,9,9 is of no class; add it to labelmap.txt"),
        ({"SegmentationClass/a.png": "x"}, r"a.png: not a picture in a supported format"),
        ({"SegmentationClass/a.png": grey(2)}, r"a.png: the number 2 is of no class; add it to labelmap.txt"),
    ],
)
def test_wrong_cvat(tmp_path, change, message):
    one_picture(tmp_path)
    write(tmp_path / "labelmap.txt", "cat:9,9,9::")
    write(tmp_path / "SegmentationClass" / "a.png", b"")
    Image.new("RGB", (6, 4), (9, 9, 9)).save(tmp_path / "SegmentationClass" / "a.png")
    for name, content in change.items():
        write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        Folder(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_regions_are_drawn_or_left_out(tmp_path, masks, layout):
    few = {name: masks[name] for name in ("sub/ü.b", "noise")}
    root, numbers = make(tmp_path, layout, few), np.random.default_rng(0)
    names = ("annotations.json", "images/noise.json", "labels/noise.txt", "tasks.json", "SegmentationClass/noise.png")
    file = next(file for name in names if (file := root / name).exists())
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    refused = []
    for _ in range(40):
        content = whole.copy()
        content[numbers.integers(len(whole) // 4, len(whole), 3)] = numbers.integers(48, 58, 3)  # digits: still JSON
        file.write_bytes(content.tobytes())
        try:
            source = Folder(root)
        except UserError as error:
            refused.append(str(error))
            continue
        drawn = [source.mask(index) for index in range(len(source))]
        assert all(mask is None or mask.dtype == np.uint8 for mask in drawn)
    assert all(map(str.isprintable, refused))
