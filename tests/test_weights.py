"""Weights of the torch world: every number arrives where it belongs, or one line says why not."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from real_data import THIN_RESNET50, needs
from safetensors.numpy import save_file

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.layers.norms import BatchNorm
from lpcam_jax.backbones.resnet import ResNet
from lpcam_jax.backbones.weights.resnet import load_deeplab
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.state import with_weights

NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def backbone(**options) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """The graph and the shapes of a backbone, parameters and statistics in one nested dict."""
    options = {"blocks": (1, 1, 2, 1), "width": 2, "stem_width": 4} | options
    graph, state = nnx.split(nnx.eval_shape(lambda: ResNet(**options, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def named(tree: dict[str, Any]) -> dict[str, Any]:
    """The leaves under our names: layer1/0/conv1/kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def torch_name(name: str) -> str:
    *module, kind = name.replace("downsample/conv", "downsample/0").replace("downsample/bn", "downsample/1").split("/")
    return ".".join([*module, NORM.get(kind, "weight")])


@pytest.fixture
def whole() -> dict[str, np.ndarray]:
    """A random backbone in torchvision's names and layout."""
    rng = np.random.default_rng(0)
    random = {name: rng.random(leaf.shape, np.float32) for name, leaf in named(backbone()[1]).items()}
    arrays = {torch_name(name): a.transpose(3, 2, 0, 1) if a.ndim == 4 else a for name, a in random.items()}
    assert {"layer1.0.downsample.0.weight", "layer3.1.bn3.running_var", "conv1.weight"} <= set(arrays)
    return arrays


@pytest.fixture
def folded(whole) -> dict[str, np.ndarray]:
    """The same convolutions, each with a bias in place of its norm."""
    rng = np.random.default_rng(1)
    arrays = {}
    for name, array in whole.items():
        if array.ndim == 4:
            module = name.removesuffix(".weight").replace("downsample.0", "downsample")
            arrays[f"{module}.weight"] = array
            arrays[f"{module}.bias"] = rng.normal(size=array.shape[0]).astype(np.float32)
    assert {"layer1.0.downsample.bias", "conv1.bias", "layer3.1.conv3.bias"} <= set(arrays)
    return arrays


def load(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    np.savez(path, **arrays)
    loaded = load_deeplab(path, {"backbone": backbone()[1]}).backbone
    assert jax.tree.structure(loaded) == jax.tree.structure(backbone()[1])
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}
    return named(loaded)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_deeplab(path, {"backbone": backbone()[1]})
    text = str(caught.value)
    assert text.isprintable()
    assert str(path) in text
    return text


def test_every_array_arrives_transposed_under_its_name(tmp_path, whole):
    extra = {"fc.weight": np.ones((1000, 64)), "fc.bias": np.ones(1000), "bn1.num_batches_tracked": np.int64(7)}
    loaded = load(tmp_path / "w.npz", whole | extra)
    assert len(loaded) == len(whole)
    for name, array in loaded.items():
        stored = whole[torch_name(name)]
        np.testing.assert_array_equal(array, stored.transpose(2, 3, 1, 0) if stored.ndim == 4 else stored)


def test_folded_norms_become_norms_that_only_shift(tmp_path, folded):
    loaded = load(tmp_path / "w.npz", folded)
    for name, array in loaded.items():
        *module, kind = name.split("/")
        conv = ".".join(module).replace("bn", "conv")
        conv = conv.replace("downsample.conv", "downsample")
        match kind:
            case "kernel":
                np.testing.assert_array_equal(array, folded[f"{conv}.weight"].transpose(2, 3, 1, 0))
            case "bias":
                np.testing.assert_array_equal(array, folded[f"{conv}.bias"])
            case _:
                assert (array == {"scale": 1, "mean": 0, "var": np.float32(1 - 1e-5)}[kind]).all()


