"""python -m lpcam_jax saliency, and --saliency with a file of weights: maps that U2-Net makes of pictures."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error, picture
from test_evaluate import strictly_parsed
from test_pseudo_masks import masks_in

from lpcam_jax.data.search import find_pictures
from lpcam_jax.data.unlabelled import Pictures
from lpcam_jax.machine.errors import UserError
from lpcam_jax.saliency.maps import SIDE, SaliencyNetwork, stretched_saliency
from lpcam_jax.saliency.network import SHAPES
from lpcam_jax.saliency.weights import load_u2net, places

INNER, OUTPUTS = 1, 2


def thin_u2net(*, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays of a U2-Net with hardly any channels, under the published names, without batch norm."""
    rng, arrays = np.random.default_rng(seed), {}

    def convolution(name: str, inputs: int, outputs: int, size: int = 3) -> None:
        kernel = rng.normal(size=(outputs, inputs, size, size)) * np.sqrt(2 / (size * size * inputs))
        arrays[f"{name}.weight"] = np.float32(kernel)
        arrays[f"{name}.bias"] = np.float32(rng.normal(size=outputs) / 8)

    for stage, (levels, _) in SHAPES.items():
        inputs = 3 if stage == "stage1" else OUTPUTS if stage[-1] != "d" else 2 * OUTPUTS
        convolution(f"{stage}.rebnconvin.conv_s1", inputs, OUTPUTS)
        for level in range(1, levels + 1):
            convolution(f"{stage}.rebnconv{level}.conv_s1", OUTPUTS if level == 1 else INNER, INNER)
        for level in range(1, levels):
            convolution(f"{stage}.rebnconv{level}d.conv_s1", 2 * INNER, OUTPUTS if level == 1 else INNER)
    for number in range(1, 7):
        convolution(f"side{number}", OUTPUTS, 1)
    convolution("outconv", 6, 1, size=1)
    return arrays


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "u2netp.npz"
    np.savez(path, **thin_u2net())
    return path


@pytest.fixture
def saliency(program, weights, tmp_path):
    """`saliency(*words)`: how the command ended; the maps are in tmp_path / "maps"."""

    def run(*words, weights=weights):
        return program("lpcam_jax.__main__", "saliency", "--weights", weights, "--out", tmp_path / "maps", *words)

    return run


def test_every_picture_has_a_grey_map_of_its_size_and_a_second_call_makes_what_is_missing(saliency, tmp_path):
    sizes = {"a": (60, 40), "deep/b": (33, 70), "c": (400, 340), "d": (1, 1), "e": (64, 64)}
    for number, (name, size) in enumerate(sizes.items()):
        picture(tmp_path / "my" / f"{name}.png", size=size, seed=number)
    (tmp_path / "my" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    finished = saliency("--images", tmp_path / "my")
    assert finished.code == 0, finished.err
    assert re.search(r"weights .*u2netp\.npz: 238 entries loaded, 0 skipped\n", finished.out)
    assert re.search(r"skipped: .*cut\.jpg", finished.out)
    assert f"5 saliency maps are in {tmp_path / 'maps'}: use them with --saliency." in finished.out
    assert "img" in finished.err  # of the bar
    content = {}
    for name, size in sizes.items():
        path = tmp_path / "maps" / f"{name}.png"
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", size)
        content[path] = path.read_bytes()
    assert np.ptp(np.asarray(Image.open(tmp_path / "maps" / "a.png"))) > 100

    gone = tmp_path / "maps" / "c.png"
    times = {path: path.stat().st_mtime_ns for path in content if path != gone}
    gone.unlink()
    assert "1/2" in saliency("--images", tmp_path / "my").err  # and the one that cannot be read
    assert {path: path.read_bytes() for path in content} == content  # the same bits
    assert {path: path.stat().st_mtime_ns for path in times} == times
    # They are no pictures of anyone's folder.
    assert {path.suffix for path in find_pictures(tmp_path) if "maps" in path.parts} == set()


def test_a_map_does_not_depend_on_the_pictures_that_share_its_batch(weights, tmp_path):
    for number in range(6):
        picture(tmp_path / f"{number}.png", seed=number)
    source, network = Pictures(sorted(tmp_path.glob("*.png")), ()), SaliencyNetwork.open(str(weights))
    whole = {index: map for index, _, map in network.map_pictures(source, only=range(6), among=range(6))}
    some = {index: map for index, _, map in network.map_pictures(source, only=[1, 5], among=range(6))}
    assert [*some] == [1, 5]
    for index, map in some.items():
        np.testing.assert_array_equal(map, whole[index])
    alone = {index: map for index, _, map in network.map_pictures(source, only=[5], among=[5])}
    np.testing.assert_allclose(alone[5].astype(int), whole[5], atol=1)


def test_photographs_in_the_output_folder_are_no_maps(saliency, tmp_path):
    picture(tmp_path / "maps" / "d.png")
    photograph = (tmp_path / "maps" / "d.png").read_bytes()
    for _ in range(2):  # the second call finds what the first left
        line = r"maps holds files that are not of this program \(d\.png is one\); choose another --out"
        assert_one_line_error(saliency("--images", tmp_path / "maps"), line)
        assert {path.name: path.read_bytes() for path in (tmp_path / "maps").iterdir()} == {"d.png": photograph}


def test_a_photograph_put_among_the_maps_is_not_removed(saliency, tmp_path):
    picture(tmp_path / "my" / "a.png")
    assert saliency("--images", tmp_path / "my").code == 0
    picture(tmp_path / "maps" / "d.png", seed=1)
    photograph = (tmp_path / "maps" / "d.png").read_bytes()
    finished = saliency("--images", tmp_path / "maps" / "d.png")
    assert_one_line_error(finished, r"holds files that are not of this program \(d\.png is one\)")
    assert (tmp_path / "maps" / "d.png").read_bytes() == photograph


def test_maps_fill_the_range_and_nothing_stands_out_where_nothing_differs():
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 100, (3, 8, 8, 3)).astype(np.uint8)
    squares[1], squares[2] = 0, 60
    maps = np.asarray(stretched_saliency(lambda pictures: pictures[..., 1], jnp.asarray(squares)))
    green = squares[0, ..., 1].astype(float)
    expected = np.floor(255 * (green - green.min()) / np.ptp(green))
    np.testing.assert_allclose(maps[0], expected, atol=1)
    assert (maps[0].min(), maps[0].max()) == (0, 255)
    assert not maps[1:].any()


