"""What programs for annotation read gives the masks back, pixel by pixel."""

import io
import json
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import gaussian_filter, label
from test_commands import assert_one_line_error, picture
from test_evaluate import write_mask

from lpcam_jax.config import Data
from lpcam_jax.data.sources import training_source
from lpcam_jax.exports.cvat import cvat_archive
from lpcam_jax.exports.label_studio import label_studio_interface, label_studio_tasks
from lpcam_jax.exports.yolo import yolo_description, yolo_labels
from lpcam_jax.systems.lpcam.config import LPCAMConfig

CLASSES = ("cat", 'a "dog" & <cow>')


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    """Of odd sizes, with holes, parts, unsure pixels, and nothing at all."""
    numbers = np.random.default_rng(0)
    found = {"empty": np.zeros((7, 5), np.uint8)}
    for height, width in ((37, 53), (61, 40), (1, 1)):
        heat = gaussian_filter(numbers.random((3, height, width)), (0, 2, 2))
        mask = heat.argmax(axis=0).astype(np.uint8)
        mask[heat.max(axis=0) < np.quantile(heat.max(axis=0), 0.1)] = 255
        found[f"folder/{height}x{width}"] = mask
    assert any(label(mask == 0)[1] > 1 for mask in found.values())  # holes
    return found


def sure(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 255, 0, mask)


