"""Which pictures a config means: parts of data sets, and slices of them."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_commands import picture

from lpcam_jax.config import Data
from lpcam_jax.data.annotations.rows import refuse
from lpcam_jax.data.folder import look_into
from lpcam_jax.data.records import true_mask
from lpcam_jax.data.sources import first, pictures_of, seed_source, training_sources, with_classes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.lpcam.config import LPCAMConfig

NAMES = [f"2007_00000{number}" for number in range(7)]


@pytest.fixture
def devkit(tmp_path) -> str:
    """Seven pictures, one pixel of class number + 1 each."""
    for number, name in enumerate(NAMES):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg", size=(3, 2), seed=number)
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        mask = np.uint8([[number + 1, 0, 0], [0, 0, 0]])
        Image.fromarray(mask).save(tmp_path / "SegmentationClass" / f"{name}.png")
    (tmp_path / "train.txt").write_text("\n".join(NAMES))
    return str(tmp_path)


@pytest.fixture
def folder(tmp_path) -> str:
    for number in range(7):
        picture(tmp_path / "images" / f"{number}.png", size=(4, 3), seed=number)
    rows = [f"{number},{'cat' if number % 2 else 'dog'}" for number in range(7)]
    (tmp_path / "labels.csv").write_text("\n".join(["name,labels", *rows]))
    return str(tmp_path)


def part(text: str, **data):
    return seed_source(LPCAMConfig(data=Data(**data, seeds=text)))


def refusal(text: str, **data) -> str:
    with pytest.raises(UserError) as caught:
        part(text, **data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("", range(7)),
        ("[:]", range(7)),
        ("[:80%]", range(6)),  # 5.6
        ("[80%:]", [6]),
        ("[:33%]", range(2)),  # 2.31
        ("[2:5]", [2, 3, 4]),
        ("[3:]", [3, 4, 5, 6]),
        ("[:400]", range(7)),
        ("[1:50%]", [1, 2, 3]),  # 3.5 is 4
    ],
)
def test_a_slice_of_a_list_of_ids(devkit, cut, expected):
    source = part(f"train.txt{cut}", source="voc_layout", root=devkit)
    assert list(source.ids) == [NAMES[number] for number in expected]
    assert [np.flatnonzero(row).tolist() for row in source.labels] == [[number] for number in expected]
    for index, number in enumerate(expected):
        record = source[index]
        assert (record.id, record.mask.max()) == (NAMES[number], number + 1)
        assert source.size(index) == (2, 3)


def test_a_slice_of_drawn_scenes():
    whole, cut = (part(text, source="shapes", scenes=6) for text in ("all", "all[2:5]"))
    assert (list(cut.ids), cut.labels.tolist()) == (list(whole.ids[2:5]), whole.labels[2:5].tolist())
    for index in range(3):
        np.testing.assert_array_equal(cut[index].image, whole[index + 2].image)
        np.testing.assert_array_equal(cut[index].mask, whole[index + 2].mask)
        assert cut.size(index) == whole.size(index + 2)


def test_a_slice_of_a_folder(folder):
    whole, cut = (part(text, source="folder", root=folder) for text in ("all", "all[2:5]"))
    assert (list(whole.ids), list(cut.ids)) == (list("0123456"), list("234"))
    assert cut.class_names == whole.class_names == ("cat", "dog")
    assert cut.labels.tolist() == [[0, 1], [1, 0], [0, 1]]
    np.testing.assert_array_equal(cut[0].image, whole[2].image)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 11, 14])
@pytest.mark.parametrize("percent", [1, 33, 50, 80, 99])
def test_two_slices_that_meet_are_disjoint_and_complete(count, percent):
    found = []
    for cut in (f"all[:{percent}%]", f"all[{percent}%:]"):
        with contextlib.suppress(UserError):  # one of them may be empty
            found += part(cut, source="shapes", scenes=count).ids
    assert found == list(part("all", source="shapes", scenes=count).ids)


@pytest.mark.parametrize(
    "text", ["all[", "all[]", "all[3]", "all[1:2", "all[1:2]x", "all[-1:]", "all[a:b]", "all[::2]"]
)
def test_what_is_no_slice(text):
    message = refusal(text, source="shapes", scenes=3)
    assert message.startswith(f"{text}: ")
    assert message.endswith("is not a slice; write all[:80%], all[80%:] or all[100:400].")


@pytest.mark.parametrize("text", ["all[2:2]", "all[2:1]", "all[3:]", "all[100%:]", "all[:0]"])
def test_an_empty_slice(text):
    assert refusal(text, source="shapes", scenes=3) == f"{text}: the slice is empty; all holds 3 pictures."


@pytest.mark.parametrize(("text", "advice"), [("val", "all"), ("train[:80%]", "all[:80%]"), ("", "all")])
def test_a_part_of_a_data_set_that_is_one_whole(folder, text, advice):
    for data in ({"source": "shapes"}, {"source": "folder", "root": folder}):
        message = refusal(text, **data)
        assert "this data set has no splits" in message
        assert message.endswith(f"write {advice}.")


@pytest.mark.parametrize("text", ["all", "val.txt", "val.txt[:2]"])
def test_a_list_of_ids_that_there_is_not(devkit, text):
    assert f"{text.partition('[')[0]}: no such list of ids" in refusal(text, source="voc_layout", root=devkit)


def test_training_and_validation_are_what_is_named(devkit):
    data = Data(source="voc_layout", root=devkit, train="train.txt[:3]", validation="train.txt[3:]")
    pictures, validation = training_sources(LPCAMConfig(data=data), masks=False)
    assert (list(pictures.ids), list(validation.ids)) == (NAMES[:3], NAMES[3:])


@pytest.mark.parametrize("validation", ["", "all[:1]"])
def test_labels_are_learned_from_pictures_with_enough_pixels(tmp_path, validation):
    for number, name in enumerate("aabb"):
        picture(tmp_path / name / f"{number}.jpg", size=(120, 90), seed=number)
    data = Data(source="folder", root=str(tmp_path), longest=20, held_out=0.5, validation=validation)

    def sizes(data: Data, **options) -> set:
        return {record.image.shape for part in training_sources(LPCAMConfig(data=data), **options) for record in part}

    assert sizes(data, masks=False) == {(45, 60, 3)}
    assert sizes(data, masks=True) == sizes(replace(data, longest=None), masks=False) == {(90, 120, 3)}


def test_held_out_pictures_are_of_the_slice():
    data = Data(source="shapes", scenes=20, train="all[4:14]", held_out=0.3)
    pictures, validation = training_sources(LPCAMConfig(data=data), masks=False)
    assert (len(pictures), len(validation)) == (7, 3)
    expected = part("all[4:14]", source="shapes", scenes=20).ids
    assert sorted([*pictures.ids, *validation.ids]) == sorted(expected)


def test_a_limit_is_of_the_slice():
    config = LPCAMConfig(data=Data(source="shapes", scenes=9, seeds="all[4:]"), limit=2)
    assert list(seed_source(config).ids) == list(part("all[4:6]", source="shapes", scenes=9).ids)
    assert len(first(seed_source(config), 1)) == 1


def test_other_classes_are_named():
    source = part("all", source="shapes", scenes=1)
    assert with_classes(source, source.class_names, "val") is source
    with pytest.raises(UserError, match=r"^val: its classes are fox, .*, not cat, dog; use the data set"):
        with_classes(source, ("cat", "dog"), "val")


def test_the_same_pictures_are_mapped_as_are_checked(tmp_path):
    """check-data and train.py look into a folder; `infer.py --images` is given it."""
    for name in ("cat/a.png", "cat/x.png/b.png", "dog/c.png", "Masks/cat/a.png", "runs/x/overlays/a.png"):
        picture(tmp_path / name, size=(4, 3))
    (tmp_path / "runs/x/metrics.jsonl").write_text("")
    (tmp_path / "cat/again").symlink_to(".", target_is_directory=True)
    mapped = pictures_of(LPCAMConfig(), ("cat",), images=str(tmp_path))
    assert list(mapped.ids) == ["cat/a", "cat/x.png/b", "dog/c"]
    assert sorted(look_into(tmp_path, refuse).ids) == list(mapped.ids)
    # Masks alone are pictures to whoever names them.
    assert list(pictures_of(LPCAMConfig(), ("cat",), images=str(tmp_path / "Masks")).ids) == ["a"]


def test_a_mask_is_read_without_its_picture(devkit):
    pictures = part("train.txt", source="voc_layout", root=devkit)
    for source in (pictures, first(pictures, 2)):
        for index in range(len(source)):
            np.testing.assert_array_equal(true_mask(source, index), source[index].mask)
    file = Path(devkit, "JPEGImages", f"{NAMES[0]}.jpg")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError):
        pictures[0]
    assert true_mask(pictures, 0).max() == 1


def test_the_drawn_scenes_have_all_their_classes():
    message = refusal("all", source="shapes", scenes=3, classes=("fox", "owl"))
    assert message == "--data.classes fox owl: the drawn scenes always have all their classes; omit it."


def test_the_mask_of_a_turned_picture_in_a_folder_is_read_without_it(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = Path(folder, "images", "0.png")
    with Image.open(turned) as image:
        image.load()
        image.save(turned, exif=exif)
    Path(folder, "masks").mkdir()
    for number, shape in enumerate([(4, 3), (3, 4)]):
        Image.fromarray(np.full(shape, number + 1, np.uint8)).save(Path(folder, "masks", f"{number}.png"))
    pictures = part("all", source="folder", root=folder)
    for index in range(3):
        mask = pictures[index].mask
        np.testing.assert_array_equal(true_mask(pictures, index), mask)
        assert (mask is None) == (index == 2)
