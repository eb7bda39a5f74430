"""WideResNet-38: the shapes are those of the published files, whose arrays arrive; LPCAM is trained on it."""

import contextlib
import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.base import drawn_with
from lpcam_jax.backbones.weights.files import read_weight_file
from lpcam_jax.backbones.wideresnet import Bottleneck, WideResNet38, WideResNet38Config
from lpcam_jax.machine.errors import UserError
from lpcam_jax.training.run import Run

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
SHAPES = {
    "conv1a.weight": (64, 3, 3, 3),
    "b2.conv_branch1.weight": (128, 64, 1, 1),
    "b4_5.conv_branch2b1.weight": (512, 512, 3, 3),
    "b5.conv_branch2a.weight": (512, 512, 3, 3),
    "b5.conv_branch2b1.weight": (1024, 512, 3, 3),
    "b5.conv_branch1.weight": (1024, 512, 1, 1),
    "b5_2.conv_branch2a.weight": (512, 1024, 3, 3),
    "b6.conv_branch2a.weight": (512, 1024, 1, 1),
    "b6.conv_branch2b1.weight": (1024, 512, 3, 3),
    "b6.conv_branch2b2.weight": (2048, 1024, 1, 1),
    "b6.conv_branch1.weight": (2048, 1024, 1, 1),
    "b7.conv_branch2a.weight": (1024, 2048, 1, 1),
    "b7.bn_branch2b2.running_var": (2048,),
    "b7.conv_branch2b2.weight": (4096, 2048, 1, 1),
    "b7.conv_branch1.weight": (4096, 2048, 1, 1),
    "bn7.running_mean": (4096,),
}


@cache
def network_of(width: int = 1) -> dict[str, Any]:
    model = nnx.eval_shape(lambda: WideResNet38Config(width=width).build(rngs=nnx.Rngs(0)))
    return {"backbone": nnx.to_pure_dict(nnx.state(model)), "head": np.zeros((64 * width, 3))}


def by_name(backbone: dict[str, Any]) -> dict[str, Any]:
    """The leaves under psa's names."""
    leaves = jax.tree_util.tree_leaves_with_path(backbone)
    paths = [([str(entry.key) for entry in path], leaf) for path, leaf in leaves]
    return {".".join([*module, KINDS[kind]]): leaf for (*module, kind), leaf in paths}


@pytest.fixture
def whole() -> dict[str, np.ndarray]:
    """A random network under psa's names."""
    rng, shapes = np.random.default_rng(0), by_name(network_of()["backbone"])
    random = {name: rng.random(leaf.shape, np.float32) for name, leaf in shapes.items()}
    return {name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for name, array in random.items()}


def load(path: Path, entries: dict[str, np.ndarray]):
    np.savez(path, **entries)
    return WideResNet38Config(width=1).load(path, network_of())


def refusal(path: Path, entries: dict[str, np.ndarray]) -> str:
    with pytest.raises(UserError) as caught:
        load(path, entries)
    text = str(caught.value)
    assert text.startswith(f"{path} does not hold this backbone: ")
    assert "\n" not in text
    return text


