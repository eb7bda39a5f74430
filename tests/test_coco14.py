"""COCO 2014, prepared from archives with the published layout."""

import json
import zipfile

import numpy as np
import pytest
import tiny_benchmarks as tiny
from test_commands import TINY, assert_one_line_error

from lpcam_jax.data.coco14 import COCO14
from lpcam_jax.data.prepared import Prepared
from lpcam_jax.data.published import prepare
from lpcam_jax.machine.errors import UserError


def opened(root, split="train", *, limit=None) -> Prepared:
    return Prepared(prepare(COCO14, root, split, prepared=root / "prepared", limit=limit), split)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return tiny.coco_archives(tmp_path_factory.mktemp("coco") / "archives")


@pytest.fixture(scope="module")
def source(archives):
    return opened(archives)


def record(source, number):
    return source[source.ids.index(f"COCO_train2014_{number:012d}")]


def test_all_pictures_by_id_and_classes_by_category_id(source):
    assert source.ids == [f"COCO_train2014_{number:012d}" for number in (1, 9, 25, 30, 400)]
    assert source.class_names == ("person", "car", "toothbrush")
    assert source.has_masks


def test_later_annotations_paint_over_earlier_ones(source):
    expected = np.zeros((10, 12), int)
    expected[1:7, 1:7] = 1
    expected[4:9, 4:10] = 2
    np.testing.assert_array_equal(record(source, 1).mask, expected)


def test_all_parts_of_a_polygon_and_no_crowd(source):
    expected = np.zeros((10, 12), int)
    expected[0:3, 0:3] = expected[6:9, 6:9] = 2
    np.testing.assert_array_equal(record(source, 9).mask, expected)
    np.testing.assert_array_equal(record(source, 9).labels, [1, 1, 0])  # the crowd of persons is a label


def test_run_length_codes_compressed_or_not(source):
    expected = np.zeros((10, 12), int)
    expected[2:8, 8:11] = 3
    expected[:, 0] = 1
    np.testing.assert_array_equal(record(source, 25).mask, expected)


def test_a_picture_without_annotations_is_kept(source):
    assert not record(source, 30).labels.any()
    assert not record(source, 30).mask.any()


def test_a_label_can_have_no_pixel(source):
    np.testing.assert_array_equal(record(source, 400).labels, [1, 1, 0])
    assert not record(source, 400).mask.any()


def test_grey_pictures_are_rgb(source):
    image = record(source, 9).image
    assert image.shape == (10, 12, 3)
    assert (image == image[..., :1]).all()


def test_unpacked_folders_give_the_same(archives, source, tmp_path):
    for name in ("train2014.zip", "annotations_trainval2014.zip"):
        with zipfile.ZipFile(archives / name) as archive:
            archive.extractall(tmp_path / ("images" if name.startswith("train") else ""))
    for mine, other in zip(opened(tmp_path), source, strict=True):
        assert mine.id == other.id
        np.testing.assert_array_equal(mine.image, other.image)
        np.testing.assert_array_equal(mine.mask, other.mask)


@pytest.mark.parametrize("lost", ["train2014.zip", "annotations_trainval2014.zip"])
def test_what_is_missing_is_said_with_who_publishes_it(tmp_path, lost):
    (tiny.coco_archives(tmp_path) / lost).unlink()
    with pytest.raises(UserError, match=rf"not found; put {lost} or .*cocodataset"):
        opened(tmp_path)


def test_a_picture_that_is_not_in_the_archive(tmp_path):
    root = tiny.coco_archives(tmp_path)
    with zipfile.ZipFile(root / "train2014.zip", "w") as archive:
        archive.writestr(f"train2014/{tiny.coco_name(1)}", tiny.jpeg(1, size=(12, 10)))
    with pytest.raises(UserError, match=r"4 of 5 pictures of train2014 are missing: .*_000000000009"):
        opened(root)


