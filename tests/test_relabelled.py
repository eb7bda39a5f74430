"""A data set with the masks of a folder instead of its own."""

import numpy as np
import pytest
from PIL import Image
from test_evaluate import write_mask

from lpcam_jax.config import Data
from lpcam_jax.data.masks import MaskFolder
from lpcam_jax.data.records import Record
from lpcam_jax.data.relabelled import Relabelled
from lpcam_jax.data.sources import masked_source
from lpcam_jax.machine.errors import UserError

IDS = ["a", "b", "day 1/c", "d"]


class Four:
    """Pictures 3 wide and 2 high, of which only the number is known, and of two classes."""

    class_names, ids, has_masks = ("cat", "dog"), IDS, False
    labels = np.float32([[1, 0], [0, 1], [1, 1], [0, 0]])

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return Record(IDS[index], np.full((2, 3, 3), index, np.uint8), self.labels[index], None)

    def size(self, index):
        return 2, 3 + index


@pytest.fixture
def folder(tmp_path):
    write_mask(tmp_path / "d.png", [[0, 1, 2], [255, 0, 0]])
    write_mask(tmp_path / "day 1" / "c.png", [[2, 2, 2], [1, 1, 1]])
    write_mask(tmp_path / "e.png", [[0, 0, 0], [0, 0, 0]])
    return MaskFolder(tmp_path)


def test_pictures_with_a_mask_are_kept_in_order_with_all_that_is_theirs(folder, capsys):
    source = Relabelled(Four(), folder)
    assert f"2 of 4 pictures have no mask in {folder.directory}: left out" in capsys.readouterr().out
    assert (list(source.ids), len(source), source.class_names) == (["day 1/c", "d"], 2, ("cat", "dog"))
    assert source.has_masks
    assert source.labels.tolist() == [[1, 1], [0, 0]]
    assert [source.size(index) for index in range(2)] == [(2, 5), (2, 6)]
    first, second = source[0], source[1]
    assert (first.id, second.id, first.image.max(), second.image.max()) == ("day 1/c", "d", 2, 3)
    assert first.mask.tolist() == [[2, 2, 2], [1, 1, 1]]
    assert second.mask.tolist() == [[0, 1, 2], [255, 0, 0]]
    assert (first.mask.dtype, first.labels.tolist()) == (np.uint8, [1, 1])


def test_own_masks_are_replaced_and_labels_may_be_unknown(folder):
    class Known(Four):
        has_masks, labels = True, None

        def __getitem__(self, index):
            return Record(IDS[index], np.zeros((2, 3, 3), np.uint8), None, np.ones((2, 3), np.uint8))

    source = Relabelled(Known(), folder)
    assert source.labels is None
    assert source[1].mask.tolist() == [[0, 1, 2], [255, 0, 0]]


def test_nothing_is_said_when_every_picture_has_a_mask(folder, capsys):
    for name in ("a", "b"):
        write_mask(folder.directory / f"{name}.png", [[0, 0, 0], [0, 0, 1]])
    assert list(Relabelled(Four(), folder).ids) == IDS
    assert capsys.readouterr().out == ""


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    assert ";" in text  # what was found; what to do
    return text


def test_masks_of_other_pictures(tmp_path):
    write_mask(tmp_path / "e.png", [[0]])
    text = refusal(Relabelled, Four(), MaskFolder(tmp_path))
    assert "has no mask for any of the 4 pictures to train on: there is no a.png, for one; check --data.masks" in text


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([[0, 1], [1, 0]], "is 2x2, its picture 3x2 (width x height)"),
        ([[0, 1, 3], [0, 0, 0]], "holds the value 3, but the data set has 0..2 and 255"),
        (np.zeros((2, 3, 3)), "the mask is a colour picture (RGB)"),
        (None, "damaged picture"),
    ],
)
def test_a_mask_that_does_not_fit_is_named_when_it_is_read(folder, pixels, message):
    path = folder.directory / "day 1" / "c.png"
    if pixels is None:
        path.write_bytes(path.read_bytes()[:100])
    else:
        Image.fromarray(np.array(pixels, np.uint8)).save(path)
    source = Relabelled(Four(), folder)
    assert source[1].mask.max() == 255
    text = refusal(source.__getitem__, 0)
    assert text.startswith(str(path))
    assert message in text


def test_a_data_set_s_own_masks_are_used_when_no_folder_is_named(folder):
    class Known(Four):
        has_masks = True

    source = Known()
    assert masked_source(source, Data()) is source
    assert masked_source(source, Data(masks=str(folder.directory))).ids == ["day 1/c", "d"]
    assert "has no masks to train on; name a folder of masks" in refusal(masked_source, Four(), Data(root="my_data"))
    assert "nowhere: no such folder of masks" in refusal(masked_source, source, Data(masks="nowhere"))