def test_the_picture_is_divided_by_its_largest_value_and_normalized():
    dark = np.random.default_rng(0).integers(0, 50, (1, SIDE, SIDE, 3)).astype(np.uint8)
    seen = []
    stretched_saliency(lambda pictures: seen.append(pictures) or pictures[..., 0], jnp.asarray(dark))
    expected = (dark / dark.max() - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(seen[0], expected, atol=1e-5)


def changed(**arrays) -> dict[str, np.ndarray]:
    return {name: array for name, array in (thin_u2net() | arrays).items() if array is not None}


CONV = "stage2.rebnconv3.conv_s1"


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (changed(**{f"{CONV}.bias": None}), f"{CONV}.bias is missing"),
        (changed(**{f"{CONV}.bias": np.zeros(3)}), rf"{CONV}.bias has shape \(3,\), not \(1,\)"),
        (changed(**{f"{CONV}.weight": np.zeros((1, 5, 3, 3))}), rf"{CONV}.weight has shape \(1, 5, 3, 3\), not \(1, 1"),
        (changed(**{f"{CONV}.weight": np.zeros(4)}), r"shape \(4,\), which is no convolution's"),
        (changed(**{f"{CONV}.weight": np.full((1, 1, 3, 3), np.nan)}), "values that are not finite"),
        (changed(**{f"{CONV[:-7]}bn_s1.weight": np.ones(1)}), r"stage2.rebnconv3.bn_s1.bias is missing; "),
        ({"conv1.weight": np.zeros((64, 3, 7, 7))}, "among its 1 entries .* is no stage1.rebnconvin.conv_s1.weight"),
    ],
)
def test_other_weights_are_refused_in_one_line_that_says_where_the_right_ones_are(tmp_path, arrays, reason):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError, match=rf"w\.npz holds no U2-Net: .*{reason}.*Give u2netp\.pth of https://github"):
        load_u2net(tmp_path / "w.npz")


def test_an_export_whose_named_convolutions_are_elsewhere_is_refused(tmp_path):
    arrays = [*thin_u2net().values()]
    names = [f"{number}" for number in range(len(arrays))]
    names[4:6] = "side1.weight", "side1.bias"
    np.savez(tmp_path / "w.npz", **dict(zip(names, arrays, strict=True)))
    with pytest.raises(UserError, match="nor are they an export's, in its order"):
        load_u2net(tmp_path / "w.npz")


