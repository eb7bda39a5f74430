"""python -m lpcam_jax export: what other programs read, read as they do."""

import contextlib
import io
import json
import pickletools
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from test_commands import assert_one_line_error, picture
from test_evaluate import write_maps, write_mask
from test_exports_polygons import winding
from test_heatmaps import arrays_of, strictly_parsed, times_of

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.data.masks import read_mask
from lpcam_jax.training.run import Run

# A ring and a pixel that touches it, whole, nothing, and ignored pixels inside and around.
MASKS = {
    "day 1/IMG.1": [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]],
    "empty": [[0, 0], [0, 0]],
    "unsure": [[255, 2, 255], [2, 255, 1]],
    "whole": [[2, 2, 2]],
}
SIDE = (50, 70)  # no multiple of the stride


@pytest.fixture
def export(program):
    """`export(format, flag, folder, out, *words)`: how the command ended."""

    def run(format, flag, folder, out, *words):
        words = ("--format", format, flag, folder, "--out", out, *words)
        return program("lpcam_jax.__main__", "export", *words)

    return run


@pytest.fixture
def masks(tmp_path):
    for name, values in MASKS.items():
        write_mask(tmp_path / "my_masks" / f"{name}.png", values)
    return tmp_path / "my_masks"


@pytest.fixture
def pictures(masks):
    """The pictures of the masks, not all of one kind."""
    folder = masks.parent / "my_pictures"
    for (name, values), suffix in zip(MASKS.items(), ("JPG", "png", "webp", "jpeg"), strict=True):
        picture(folder / f"{name}.{suffix}", size=np.shape(values)[::-1])
    return folder


def coco(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):  # it chats
        return COCO(str(path))


def boxed(mask) -> list[int]:
    """x, y, width, height."""
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


# irn


def test_irn_files_hold_the_dict_that_the_family_reads(export, mapped, tmp_path):
    functional = pytest.importorskip("torch.nn.functional")
    before = times_of(mapped[0])
    finished = export("irn", "--maps", mapped[0], tmp_path / "irn", "--method", "cam")
    assert finished.code == 0, finished.err
    assert f"24 pictures, maps of cam, are in {tmp_path / 'irn'}." in finished.out
    for path in (mapped[0] / "maps").iterdir():
        stored = arrays_of(path)
        found = np.load(tmp_path / "irn" / f"{path.stem}.npy", allow_pickle=True).item()
        assert list(found) == ["keys", "cam", "high_res"]
        assert found["keys"].tolist() == stored["classes"].tolist()
        assert found["high_res"].dtype == np.float32
        assert found["high_res"].flags.writeable
        np.testing.assert_array_equal(found["high_res"], stored["cam"])
        # What the steps of the family do with it.
        assert np.pad(found["keys"] + 1, (1, 0), mode="constant").tolist() == [0, *(stored["classes"] + 1)]
        strided = found["cam"].cpu()
        height, width = stored["cam"].shape[1:]
        whole = functional.interpolate(
            found["cam"].new_tensor(found["high_res"])[None],
            ((height - 1) // 4 + 1, (width - 1) // 4 + 1),
            mode="bilinear",
            align_corners=False,
        )[0]
        np.testing.assert_allclose(strided, whole / (whole.amax((1, 2), keepdim=True) + 1e-5), atol=1e-6)
    assert times_of(mapped[0]) == before


def test_irn_files_call_nothing_that_old_versions_do_not_have(export, tmp_path):
    write_maps(tmp_path / "maps" / "a.npz", classes=np.array([4, 1]), mine=np.ones((2, 5, 3), np.float16))
    write_maps(tmp_path / "maps" / "none.npz", classes=np.array([], int), mine=np.ones((0, 5, 3), np.float16))
    assert export("irn", "--maps", tmp_path / "maps", tmp_path / "irn", "--method", "mine").code == 0
    for name in ("a", "none"):
        with (tmp_path / "irn" / f"{name}.npy").open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == ((), False, np.dtype(object))
            instructions = [(code.name, value) for code, value, _ in pickletools.genops(file)]
        called = {value for name, value in instructions if name == "GLOBAL"}
        assert called == {"numpy array", "numpy ndarray", "torch from_numpy", "builtins bytearray"}
        assert instructions[0] == ("PROTO", 3)


def test_irn_files_of_pictures_without_a_class(export, tmp_path):
    pytest.importorskip("torch")
    write_maps(tmp_path / "maps" / "none.npz", classes=np.array([], int), mine=np.ones((0, 5, 3), np.float16))
    assert export("irn", "--maps", tmp_path / "maps", tmp_path / "irn", "--method", "mine").code == 0
    found = np.load(tmp_path / "irn" / "none.npy", allow_pickle=True).item()
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "keys": (0,),
        "cam": (0, 2, 1),
        "high_res": (0, 5, 3),
    }