def test_names_and_shapes_are_those_of_the_published_files():
    shapes = {name: leaf.shape for name, leaf in by_name(network_of(64)["backbone"]).items()}
    shapes = {name: (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape for name, shape in shapes.items()}
    assert {name: shapes[name] for name in SHAPES} == SHAPES
    convolutions = [name for name in shapes if len(shapes[name]) == 4]
    assert sum("branch1" not in name for name in convolutions) == 37, "and the classifier's is the 38th"
    assert sorted(name for name in convolutions if "branch1" in name) == [
        f"b{number}.conv_branch1.weight" for number in range(2, 8)
    ]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_array_arrives(tmp_path, whole, prefix):
    counters = {"bn7.num_batches_tracked": np.int64(3)}
    heads = {"fc8.weight": np.ones((20, 64, 1, 1), np.float32), "f8_3.weight": np.ones((2, 8, 1, 1), np.float32)}
    entries = {prefix + name: array for name, array in (whole | counters | heads).items()}
    loaded = load(tmp_path / "w.npz", entries)
    assert loaded.loaded == len(whole)
    assert set(loaded.skipped) == {prefix + name for name in (*counters, *heads)}
    assert str(loaded).endswith("1 new (head)")
    for name, array in by_name(loaded.backbone).items():
        stored = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        np.testing.assert_array_equal(stored, whole[name])


def test_a_torch_file(tmp_path):
    torch = pytest.importorskip("torch")
    from reference.torch_wideresnet import WideResNet38

    network = WideResNet38(3, width=2)
    torch.save(network.state_dict(), tmp_path / "res38.pth")
    loaded = WideResNet38Config(width=2).load(tmp_path / "res38.pth", network_of(2))
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    assert {name for name in loaded.skipped if "num_batches" not in name} == {"fc.weight"}
    for name, array in by_name(loaded.backbone).items():
        np.testing.assert_array_equal(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array, arrays[name])


def test_a_file_of_another_network_is_one_line(tmp_path, whole):
    path = tmp_path / "w.npz"
    missing = {name: array for name, array in whole.items() if name != "b4_5.bn_branch2a.running_var"}
    assert "b4_5.bn_branch2a.running_var is missing" in refusal(path, missing)
    deeper = whole | {"b4_6.bn_branch2a.weight": np.ones(8, np.float32)}
    assert "it has no place for b4_6.bn_branch2a.weight. Give a WideResNet-38" in refusal(path, deeper)
    assert "b7.bn_branch2b2.running_var holds a negative variance" in refusal(
        path, whole | {"b7.bn_branch2b2.running_var": -np.ones(32, np.float32)}
    )
    wider = {"conv1a.weight": np.ones((64, 3, 3, 3), np.float32)}
    assert "use --model.width 64." in refusal(path, wider)
    assert "b2.bn_branch2a.bias is missing" in refusal(path, {"conv1.weight": np.ones((2, 3, 7, 7), np.float32)})


def authors_name(name: str) -> str:
    """The name in the authors' file of MXNet."""
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    store = "aux" if "running" in name else "arg"
    *block, module, kind = name.split(".")
    kind = kinds[kind] if module.startswith("bn") else kind
    if not block:
        return f"{store}:{module}_{kind}"
    place = re.sub(r"^b(\d)$", r"\1a", re.sub(r"^b(\d)_(\d)$", r"\1b\2", block[0]))
    return f"{store}:{module.replace('conv_', f'res{place}_').replace('bn_', f'bn{place}_')}_{kind}"


def params_file(arrays: dict[str, np.ndarray], version: str) -> bytes:
    """A file of MXNet, as a version of it wrote them."""
    types = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4}
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        match version:
            case "2016":
                content += struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
            case "1":
                content += struct.pack(f"<II{array.ndim}q", 0xF993FAC8, array.ndim, *array.shape)
            case "2":
                content += struct.pack(f"<IiI{array.ndim}q", 0xF993FAC9, 0, array.ndim, *array.shape)
        if array.ndim:
            content += struct.pack("<iii", 1, 0, types[array.dtype.name]) + array.tobytes()
    content += struct.pack("<Q", len(arrays))
    return content + b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)