def test_folded_stem_is_a_convolution_with_a_bias(tmp_path, folded):
    np.savez(tmp_path / "w.npz", **folded)
    graph, shapes = backbone()
    model = nnx.merge(graph, jax.tree.map(jnp.asarray, load_deeplab(tmp_path / "w.npz", {"backbone": shapes}).backbone))
    x = np.random.default_rng(2).normal(size=(2, 9, 12, 3)).astype(np.float32)
    weight, dimensions = folded["conv1.weight"], ("NHWC", "OIHW", "NHWC")
    expected = jax.lax.conv_general_dilated(x, weight, (2, 2), ((3, 3), (3, 3)), dimension_numbers=dimensions)
    expected = np.asarray(expected) + folded["conv1.bias"]
    np.testing.assert_array_equal(model.bn1(model.conv1(x), train=False), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_unfolded_norm_adds_the_bias_and_nothing_else(tmp_path, folded, compiled):
    loaded = load(tmp_path / "w.npz", folded)
    norm = BatchNorm(64)
    for name in NORM:
        getattr(norm, name)[...] = jnp.asarray(loaded[f"layer4/0/bn3/{name}"])
    x = np.random.default_rng(0).normal(0, 30, (3, 5, 7, 64)).astype(np.float32)
    apply = jax.jit(lambda x: norm(x, train=False)) if compiled else lambda x: norm(x, train=False)
    np.testing.assert_array_equal(apply(x), x + folded["layer4.0.conv3.bias"])


def test_all_missing_entries_are_listed(tmp_path, whole):
    del whole["layer2.0.conv1.weight"], whole["layer1.0.downsample.1.running_mean"]
    np.savez(tmp_path / "w.npz", **whole)
    text = refusal(tmp_path / "w.npz")
    assert "layer2.0.conv1.weight is missing" in text
    assert "layer1.0.downsample.1.running_mean is missing" in text
    assert text.count("is missing") == 2


def test_many_problems_are_counted(tmp_path):
    np.savez(tmp_path / "w.npz", nothing=np.zeros(3))
    total = len(named(backbone()[1]))
    assert f"; and {total - 6} more" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("conv1.weight", np.zeros((4, 3, 5, 7)), "conv1.weight has shape (4, 3, 5, 7), not (4, 3, 7, 7)"),
        ("bn1.bias", np.zeros(5), "bn1.bias has shape (5,), not (4,)"),
        ("bn1.bias", np.array([0, np.nan, 0, 0]), "bn1.bias holds values that are not finite"),
        ("bn1.running_var", np.array([1, np.inf, 1, 1]), "bn1.running_var holds values that are not finite"),
        ("bn1.bias", np.array([0, 1e300, 0, 0]), "bn1.bias holds values that are not finite"),  # in float32
        (
            "layer3.1.bn2.running_var",
            np.array([1.0] * 7 + [-1e-9]),
            "layer3.1.bn2.running_var holds a negative variance",
        ),
        ("conv1.bias", np.zeros(4), "bn1.weight and conv1.bias are both bn1/scale"),
        ("bn1.bias", np.zeros(4, "V2"), "bn1.bias holds |V2 instead of numbers"),  # how NumPy stores a bfloat16
        ("bn1.bias", np.array(["1", "2", "3", "4"]), "bn1.bias holds <U1 instead of numbers"),
    ],
)
def test_wrong_entries_are_named(tmp_path, whole, name, array, message):
    np.savez(tmp_path / "w.npz", **(whole | {name: array}))
    text = refusal(tmp_path / "w.npz")
    assert message in text
    assert text.count(";") == (3 if "are both" in text else 0), "one problem; or one for each of four arrays"


def test_two_entries_for_one_parameter_are_named(tmp_path, whole):
    whole["layer1.0.downsample.weight"] = whole["layer1.0.downsample.0.weight"]
    np.savez(tmp_path / "w.npz", **whole)
    names = "layer1.0.downsample.0.weight and layer1.0.downsample.weight"
    assert f"{names} are both layer1/0/downsample/conv/kernel" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("prefix", ["module.", "encoder.backbone."])
