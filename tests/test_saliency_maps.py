"""Saliency maps of another program, read from a folder."""

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.machine.errors import UserError
from lpcam_jax.refine.pictures import crf_labels, salient_labels
from lpcam_jax.refine.saliency_maps import SaliencyFolder
from lpcam_jax.refine.walks import walked_maps

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_is_read_as_it_is_also_when_stored_in_three_channels(tmp_path, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(SaliencyFolder(tmp_path).read("a", (2, 3)), GREY)


def test_what_is_no_map_of_the_picture_is_named(tmp_path):
    folder = SaliencyFolder(tmp_path)
    with pytest.raises(UserError, match=r"none\.png"):
        folder.read("none", (2, 3))
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the mask is 3x2, its picture 3x4"):
        folder.read("a", (4, 3))
    Image.fromarray(np.dstack([GREY, GREY, 255 - GREY])).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: the saliency map is a colour picture; save it as 8-bit grey"):
        folder.read("b", (2, 3))
    with pytest.raises(UserError, match="no such folder of saliency maps"):
        SaliencyFolder(tmp_path / "none")


def test_a_picture_of_no_class_is_background_however_it_is_refined():
    image, maps = np.full((20, 30, 3), 99, np.uint8), np.zeros((0, 20, 30), np.float32)
    assert not salient_labels(image, maps, np.full((20, 30), 255, np.uint8)).any()
    assert not crf_labels(image, [np.zeros((20, 30), np.uint8)], 1).any()
    assert walked_maps(maps, np.zeros((5, 8), np.float32)).shape == (0, 20, 30)