def test_other_annotations_give_other_masks(tmp_path):
    """Also where the first pictures were prepared with the ones before."""
    root = tiny.coco_archives(tmp_path)
    assert 2 in opened(root, limit=2)[0].mask
    values = tiny.coco_instances()
    values["annotations"] = [one for one in values["annotations"] if one["category_id"] != 3]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(values))
    record = opened(root, limit=3)[0]
    np.testing.assert_array_equal(record.labels, [1, 0, 0])
    assert set(np.unique(record.mask)) == {0, 1}


def polygon(*numbers):
    return {"segmentation": [list(numbers)]}


@pytest.mark.parametrize(
    ("part", "change", "pattern"),
    [
        ("categories", {"id": 1}, r"a category id occurs twice"),
        ("images", {"id": 9}, r"a picture id occurs twice"),
        ("categories", {"id": 77}, r"not COCO's instances \(an annotation of unknown category"),
        ("images", {"file_name": "../../evil.jpg"}, r"leads out of the data set"),
        ("images", {"height": 10**9}, r"picture \d+ is 12x1000000000"),
        ("images", {"height": "ten"}, r"not COCO's instances"),
        ("annotations", polygon(1, 1, 1e30, 1, 5, 5), r"annotation 0 of picture 1 cannot be drawn \(a corner"),
        ("annotations", polygon(1, 1, float("nan"), 1, 5, 5), r"annotation 0 of picture 1 cannot be drawn"),
        ("annotations", {"segmentation": {"size": [3, 3], "counts": [9]}}, r"cannot be drawn \(its code is for"),
        ("annotations", {"segmentation": {"size": [10, 12], "counts": [0, 10**9]}}, r"cannot be drawn \(its code does"),
        ("annotations", {"segmentation": {"size": [10, 12], "counts": "~~~~~~~"}}, r"cannot be drawn"),
        ("annotations", {"segmentation": "nothing"}, r"cannot be drawn"),
    ],
)
def test_hostile_instances(tmp_path, part, change, pattern):
    root = tiny.coco_archives(tmp_path)
    values = tiny.coco_instances()
    values[part][1 if part == "images" else 0] = {**values[part][1 if part == "images" else 0], **change}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=pattern):
        opened(root)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"images": [], "annotations": [], "categories": []}', b"[" * 100_000]
)
def test_a_json_that_is_no_instances_file(tmp_path, content):
    root = tiny.coco_archives(tmp_path)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2014.json").write_bytes(content)
    with pytest.raises(UserError, match=r"instances_train2014.json: .*; download it again"):
        opened(root)


@pytest.fixture(scope="module")
def run(program, archives, tmp_path_factory):
    """A run of the paper's recipe, with a tiny network; also a picture of no class is trained on."""
    workdir = tmp_path_factory.mktemp("runs") / "coco14"
    finished = program("train.py", "configs/coco14.py", "--data.root", archives, "--workdir", workdir, *TINY)
    assert finished.code == 0, finished.err
    assert "this is a dry run" in finished.out  # for want of weights: its batch norm is frozen
    return workdir


@pytest.mark.rest
def test_from_archives_to_heat_maps(program, run, tmp_path):
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path)
    assert finished.code == 0, finished.err
    assert len(list(tmp_path.glob("maps/*.npz"))) == 5
    with np.load(tmp_path / "maps" / "COCO_train2014_000000000030.npz") as arrays:
        assert arrays["lpcam"].shape == (0, 10, 12)
    assert "mIoU" in finished.out


@pytest.mark.rest
def test_a_data_set_of_other_classes_is_refused(program, run, tmp_path):
    other, values = tiny.coco_archives(tmp_path / "other"), tiny.coco_instances()
    values["categories"] = [one | {"name": f"other {one['name']}"} for one in values["categories"]]
    (other / "annotations").mkdir()
    (other / "annotations" / "instances_train2014.json").write_text(json.dumps(values))
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "out", "--root", other)
    assert_one_line_error(finished, "its classes are other person, other car.* not person, car")


def test_a_val_split_that_is_not_there(program, archives, tmp_path):
    words = ("--data.root", archives, "--data.seeds", "val", "--workdir", tmp_path / "run")
    finished = program("train.py", "configs/coco14.py", *words)
    assert_one_line_error(finished, "COCO val2014 not found; put val2014.zip")