def test_a_prefix_is_stripped(tmp_path, whole, prefix):
    # The 7x7 kernel tells it from the conv1 of every block; what has another prefix is another network.
    arrays = {prefix + name: array for name, array in whole.items()}
    arrays |= {"head.conv1.weight": np.zeros((8, 4, 3, 3)), "bn1.weight": np.zeros(9)}
    loaded = load(tmp_path / "w.npz", arrays)
    np.testing.assert_array_equal(loaded["bn1/scale"], whole["bn1.weight"])
    assert load_deeplab(tmp_path / "w.npz", {"backbone": backbone()[1]}).skipped == ("head.conv1.weight", "bn1.weight")


def test_two_backbones_in_a_file_are_listed(tmp_path, whole):
    np.savez(tmp_path / "w.npz", **{f"{key}.{name}": a for key in ("query", "key") for name, a in whole.items()})
    assert "holds 2 backbones (query.conv1.weight, key.conv1.weight)" in refusal(tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz", **whole, **{f"teacher.{name}": array for name, array in whole.items()})
    assert load_deeplab(tmp_path / "w.npz", {"backbone": backbone()[1]}).loaded == len(whole)


def test_another_network_is_told_with_its_flags(tmp_path, whole):
    np.savez(tmp_path / "w.npz", **whole)
    flags = "--model.blocks 1 1 2 1 --model.width 2 --model.stem-width 4"
    with pytest.raises(UserError, match=rf"ResNet-17 \(blocks 1 1 2 1, width 2, stem 4\), .*: use {flags}"):
        load_deeplab(tmp_path / "w.npz", {"backbone": backbone(blocks=(1, 1, 1, 1), width=4)[1]})


def test_the_state_gets_the_weights_and_says_so(tmp_path, whole, mesh, capsys):
    counters = {f"{name.removesuffix('weight')}num_batches_tracked": np.int64(3) for name in whole if "bn" in name}
    np.savez(tmp_path / "w.npz", **whole, **counters, **{"fc.weight": np.zeros((5, 64)), "fc.bias": np.zeros(5)})
    graph, _ = backbone()
    model = nnx.merge(graph, backbone()[1])
    _, parameters, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    trees = [{"backbone": nnx.to_pure_dict(tree), "head": "kept"} for tree in (parameters, statistics)]
    config = LPCAMConfig(model=ResNetConfig(weights=str(tmp_path / "w.npz")))
    state = with_weights(TrainState(0, *trees, None), config, devices=mesh)
    assert state.parameters["head"] == "kept"
    np.testing.assert_array_equal(state.parameters["backbone"]["bn1"]["scale"], whole["bn1.weight"])
    np.testing.assert_array_equal(state.batch_stats["backbone"]["bn1"]["mean"], whole["bn1.running_mean"])
    line = f"w.npz: {len(whole)} entries loaded, {len(counters) + 2} skipped (fc.weight, fc.bias, {len(counters)} num_b"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "dtype"), [("w.safetensors", np.float32), ("w.npz", np.float16), ("weights", jnp.bfloat16)]
)
def test_safetensors(tmp_path, whole, dtype, name):
    arrays = {name: np.ascontiguousarray(array, dtype) for name, array in whole.items()}
    save_file(arrays | {"step": np.arange(3)}, tmp_path / name)
    loaded = load_deeplab(tmp_path / name, {"backbone": backbone()[1]})
    assert loaded.skipped == ("step",)
    for ours, array in named(loaded.backbone).items():
        stored = arrays[torch_name(ours)].astype(np.float32)
        np.testing.assert_array_equal(array, stored.transpose(2, 3, 1, 0) if stored.ndim == 4 else stored)


def test_damaged_safetensors_load_or_are_refused(tmp_path, whole):
    path = tmp_path / "w.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in whole.items()}, path)
    content = path.read_bytes()
    for cut in (0, 4, 50, 5000, len(content) - 1):
        path.write_bytes(content[:cut])
        assert "is not a readable safetensors file" in refusal(path)
    rng, shapes = np.random.default_rng(0), backbone()[1]
    for place in rng.integers(8, int.from_bytes(content[:8], "little"), size=60):
        damaged = bytearray(content)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_deeplab(path, {"backbone": shapes})
        except UserError as error:
            message = str(error)
        else:
            continue
        assert message.isprintable()