def filled(polygons: list[tuple[int, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Polygons as pycocotools fills them, class by class."""
    mask = np.zeros(shape, np.uint8)
    for value, corners in polygons:
        inside = rle.decode(rle.frPyObjects([corners.ravel().tolist()], *shape))[..., 0].astype(bool)
        assert not mask[inside].any()  # no two overlap
        mask[inside] = value
    return mask


def test_yolo_gives_back_the_masks(masks):
    for mask in masks.values():
        lines = [line.split() for line in yolo_labels(mask).splitlines()]
        numbers = [np.array(line[1:], float).reshape(-1, 2) for line in lines]
        assert all(((one >= 0) & (one <= 1)).all() for one in numbers)
        corners = [np.rint(one * mask.shape[::-1]) for one in numbers]
        polygons = [(int(line[0]) + 1, one) for line, one in zip(lines, corners, strict=True)]
        np.testing.assert_array_equal(filled(polygons, mask.shape), sure(mask))
    assert yaml.safe_load(yolo_description(CLASSES))["names"] == dict(enumerate(CLASSES))


def test_yolo_gives_back_any_name(tmp_path):
    names = (
        "🐱 cat",
        'a "dog" \\ & <cow>',
        "Größe\u00852",
        "a\u2028b",
        "tab\there",
        "\x7f",
        "caf\udce9",
        "\ufffe",
        "猫",
    )
    text = yolo_description(names)
    assert yaml.safe_load(text)["names"] == dict(enumerate(names))
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    for number, _ in enumerate(names):
        picture(tmp_path / "images" / f"{number}.png")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{number}.txt").write_text(f"{number} .1 .1 .2 .1 .2 .2\n")
    source = training_source(replace(LPCAMConfig(), data=Data(source="folder", root=str(tmp_path))))
    assert set(source.class_names) == set(names)


def test_label_studio_gives_back_the_masks(masks):
    tasks = json.loads(json.dumps(label_studio_tasks(masks.items(), CLASSES, prefix="/data/?d=")))
    for task, (name, mask) in zip(tasks, masks.items(), strict=True):
        assert task["data"]["image"] == f"/data/?d={name}"
        polygons = []
        for region in task["predictions"][0]["result"]:
            (title,) = region["value"]["polygonlabels"]
            size = region["original_width"], region["original_height"]
            assert size == mask.shape[::-1]
            polygons.append((CLASSES.index(title) + 1, np.rint(np.array(region["value"]["points"]) * size / 100)))
        np.testing.assert_array_equal(filled(polygons, mask.shape), sure(mask))
    interface = ET.fromstring(label_studio_interface(CLASSES))
    assert [one.get("value") for one in interface.iter("Label")] == list(CLASSES)
    named = {one.get("name") for one in interface}
    assert {tasks[1]["predictions"][0]["result"][0][key] for key in ("from_name", "to_name")} == named


def test_cvat_gives_back_the_masks_and_their_regions(masks):
    content = cvat_archive(masks.items(), ("cat", "dog"))
    assert cvat_archive(masks.items(), ("cat", "dog")) == content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
        names, colors, _, _ = zip(*(line.split(":") for line in lines), strict=True)
        assert names == ("background", "cat", "dog")
        values = {tuple(map(int, color.split(","))): n for n, color in enumerate(colors)}
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == list(masks)
        for name, mask in masks.items():
            classes, objects = (
                np.asarray(Image.open(io.BytesIO(archive.read(f"Segmentation{kind}/{name}.png"))))
                for kind in ("Class", "Object")
            )
            read = np.array([[values[tuple(color)] for color in row] for row in classes.tolist()], np.uint8)
            np.testing.assert_array_equal(read, sure(mask))
            by_color = objects.astype(int) @ [1 << 16, 1 << 8, 1]
            regions = sum(label(mask == value)[1] for value in (1, 2))
            assert len(np.unique(by_color[by_color > 0])) == regions
            np.testing.assert_array_equal(by_color > 0, sure(mask) > 0)


def test_the_command_writes_them_and_says_what_is_lost(program, masks, tmp_path):
    for name, mask in masks.items():
        write_mask(tmp_path / "masks" / f"{name}.png", mask)

    def export(format: str, out: str, *words: str):
        flags = ("--masks", tmp_path / "masks", "--classes", *(words or ("cat", "dog")), "--out", tmp_path / out)
        return program("lpcam_jax.__main__", "export", "--format", format, *flags)

    said = export("yolo", "yolo")
    assert said.code == 0, said.err
    assert "4 pictures are in" in said.out
    assert "2 of them have unsure pixels" in said.out
    for name, mask in masks.items():
        assert (tmp_path / "yolo" / "labels" / f"{name}.txt").read_text() == yolo_labels(mask)

    # It is a data set that this package reads: image labels, of a picture without any as well.
    for name, mask in masks.items():
        file = tmp_path / "yolo" / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(file)
    source = training_source(replace(LPCAMConfig(), data=Data(source="folder", root=str(tmp_path / "yolo"))))
    assert list(source.class_names) == ["cat", "dog"]
    present = {name: [float(n in mask) for n in (1, 2)] for name, mask in masks.items()}
    assert dict(zip(source.ids, source.labels.tolist(), strict=True)) == present

    assert export("label-studio", "tasks.json").code == 0
    assert len(json.loads((tmp_path / "tasks.json").read_text())) == 4
    assert ET.parse(tmp_path / "tasks.xml").getroot().tag == "View"
    assert export("cvat", "masks.zip").code == 0
    assert zipfile.is_zipfile(tmp_path / "masks.zip")
    assert_one_line_error(export("cvat", "other.zip", "a:b", "dog"), ".*cannot hold the class name 'a:b'")
    assert_one_line_error(export("cvat", "other.zip", "background", "dog"), ".*cannot hold the class name 'background'")
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.parametrize(
    ("format", "file"), [("coco", "own.json"), ("label-studio", "own.json"), ("yolo", "data.yaml")]
)
def test_annotations_of_others_are_not_replaced(export, tmp_path, format, file):
    (tmp_path / file).write_text("mine")
    line = rf".*{file} exists already; choose another --out, or delete it"
    assert_one_line_error(export(format, "" if format == "yolo" else file), line)
    assert (tmp_path / file).read_text() == "mine"
    assert not (tmp_path / "labels").exists()


def test_labels_that_were_corrected_are_kept(export, masks, tmp_path):
    assert export("yolo", "yolo").code == 0
    corrected = tmp_path / "yolo" / "labels" / f"{next(iter(masks))}.txt"
    corrected.write_text("0 0.5 0.5 0.1 0.1\n")
    again = export("yolo", "yolo")
    assert f"{len(masks)} of them existed already and are unchanged" in again.out, again.err
    assert corrected.read_text() == "0 0.5 0.5 0.1 0.1\n"


@pytest.fixture
def export(program, masks, tmp_path):
    """`export(format, out, *words)` of the masks and their pictures: how the command ended."""
    for name, mask in masks.items():
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
        picture(tmp_path / "my" / f"{name}.jpg", size=mask.shape[::-1])

    def run(format: str, out: str, *words):
        flags = ("--masks", tmp_path / "masks", "--classes", "cat", "dög", "--out", tmp_path / out, *words)
        return program("lpcam_jax.__main__", "export", "--format", format, *flags)

    return run


def test_regions_as_run_lengths_and_brushes(export, masks, tmp_path):
    assert export("coco", "a.json", "--regions", "rle").code == 0
    document = json.loads((tmp_path / "a.json").read_text())
    assert {type(one["segmentation"]["counts"]) for one in document["annotations"]} == {str}
    said = export("label-studio", "tasks.json", "--regions", "rle")
    assert said.code == 0
    assert "2 of them have unsure pixels" in said.out
    results = [
        one for task in json.loads((tmp_path / "tasks.json").read_text()) for one in task["predictions"][0]["result"]
    ]
    assert {(one["type"], one["value"]["format"]) for one in results} == {("brushlabels", "rle")}
    assert [one.tag for one in ET.parse(tmp_path / "tasks.xml").getroot()] == ["Image", "BrushLabels"]


@pytest.mark.filterwarnings("ignore")
def test_label_studios_converter_reads_the_brushes(export, masks, tmp_path):
    brush = pytest.importorskip("label_studio_converter.brush", reason="pip install label-studio-converter")
    assert export("label-studio", "tasks.json", "--regions", "rle").code == 0
    for task, (_, mask) in zip(json.loads((tmp_path / "tasks.json").read_text()), sorted(masks.items()), strict=True):
        read = np.zeros(mask.shape, np.uint8)
        for region in task["predictions"][0]["result"]:
            inside = brush.decode_rle(region["value"]["rle"]).reshape(*mask.shape, 4)[..., 3] > 0
            read[inside] = 1 + ("cat", "dög").index(region["value"]["brushlabels"][0])
        np.testing.assert_array_equal(read, sure(mask))


def test_pictures_and_masks_for_fiftyone(export, masks, tmp_path):
    assert export("fiftyone", "fo", "--images", tmp_path / "my").code == 0
    for name, mask in masks.items():
        stored = Image.open(tmp_path / "fo" / "labels" / f"{name}.png")
        assert stored.mode == "L"  # OpenCV, with which it reads, makes colours of a palette
        np.testing.assert_array_equal(np.asarray(stored), mask)
        copy = tmp_path / "fo" / "data" / f"{name}.jpg"
        assert copy.read_bytes() == (tmp_path / "my" / f"{name}.jpg").read_bytes()
    targets = json.loads((tmp_path / "fo" / "mask_targets.json").read_text())
    assert targets == {"0": "background", "1": "cat", "2": "dög", "255": "ignored"}


@pytest.mark.filterwarnings("ignore")
def test_fiftyone_reads_them(export, masks, tmp_path):
    fiftyone = pytest.importorskip("fiftyone.utils.data", reason="300 MB: pip install fiftyone")
    assert export("fiftyone", "fo", "--images", tmp_path / "my").code == 0
    read = {}
    with fiftyone.ImageSegmentationDirectoryImporter(dataset_dir=str(tmp_path / "fo")) as importer:
        for file, _, label in importer:
            mask = label.mask if label.has_mask and label.mask is not None else np.asarray(Image.open(label.mask_path))
            read[str(Path(file).relative_to(tmp_path / "fo" / "data").with_suffix(""))] = mask
    assert read.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(read[name], mask)


def test_pictures_and_masks_for_datasets(export, masks, tmp_path):
    assert export("imagefolder", "hf", "--images", tmp_path / "my").code == 0
    lines = (tmp_path / "hf" / "train" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    for line, (name, mask) in zip(map(json.loads, lines), sorted(masks.items()), strict=True):
        assert (line["file_name"], line["mask_file_name"]) == (f"images/{name}.jpg", f"masks/{name}.png")
        assert line["labels"] == [one for n, one in enumerate(("cat", "dög"), start=1) if n in mask]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "hf" / "train" / line["mask_file_name"])), mask)
    names = json.loads((tmp_path / "hf" / "id2label.json").read_text(encoding="utf-8"))
    assert names == {"0": "background", "1": "cat", "2": "dög"}


@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_them(export, masks, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export("imagefolder", "hf", "--images", tmp_path / "my").code == 0
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert list(read) == ["train"]
    for row, (_, mask) in zip(read["train"], sorted(masks.items()), strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
        assert row["image"].size == mask.shape[::-1]
        assert row["labels"] == [one for n, one in enumerate(("cat", "dög"), start=1) if n in mask]


def test_names_of_files_that_are_not_utf_8(export, masks, tmp_path):
    for name in masks:
        (tmp_path / "masks" / f"{name}.png").unlink()
    write_mask(tmp_path / "masks" / "caf\udce9.png", masks["empty"])
    assert export("label-studio", "tasks.json").code == 0
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["image"].endswith("=caf%E9.jpg")
    assert_one_line_error(export("cvat", "masks.zip"), r"CVAT.* cannot hold the file name 'caf\\udce9.jpg'; rename")
    (tmp_path / "masks" / "caf\udce9.png").rename(tmp_path / "masks" / "two\nlines.png")
    assert_one_line_error(export("cvat", "masks.zip"), r"CVAT.* cannot hold the file name 'two\\nlines.jpg'; rename")


def test_a_folder_where_a_file_is_written(export):
    refused = export("cvat", ".")
    assert_one_line_error(
        refused, "--out .* is a folder, and --format cvat writes a file; name one, such as .*masks.zip"
    )


def test_pictures_that_are_copied_into_themselves_or_share_a_name(export, masks, tmp_path):
    assert_one_line_error(export("fiftyone", "my/out", "--images", tmp_path / "my"), ".*is in the input folder .*my")
    write_mask(tmp_path / "masks" / "empty.jpg.png", masks["empty"])
    (tmp_path / "masks" / "empty.png").rename(tmp_path / "masks" / "empty.png.png")
    picture(tmp_path / "my" / "empty.png", size=(5, 7))
    for format in ("yolo", "cvat", "fiftyone", "imagefolder"):
        finished = export(format, f"{format}/out", "--images", tmp_path / "my")
        assert_one_line_error(finished, "empty.jpg and empty.png differ in the extension alone.*rename one")
        assert not (tmp_path / format).exists()