def test_there_are_as_many_convolutions_as_in_the_published_network():
    found = [*places()]
    assert len({place.conv for place in found}) == len({place.path for place in found}) == len(found) == 119


def test_what_cannot_be_done_is_one_line(program, saliency, trained, tmp_path):
    picture(tmp_path / "my" / "a.png")
    images = ("--images", tmp_path / "my")
    ended = program("lpcam_jax.__main__", "saliency", *images, "--out", tmp_path / "maps")
    assert_one_line_error(ended, "the weights are missing: give --weights, the path of u2netp.pth of https://github")
    assert_one_line_error(saliency(), "the pictures are missing: give --images, or --ckpt")
    assert_one_line_error(saliency(*images, "--split", "val"), "--split: of the data set of a run; give --ckpt, too")
    assert_one_line_error(saliency(*images, weights=tmp_path / "no.pth"), r"weights file .*no\.pth does not exist")
    assert_one_line_error(saliency("--ckpt", tmp_path), r"holds no run")
    assert not (tmp_path / "maps").exists()
    assert saliency(*images).code == 0
    np.savez(tmp_path / "other.npz", **thin_u2net(seed=1))
    line = "holds saliency maps of another model or protocol; choose another --out"
    assert_one_line_error(saliency(*images, weights=tmp_path / "other.npz"), line)


def test_weights_for_refine_make_the_maps_on_the_way(program, saliency, trained, mapped, weights, tmp_path):
    def refine(out, given):
        words = ("--ckpt", trained, "--maps", mapped.directory, "--limit", 5, "--saliency", given, "--out", out)
        return program("lpcam_jax.__main__", "refine", *words)

    out = tmp_path / "out"
    finished = refine(out, weights)
    assert finished.code == 0, finished.err
    assert re.search("saliency: .*5/5", finished.err)
    assert "238 entries loaded, 0 skipped" in finished.out
    protocol = strictly_parsed(out / "protocol.json")
    assert protocol["saliency"] == strictly_parsed(out / "saliency" / "protocol.json")["saliency"]
    assert saliency("--ckpt", trained, "--limit", 5).code == 0
    alone = {path.name: path.read_bytes() for path in (tmp_path / "maps").glob("*.png")}
    assert len(alone) == 5
    assert {path.name: path.read_bytes() for path in (out / "saliency").glob("*.png")} == alone
    assert refine(tmp_path / "by_hand", tmp_path / "maps").code == 0
    by_hand = masks_in(tmp_path / "by_hand" / "masks")
    for name, mask in masks_in(out / "masks").items():
        np.testing.assert_array_equal(mask, by_hand[name])

    first = sorted(alone)[0]
    other = tmp_path / "maps" / first
    with Image.open(other) as map:
        inverted = 255 - np.asarray(map)
    Image.fromarray(inverted).save(other)
    again = refine(tmp_path / "by_hand", tmp_path / "maps")
    assert "1 of 5 pictures have changed since, and are done again" in again.out + again.err
    changed = masks_in(tmp_path / "by_hand" / "masks")
    assert [name for name, mask in by_hand.items() if (changed[name] != mask).any()] == [first.removesuffix(".png")]

    (out / "saliency" / first).unlink()
    (out / "masks" / first).unlink()
    again = refine(out, weights)
    assert again.code == 0, again.err
    assert re.search("saliency: .*1/1", again.err)
    assert (out / "saliency" / first).read_bytes() == alone[first]
    line = r"none\.onnx: no such folder of saliency maps, nor file of weights .* u2netp\.pth of https://github"
    assert_one_line_error(refine(tmp_path / "other", tmp_path / "none.onnx"), line)
    assert not (tmp_path / "other").exists()


@pytest.mark.rest
def test_weights_for_infer_make_the_maps_on_the_way(program, trained, weights, tmp_path):
    words = ("infer.py", "--ckpt", trained, "--limit", 3, "--saliency", weights, "--out", tmp_path / "out")
    finished = program(*words)
    assert finished.code == 0, finished.err
    maps = {path.stem for path in (tmp_path / "out" / "saliency").glob("*.png")}
    assert maps == {path.stem for path in (tmp_path / "out" / "pseudo_masks").glob("*.png")}
    assert len(maps) == 3
    assert "saliency:" not in program(*words).err  # nothing is done twice
    line = "goes with --refine crf, not with none"
    assert_one_line_error(program(*words[:-1], tmp_path / "none", "--refine", "none"), line)