# coco


def test_coco_gives_back_the_masks(export, masks, tmp_path):
    finished = export("coco", "--masks", masks, tmp_path / "instances.json", "--classes", "cat", "a dog")
    assert finished.code == 0, finished.err
    assert "4 pictures with 6 regions" in finished.out
    found = coco(tmp_path / "instances.json")
    assert [(one["id"], one["name"]) for one in found.loadCats(found.getCatIds())] == [(1, "cat"), (2, "a dog")]
    regions = {}
    for number, (name, values) in zip(found.getImgIds(), MASKS.items(), strict=True):
        (image,) = found.loadImgs(number)
        assert image["file_name"] == f"{name}.jpg"
        assert (image["height"], image["width"]) == np.shape(values)
        drawn = np.zeros(np.shape(values), int)
        annotations = found.loadAnns(found.getAnnIds(number))
        for one in annotations:
            region = found.annToMask(one)
            drawn += region * one["category_id"]
            assert one["area"] == region.sum()
            assert one["bbox"] == boxed(region)
            assert one["iscrowd"] == 0
        np.testing.assert_array_equal(drawn, np.where(np.array(values) == 255, 0, values))
        regions[name] = [one["category_id"] for one in annotations]
    assert regions == {"day 1/IMG.1": [1, 1], "empty": [], "unsure": [1, 2, 2], "whole": [2]}


def test_masks_whose_names_end_in_capitals_are_exported(export, masks, tmp_path):
    (masks / "whole.png").rename(masks / "whole.PNG")
    assert export("coco", "--masks", masks, tmp_path / "instances.json", "--classes", "cat", "a dog").code == 0
    images = strictly_parsed(tmp_path / "instances.json")["images"]
    assert [one["file_name"] for one in images] == [f"{name}.jpg" for name in MASKS]


def test_coco_of_seeds_has_the_names_of_infer(export, mapped, tmp_path):
    before = times_of(mapped[0])
    assert export("coco", "--masks", mapped[0], tmp_path / "instances.json").code == 0
    found = coco(tmp_path / "instances.json")
    names = [one["name"] for one in found.loadCats(found.getCatIds())]
    assert names == strictly_parsed(mapped[0] / "protocol.json")["class_names"]
    for image in found.loadImgs(found.getImgIds()):
        seed = read_mask(mapped[0] / "seeds" / f"{Path(image['file_name']).stem}.png")
        drawn = np.zeros(seed.shape, int)
        for one in found.loadAnns(found.getAnnIds(image["id"])):
            drawn += found.annToMask(one) * one["category_id"]
        np.testing.assert_array_equal(drawn, seed)
    assert len(found.getImgIds()) == 24
    assert times_of(mapped[0]) == before


def test_file_names_are_those_of_the_pictures(export, masks, pictures, tmp_path):
    words = ("--classes", "cat", "dog", "--images", pictures)
    assert export("coco", "--masks", masks, tmp_path / "instances.json", *words).code == 0
    images = strictly_parsed(tmp_path / "instances.json")["images"]
    assert [one["file_name"] for one in images] == ["day 1/IMG.1.JPG", "empty.png", "unsure.webp", "whole.jpeg"]


# labelme


def test_labelme_gives_back_the_masks(export, masks, pictures, tmp_path):
    words = ("--classes", "cat", "a dog", "--images", pictures)
    finished = export("labelme", "--masks", masks, tmp_path / "labelme", *words)
    assert finished.code == 0, finished.err
    files = ("IMG.1.JPG", "empty.png", "unsure.webp", "whole.jpeg")
    for (name, values), file in zip(MASKS.items(), files, strict=True):
        found = strictly_parsed(tmp_path / "labelme" / f"{name}.json")
        size = (found["imageHeight"], found["imageWidth"])
        assert size == np.shape(values)
        assert (found["imagePath"], found["imageData"], found["flags"]) == (file, None, {})
        drawn = np.zeros(size, int)
        for one in found["shapes"]:
            assert (one["shape_type"], one["group_id"], one["flags"]) == ("polygon", None, {})
            drawn += winding(one["points"], size) * {"cat": 1, "a dog": 2}[one["label"]]
        np.testing.assert_array_equal(drawn, np.where(np.array(values) == 255, 0, values))


def test_what_was_corrected_in_labelme_is_kept(export, masks, tmp_path):
    corrected = tmp_path / "labelme" / "day 1" / "IMG.1.json"
    corrected.parent.mkdir(parents=True)
    corrected.write_text("by hand")
    finished = export("labelme", "--masks", masks, tmp_path / "labelme", "--classes", "cat", "dog")
    assert finished.code == 0, finished.err
    assert corrected.read_text() == "by hand"
    assert "1 of them existed already and are unchanged" in finished.out
    assert strictly_parsed(tmp_path / "labelme" / "whole.json")["imagePath"] == "whole.jpg"