@pytest.mark.parametrize("version", ["2016", "1", "2"])
def test_the_authors_file(tmp_path, whole, version):
    entries = {authors_name(name): array for name, array in whole.items()}
    assert {"arg:conv1a_weight", "arg:res4b5_branch2b1_weight", "aux:bn2b1_branch2a_moving_var"} <= set(entries)
    others = {"arg:linear1000_weight": np.ones((5, 64), np.float16), "arg:empty": np.float32(0)}
    path = tmp_path / "model-0001.params"
    path.write_bytes(params_file(entries | others, version))
    loaded = WideResNet38Config(width=1).load(path, network_of())
    assert (loaded.loaded, loaded.skipped) == (len(whole), tuple(others))
    for name, array in by_name(loaded.backbone).items():
        np.testing.assert_array_equal(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array, whole[name])
    del entries["aux:bn2b1_branch2a_moving_var"]
    path.write_bytes(params_file(entries, version))
    with pytest.raises(UserError, match="aux:bn2b1_branch2a_moving_var is missing"):
        WideResNet38Config(width=1).load(path, network_of())


@pytest.mark.parametrize("version", ["2016", "1", "2"])
def test_a_damaged_file_of_mxnet_loads_or_is_one_line(tmp_path, version):
    path, rng = tmp_path / "w.params", np.random.default_rng(0)
    content = params_file({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.uint8)}, version)
    path.write_bytes(content)
    assert {name: array.shape for name, array in read_weight_file(path).items()} == {"a": (2, 3), "b": (4,)}
    places = range(8, len(content))
    for cut in places:
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"w\.params is not a readable file of MXNet \(.*\); download it again\.$"):
            read_weight_file(path)
    for place in places:
        path.write_bytes(content[:place] + rng.bytes(1) + content[place + 1 :])
        with contextlib.suppress(UserError):
            read_weight_file(path)


def test_parts_are_named_as_psa_freezes_them():
    assert WideResNet38.parts[:4] == ("conv1a", "b2", "b2_1", "b2_2")
    assert len(WideResNet38.parts) == 19


def test_training_leaves_out_channels_inside_the_last_two_blocks():
    model = WideResNet38Config(width=2).build(rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).normal(0, 1, (2, 24, 32, 3)).astype(np.float32)
    (first, second), plain = jax.random.split(jax.random.key(0)), model(images)
    drawn, again, other = (model(images, **drawn_with(model, key)) for key in (first, first, second))
    for stage, *found in zip(plain, drawn, again, other, strict=True):
        is_last = stage is plain[-1]
        np.testing.assert_array_equal(found[0], found[1])
        assert (np.abs(found[0] - stage).max() > 1e-3) == is_last
        assert (np.abs(found[0] - found[2]).max() > 1e-3) == is_last
    assert drawn_with(WideResNet38Config(width=1, dropout=False).build(rngs=nnx.Rngs(0)), first) == {}

    # Whole channels of a picture are left out, all others kept.
    block = Bottleneck(4, 16, dropout=0.5, dtype=np.float32, rngs=nnx.Rngs(1))
    block.conv_branch2b2.kernel[...] = np.eye(8, 16, dtype=np.float32).reshape(1, 1, 8, 16)
    x = images[..., :1] * np.ones(4, np.float32)
    kept, u = block(x, None, train=False, key=first)
    (whole, _), shortcut = block(x, None, train=False, key=None), block.conv_branch1(u)
    alive, left = (
        (np.abs(y - shortcut)[..., :8].reshape(2, -1, 8) > 1e-6).any(axis=1)
        for y in (np.asarray(whole), np.asarray(kept))
    )
    assert {*left[alive]} == {False, True}


@pytest.mark.rest
def test_lpcam_is_trained_on_it_and_maps_pictures(recipe, program, tmp_path):
    words = ("--model.backbone", "wideresnet38", "--model.width", 1, "--training.frozen", "conv1a", "b2")
    finished = program("train.py", recipe, *words, "--workdir", tmp_path / "run")
    assert finished.code == 0, finished.err
    assert Run.open(tmp_path / "run").config.model == WideResNet38Config(width=1)
    finished = program("infer.py", "--ckpt", tmp_path / "run", "--out", tmp_path / "maps", "--limit", 2)
    assert finished.code == 0, finished.err
    assert (tmp_path / "maps" / "metrics.json").exists()