@pytest.mark.parametrize(("name", "zipped"), [("w.pth", True), ("w.bin", False), ("w.npz", True), ("w.npz", False)])
def test_torch_files_are_told_by_their_content(tmp_path, whole, zipped, name):
    torch = pytest.importorskip("torch")
    entries = {f"module.{name}": torch.from_numpy(array).bfloat16() for name, array in whole.items()}
    torch.save({"epoch": 3, "state_dict": entries}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    loaded = load_deeplab(tmp_path / name, {"backbone": backbone()[1]})
    assert (loaded.loaded, loaded.skipped) == (len(whole), ())
    for ours, array in named(loaded.backbone).items():
        stored = entries[f"module.{torch_name(ours)}"].float().numpy()
        np.testing.assert_array_equal(array, stored.transpose(2, 3, 1, 0) if stored.ndim == 4 else stored)


def test_an_archive_that_would_unfold_is_refused(tmp_path, whole):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **whole)
    content = bytearray(path.read_bytes())
    claim = content.index(b"PK\x01\x02") + 24  # in the table of contents: the size of an entry once unpacked
    content[claim : claim + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    assert "would expand to 2 GiB" in refusal(path)


class Unpicklable:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


@pytest.mark.parametrize("kind", ["text", "empty", "npy", "cut", "objects", "pickle"])
def test_other_files_are_refused(tmp_path, whole, kind):
    path = tmp_path / "w.npz"
    np.savez(path, **whole)
    match kind:
        case "text":
            path.write_text("not an archive\nof arrays")
        case "empty":
            path.write_bytes(b"")
        case "npy":
            with path.open("wb") as file:
                np.save(file, np.zeros(3))
        case "cut":
            path.write_bytes(path.read_bytes()[:-200])
        case "objects":
            np.savez(path, **(whole | {"bn1.bias": np.array([Unpicklable()] * 4)}))
        case "pickle":
            with path.open("wb") as file:
                np.save(file, np.array(Unpicklable(), object), allow_pickle=True)
    assert "is not a readable npz file of arrays" in refusal(path)


def test_missing_file(tmp_path):
    assert "does not exist" in refusal(tmp_path / "w.npz")
    assert "is not a file of weights; give an .npz, .pth" in refusal(tmp_path)


@needs(THIN_RESNET50)
def test_real_file_is_found_bit_by_bit():
    _, shapes = backbone(blocks=(3, 4, 6, 3), width=32, stem_width=64, layout="caffe")
    loaded = named(load_deeplab(THIN_RESNET50, {"backbone": shapes}).backbone)
    with np.load(THIN_RESNET50) as file:
        stored = {name: file[name] for name in file.files}
    assert len(stored) == 106
    for name, array in stored.items():
        *module, kind = name.split(".")
        if module[-1] == "downsample":
            module.append("conv")
        if kind == "weight":
            np.testing.assert_array_equal(loaded["/".join([*module, "kernel"])], array.transpose(2, 3, 1, 0))
        else:
            norm = "/".join([*module[:-1], module[-1].replace("conv", "bn")])
            np.testing.assert_array_equal(loaded[f"{norm}/bias"], array)
    assert len(loaded) == 53 * 5
    for size in (64, 128, 1024):
        name = next(name for name in loaded if name.endswith("/bias") and loaded[name].shape == (size,))
        norm = nnx.eval_shape(lambda size=size: BatchNorm(size))
        graph, state = nnx.split(norm)
        values = {kind: jnp.asarray(loaded[name.replace("/bias", f"/{kind}")]) for kind in NORM}
        assert set(values) == set(nnx.to_pure_dict(state))
        x = np.random.default_rng(0).normal(0, 30, (2, 3, 5, size)).astype(np.float32)
        y = jax.jit(lambda values, x, graph=graph: nnx.merge(graph, values)(x, train=False))(values, x)
        np.testing.assert_array_equal(y, x + loaded[name])
