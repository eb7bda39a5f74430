"""VGG-16: its weights arrive from every code base, or one line says why not; LPCAM is trained on it."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from real_data import VGG16, needs

from lpcam_jax.backbones.vgg import VGG16Config, max_of_neighbours, max_of_pairs
from lpcam_jax.config.recipes import trained_config
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.training.run import Run

BLOCKS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
PLACES = [(block, conv) for block, count in BLOCKS.items() for conv in range(1, count + 1)]
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
NAMES = {
    "ours": {place: "block{}.conv{}".format(*place) for place in PLACES},
    "torchvision": {place: f"features.{index}" for place, index in zip(PLACES, FEATURES, strict=True)},
    "psa": {place: "conv{}_{}".format(*place) for place in PLACES},
}
# What a file may hold beside them.
OTHERS = {"torchvision": ("classifier.0.weight", "classifier.6.bias"), "psa": ("fc6.weight", "fc8.weight"), "ours": ()}


@cache
def network_of(width: int = 2) -> dict[str, Any]:
    model = nnx.eval_shape(lambda: VGG16Config(width=width).build(rngs=nnx.Rngs(0)))
    return {"backbone": nnx.to_pure_dict(nnx.state(model)), "head": np.zeros((16, 3))}


def leaf(tree: dict[str, Any], place: tuple[int, int]) -> dict[str, Any]:
    return tree[f"block{place[0]}"][f"conv{place[1]}"]


def entries_of(origin: str, width: int = 2) -> dict[str, np.ndarray]:
    """A random VGG-16 under the names of a code base."""
    rng, backbone, entries = np.random.default_rng(0), network_of(width)["backbone"], {}
    for place, module in NAMES[origin].items():
        kernel = leaf(backbone, place)["kernel"]
        entries[f"{module}.weight"] = rng.normal(size=(kernel.shape[3], kernel.shape[2], 3, 3)).astype(np.float32)
        entries[f"{module}.bias"] = rng.normal(size=kernel.shape[3]).astype(np.float32)
    return entries


def load(path: Path, entries: dict[str, np.ndarray], width: int = 2):
    np.savez(path, **entries)
    return VGG16Config(width=width).load(path, network_of(width))


def refusal(path: Path, entries: dict[str, np.ndarray]) -> str:
    with pytest.raises(UserError) as caught:
        load(path, entries)
    text = str(caught.value)
    assert text.startswith(f"{path} does not hold this backbone: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("origin", NAMES)
def test_every_array_arrives_from_every_code_base(tmp_path, origin, prefix):
    entries = {prefix + name: array for name, array in entries_of(origin).items()}
    others = {prefix + name: np.ones(3, np.float32) for name in OTHERS[origin]}
    loaded = load(tmp_path / "w.npz", entries | others)
    assert (loaded.loaded, loaded.skipped) == (26, tuple(others))
    assert str(loaded).startswith(f"26 entries loaded, {len(others)} skipped")
    assert str(loaded).endswith("1 new (head)")
    assert jax.tree.structure(loaded.backbone) == jax.tree.structure(network_of()["backbone"])
    for place, module in NAMES[origin].items():
        values = leaf(loaded.backbone, place)
        np.testing.assert_array_equal(values["kernel"].transpose(3, 2, 0, 1), entries[f"{prefix}{module}.weight"])
        np.testing.assert_array_equal(values["bias"], entries[f"{prefix}{module}.bias"])


def test_a_torch_file(tmp_path):
    torch = pytest.importorskip("torch")
    from reference.torch_vgg import torchvision

    network = torchvision()
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    loaded = VGG16Config().load(tmp_path / "vgg16.pth", network_of(64))
    assert (loaded.loaded, loaded.skipped) == (26, ("classifier.0.weight", "classifier.0.bias"))
    last = network["features"][28].weight.detach().numpy()
    np.testing.assert_array_equal(loaded.backbone["block5"]["conv3"]["kernel"].transpose(3, 2, 0, 1), last)


def test_a_file_of_another_network_is_one_line(tmp_path):
    path, entries = tmp_path / "w.npz", entries_of("torchvision")
    missing = {name: array for name, array in entries.items() if name != "features.5.bias"}
    assert "features.5.bias is missing" in refusal(path, missing)
    deeper = entries | {"features.34.weight": np.ones((16, 16, 3, 3), np.float32)}
    assert "it has no place for features.34.weight. Give a VGG-16" in refusal(path, deeper)
    normed = entries | {"features.1.running_mean": np.ones(2, np.float32)}
    assert "It has batch norm, here there is none" in refusal(path, normed)
    assert "use --model.width 4." in refusal(path, entries_of("torchvision", width=4))
    assert "block1.conv1.weight is missing" in refusal(path, {"conv1.weight": np.ones((2, 3, 7, 7), np.float32)})
    broken = entries | {"features.0.bias": np.float32([0, np.nan])}
    assert "features.0.bias holds values that are not finite" in refusal(path, broken)


@needs(VGG16)
def test_the_real_weights_are_found(tmp_path):
    loaded = VGG16Config().load(VGG16, network_of(64))
    assert (loaded.loaded, loaded.skipped) == (26, ())
    with np.load(VGG16) as file:
        np.testing.assert_array_equal(
            loaded.backbone["block3"]["conv2"]["kernel"].transpose(3, 2, 0, 1), file["block3.conv2.weight"]
        )


@pytest.mark.parametrize("length", range(1, 8))
def test_pools(length):
    x = np.random.default_rng(length).random((2, length, 5, 3), np.float32)
    rows = np.array([x[:, i : i + 2].max(1) for i in range(0, length, 2)]).swapaxes(0, 1)
    pairs = np.array([rows[:, :, i : i + 2].max(2) for i in range(0, 5, 2)]).transpose(1, 2, 0, 3)
    np.testing.assert_array_equal(max_of_pairs(x), pairs)
    rows = np.array([x[:, max(i - 1, 0) : i + 2].max(1) for i in range(length)]).swapaxes(0, 1)
    around = np.array([rows[:, :, max(i - 1, 0) : i + 2].max(2) for i in range(5)]).transpose(1, 2, 0, 3)
    np.testing.assert_array_equal(max_of_neighbours(x), around)


# Programs


@pytest.fixture(scope="module")
def trained(recipe, program, tmp_path_factory):
    """A finished run of LPCAM on it; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "vgg16"
    words = ("--model.backbone", "vgg16", "--model.width", 2, "--training.frozen", "block1", "block2")
    finished = program("train.py", recipe, *words, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir


def test_lpcam_is_trained_on_it_and_maps_pictures(trained, program, tmp_path):
    assert Run.open(trained).config.model == VGG16Config(width=2)
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "maps", "--limit", 6)
    assert finished.code == 0, finished.err
    assert set(json.loads((tmp_path / "maps/metrics.json").read_text())["scores"]) == {"cam", "lpcam_f", "lpcam"}


def test_a_run_on_its_backbone_takes_over_layout_and_width(recipe, tmp_path):
    model = VGG16Config(width=2, layout="psa")
    Run.create(tmp_path, LPCAMConfig(model=model), ("cat",))
    words = [recipe, "--model.backbone", "vgg16", "--model.weights", str(tmp_path), "--workdir", "run"]
    config = trained_config(words)
    assert config.model == replace(model, weights=str(tmp_path))