# What is wrong, in one line


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("irn", "--maps", "none", "irn"), r"none: no such folder of predictions"),
        (("irn", "--maps", "my_masks", "irn"), r"my_masks holds masks; name a folder of maps"),
        (("irn", "--maps", "segmented", "irn"), r"segmented holds masks; name a folder of maps"),
        (("irn", "--maps", "mine", "irn", "--method", "lpcam"), r"mine has no maps 'lpcam'; it has other"),
        (("irn", "--maps", "mine", "mine/irn", "--method", "other"), r"--out mine/irn is in the input folder mine"),
        (("irn", "--maps", "mine", "file/irn", "--method", "other"), r"cannot write 'file/irn/a.npy'"),
        (("coco", "--masks", "none", "a.json"), r"none: no such folder of masks"),
        (("coco", "--masks", "mine", "a.json"), r"mine holds no ID.png"),
        (("coco", "--masks", "my_masks", "a.json"), r"protocol.json, .* cannot be read; give them with --classes"),
        (("coco", "--masks", "my_masks", "a.json", "--classes", "cat"), r"unsure.png holds the value 2, .* has 0..1"),
        (("coco", "--masks", "segmented/masks", "segmented/protocol.json"), r"is in the input folder segmented"),
        (("coco", "--masks", "segmented", "mine"), r"--out mine is a folder, and --format coco writes a file"),
        (("coco", "--masks", "segmented", "a.json", "--images", "none"), r"--images none: no such folder"),
        (
            ("labelme", "--masks", "segmented", "a", "--images", "other"),
            r"--images other has no picture for the mask a",
        ),
        (
            ("coco", "--masks", "segmented", "a.json", "--images", "large"),
            r"segmented/masks/a.png: the mask is 2x1, its picture 60x40 \(width x height\)",
        ),
        (("coco", "--masks", "foreign", "a.json"), r"protocol.json, .* cannot be read; give them with --classes"),
        (("labelme", "--masks", "long", "other", "--classes", "cat"), r"cannot write .*; choose a shorter name"),
        (("labelme", "--masks", "segmented", "file"), r"cannot write 'file/a.json'"),
        (("stablehlo", "--ckpt", "none", "a"), r"none holds no run"),
        (("stablehlo", "--ckpt", "irn", "a"), r"irn holds a run of kind irn, of which no program is exported"),
        (("onnx", "--ckpt", "segmentation", "a"), r"segmentation .*train.py"),
    ],
)
def test_what_cannot_be_exported(export, masks, segmentation_recipe, irn_recipe, monkeypatch, words, pattern):
    monkeypatch.chdir(masks.parent)
    write_maps(Path("mine/a.npz"), classes=np.array([0]), other=np.ones((1, 2, 2)))
    write_mask(Path("segmented/masks/a.png"), [[0, 1]])
    Path("segmented/protocol.json").write_text('{"class_names": ["cat"]}')
    write_mask(Path("foreign/masks/a.png"), [[0, 1]])
    Path("foreign/protocol.json").write_text('{"class_names": "cat"}')
    write_mask(Path(f"long/{'n' * 251}.png"), [[0, 1]])  # as long as names may be; .json is longer
    picture(Path("other/b.jpg"))
    picture(Path("large/a.jpg"))
    Path("file").write_text("")
    Run.create("segmentation", load_recipe(segmentation_recipe), ("cat",))
    Run.create("irn", load_recipe(irn_recipe), ("cat",))
    assert_one_line_error(export(*words), pattern)
    assert json.loads(Path("segmented/protocol.json").read_text()) == {"class_names": ["cat"]}


@pytest.mark.parametrize(
    ("out", "words", "pattern"),
    [
        ("a", ("--side", 0, 64), r"--side 0 64: give height and width"),
        ("run/config", (), r"is in the input folder .*run"),  # its JSON would be the run's
    ],
)
def test_programs_that_cannot_be_exported(export, trained, tmp_path, out, words, pattern):
    shutil.copytree(trained, tmp_path / "run")
    assert_one_line_error(export("stablehlo", "--ckpt", tmp_path / "run", tmp_path / out, *words), pattern)


@pytest.mark.parametrize(
    ("format", "flags"),
    [
        ("irn", ("--maps", "--method")),
        ("coco", ("--masks", "--classes", "--images", "--regions")),
        ("imagefolder", ("--masks", "--classes", "--images")),
        ("stablehlo", ("--ckpt", "--side")),
    ],
)
def test_help_shows_the_flags_of_a_format(program, format, flags):
    finished = program("lpcam_jax.__main__", "export", "--format", format, "--help")
    assert finished.code == 0
    assert "python -m lpcam_jax export --format" in finished.out
    assert all(flag in finished.out.partition("options")[2] for flag in flags)
