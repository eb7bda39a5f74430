"""Pictures larger than networks know objects: shrunk for them, and what is made of them has the picture's size."""

import json
import shutil

import numpy as np
import pytest
from noise import Noise
from PIL import Image
from tiny_recipes import TINY

from lpcam_jax.config import Batches, registry
from lpcam_jax.data.records import Subset
from lpcam_jax.data.resizing import resize_bicubic, resize_mask, scaled_size, shrunk, shrunk_size
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.inference.passes import run_passes
from lpcam_jax.inference.plan import Pass

LONGEST = 64  # scenes are of 80 to 144 pixels


def test_the_longest_side_is_bounded_before_the_scale_and_small_pictures_stay():
    assert shrunk_size((3000, 4000), 640) == (480, 640)
    assert shrunk_size((480, 640), 640) == (480, 640)
    assert shrunk_size((9, 4000), 640) == (1, 640)
    assert shrunk_size((3000, 4000), None) == (3000, 4000)
    assert Pass(1.5, print, longest=640).size_of((3000, 4000)) == (720, 960)
    assert Pass(1.5, print, longest=640).size_of((300, 400)) == (450, 600)
    assert Pass(1.0, print, fit=(512, 2048), longest=640).size_of((300, 400)) == (512, 683)


def test_training_sees_pictures_and_masks_of_one_size():
    source = Subset(Shapes(3), range(3))
    smaller = shrunk(source, LONGEST)
    assert (smaller.ids, len(smaller)) == (source.ids, 3)
    for index in range(3):
        record, before = smaller[index], source[index]
        assert record.image.shape[:2] == record.mask.shape == smaller.size(index)
        assert max(record.mask.shape) == LONGEST
        np.testing.assert_array_equal(record.image, resize_bicubic(before.image, record.mask.shape))
        np.testing.assert_array_equal(record.mask, resize_mask(before.mask, record.mask.shape))
    assert shrunk(source, None)[0].image.shape == source[0].image.shape


def test_networks_see_pictures_that_are_shrunk_and_then_scaled(mesh):
    def network(pictures, sizes):
        return {"grid": np.asarray(sizes), "seen": np.asarray(pictures)}

    passes = [Pass(scale, network, longest=50) for scale in (1.0, 0.5)]
    seen = run_passes(passes, Noise(), batches=Batches(max_shapes=2), devices=mesh, description=None)
    for _, record, outputs in seen:
        size = shrunk_size(record.image.shape[:2], 50)
        assert max(size) == min(max(record.image.shape[:2]), 50)
        for output, scale in zip(outputs, (1.0, 0.5), strict=True):
            np.testing.assert_array_equal(output["seen"], resize_bicubic(record.image, scaled_size(size, scale)))


@pytest.mark.rest
@pytest.mark.parametrize("kind", registry.kinds())
def test_results_of_large_pictures_have_their_size(kind, tiny_runs, program, tmp_path):
    """The network that was trained on scenes, told that it knows nothing larger than 64 pixels."""
    run = tmp_path / "run"
    shutil.copytree(tiny_runs.run(kind).directory, run)
    values = json.loads((run / "config.json").read_text())
    values["config"]["data"]["longest"] = LONGEST
    (run / "config.json").write_text(json.dumps(values))
    needs = TINY[kind].needs
    maps = ("--maps", tiny_runs.results("classifier").directory) if "--data.maps" in needs else ()
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "out", "--limit", 6, *maps)
    assert finished.code == 0, finished.err
    assert ("shrunk (--data.longest)" in finished.err) == (kind != "upernet")
    for file in (tmp_path / "out").glob("*masks/*.png"):
        with Image.open(file) as mask:
            assert max(mask.size) > LONGEST
    expected = tiny_runs.results(kind).directory
    before, _, after = TINY[kind].result.partition("{}")
    made = sorted((tmp_path / "out").glob(f"{before}*{after}"))
    assert len(made) == 6
    if after == ".npz":
        other = [arrays_of(file) for file in made]
        one = [arrays_of(expected / file.relative_to(tmp_path / "out")) for file in made]
        assert [{key: a.shape for key, a in arrays.items()} for arrays in other] == [
            {key: a.shape for key, a in arrays.items()} for arrays in one
        ]
        heat = [(a, b[key]) for b, arrays in zip(one, other, strict=True) for key, a in arrays.items() if a.ndim == 3]
        assert any((a != b).any() for a, b in heat)
        # An untrained network may find nothing in a picture, and finds something in most, as before.
        assert sum(a.any() for a, _ in heat) > len(heat) / 2
    else:
        for file in made:
            with Image.open(file) as one, Image.open(expected / file.relative_to(tmp_path / "out")) as other:
                assert one.size == other.size


def arrays_of(file) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
