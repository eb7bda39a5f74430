"""Maps and masks say which classes they were made for, and are refused by a data set with others."""

import json

import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error
from test_evaluate import write_mask

from lpcam_jax.config import Data
from lpcam_jax.data.folder import Folder
from lpcam_jax.data.made_for import classes_made_for
from lpcam_jax.data.records import Subset
from lpcam_jax.data.sources import masked_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.results.map_folder import MapFolder
from lpcam_jax.results.predictions import mapped_pictures

OURS, THEIRS = {"class_names": ["cat", "dog"]}, {"class_names": ["dog", "cat"]}


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of two classes, of which b has a mask."""
    for name, label in (("a", "cat"), ("b", "dog"), ("c", "cat")):
        (tmp_path / "data" / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / f"data/images/{name}.png")
        with (tmp_path / "data/labels.csv").open("a") as file:
            file.write(f"{name},{label}\n" if name != "a" else f"name,labels\n{name},{label}\n")
    write_mask(tmp_path / "data/masks/b.png", [[0, 2, 2], [0, 0, 255]])
    return Folder(tmp_path / "data")


@pytest.mark.parametrize(
    ("folder", "file", "protocol"),
    [
        ("out/maps", "out/protocol.json", THEIRS),
        ("out/masks", "out/protocol.json", THEIRS),
        ("out/seeds", "out/protocol.json", THEIRS),
        ("out/pseudo_masks", "out/protocol.json", THEIRS),
        ("cut", "cut/protocol.json", {"maps": THEIRS, "method": "cam"}),
        ("seeds", "seeds/protocol.json", {"maps": THEIRS, "method": "cam"}),
        ("seeds", "seeds/protocol.json", THEIRS),
    ],
)
def test_a_folder_of_other_classes_is_no_source_of_masks(tmp_path, pictures, folder, file, protocol):
    write_mask(tmp_path / folder / "a.png", [[0, 1, 1], [0, 0, 0]])
    data = Data(masks=str(tmp_path / folder))
    assert masked_source(pictures, data).ids == ["a"]
    (tmp_path / file).write_text(json.dumps(protocol))
    with pytest.raises(UserError, match=rf"{folder} was made for the classes dog, cat, the data set has cat, dog; .*"):
        masked_source(pictures, data)
    (tmp_path / file).write_text(json.dumps(protocol).replace('["dog", "cat"]', '["cat", "dog"]'))
    assert masked_source(pictures, data).ids == ["a"]


def test_nor_of_maps(tmp_path, pictures):
    (tmp_path / "out/maps").mkdir(parents=True)
    np.savez(tmp_path / "out/maps/a.npz", classes=np.array([0]), cam=np.ones((1, 2, 3), np.float32))
    assert mapped_pictures(pictures, tmp_path / "out")[0].ids == ["a"]
    (tmp_path / "out/protocol.json").write_text(json.dumps(THEIRS))
    with pytest.raises(UserError, match=r"maps was made for the classes dog, cat, the data set has cat, dog; .*"):
        mapped_pictures(pictures, tmp_path / "out")


def test_nor_of_maps_whose_own_names_are_others(tmp_path, pictures):
    maps = {"cam": np.ones((1, 2, 3), np.float32)}
    folder = MapFolder(tmp_path / "sent", ("cam",))
    folder.write("a", np.array([1]), ("cat", "dog"), maps)
    assert mapped_pictures(pictures, folder.directory)[0].ids == ["a"]
    folder.write("c", np.array([1]), ("bird", "cat", "dog"), maps)
    with pytest.raises(UserError, match=r"c\.npz has a map of class 2, cat, which is dog in the data set; .*"):
        mapped_pictures(pictures, folder.directory)
    for names in (np.array([2]), np.array(["cat", "dog"]), np.array(b"cat")):  # of another program
        np.savez(tmp_path / "sent/c.npz", classes=np.array([1]), names=names, **maps)
        assert mapped_pictures(pictures, folder.directory)[0].ids == ["a", "c"]


@pytest.mark.parametrize("protocol", [{}, [], {"maps": "theirs"}, {"maps": {}}, {"class_names": 3}])
def test_what_another_program_wrote_says_nothing(tmp_path, protocol):
    (tmp_path / "protocol.json").write_text(json.dumps(protocol))
    assert classes_made_for(tmp_path) is None
    assert classes_made_for(tmp_path / "masks") is None
    (tmp_path / "protocol.json").write_text(json.dumps(OURS))
    assert classes_made_for(tmp_path / "masks") == ("cat", "dog")
    assert classes_made_for(tmp_path / "day 1") is None, "a folder of somebody, beside"


def test_a_damaged_protocol_is_named(tmp_path):
    (tmp_path / "protocol.json").write_text("{")
    with pytest.raises(UserError, match=r"protocol.json cannot be read .*; make .* again"):
        classes_made_for(tmp_path / "masks")


def test_pseudo_masks_of_other_classes_are_not_scored(program, tmp_path, pictures):
    write_mask(tmp_path / "out/pseudo_masks/b.png", [[0, 1, 1], [0, 0, 0]])
    (tmp_path / "out/protocol.json").write_text(json.dumps(THEIRS))
    words = ("configs/folder.py", "--data.root", tmp_path / "data", "--predictions", tmp_path / "out/pseudo_masks")
    finished = program("lpcam_jax.__main__", "evaluate", *words, "--out", tmp_path / "scores")
    assert_one_line_error(finished, "pseudo_masks was made for the classes dog, cat, the data set has cat, dog")


def test_own_masks_of_some_pictures_train_on_these(pictures, capsys):
    source = masked_source(pictures, Data())
    assert "2 of 3 pictures have no mask: left out" in capsys.readouterr().out
    assert (source.ids, source[0].mask.tolist()) == (["b"], [[0, 2, 2], [0, 0, 255]])
    assert masked_source(Subset(pictures, [2, 1]), Data()).ids == ["b"]
    with pytest.raises(UserError, match="has no masks to train on; name a folder of masks"):
        masked_source(Subset(pictures, [0, 2]), Data(root="data"))


def test_black_and_white_masks_are_refused_and_a_single_class_is_enough(tmp_path, pictures):
    masks = tmp_path / "theirs"
    for name in ("a", "b", "c"):
        write_mask(masks / f"{name}.png", [[0, 255, 255], [0, 0, 0]])
    data = Data(masks=str(masks))
    with pytest.raises(UserError, match=r"theirs: none of its 3 masks holds a class, only 0, .* of cat 1, and so on"):
        masked_source(pictures, data)
    write_mask(masks / "c.png", [[0, 255, 255], [0, 0, 1]])
    assert masked_source(pictures, data).ids == ["a", "b", "c"]
    for name in ("a", "b", "c"):  # as seeds above a threshold that nothing reaches
        write_mask(masks / f"{name}.png", [[0, 0, 0], [0, 0, 0]])
    assert masked_source(pictures, data).ids == ["a", "b", "c"]
