"""DeepLab files of the torch world, whatever they call things: every number arrives, or one line says why not."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro
from flax import nnx
from safetensors.numpy import save_file

from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.backbones.resnet import ResNet
from lpcam_jax.backbones.weights.names import read_weights
from lpcam_jax.backbones.weights.resnet import find_architecture, load_deeplab
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.deeplab.config import DeepLabConfig
from lpcam_jax.systems.deeplab.network import DeepLabV2, DeepLabV3Plus

CLASSES = 3
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def network(model=DeepLabV2, *, classes: int = CLASSES, blocks=(1, 2, 1, 1), width: int = 4) -> dict[str, Any]:
    """The shapes of a network, parameters and statistics in one nested dict."""

    def build():
        rngs = nnx.Rngs(0)
        options = {"layout": "caffe", "stem_pool": "symmetric_ceil", "output_stride": 8, "dilation": "atrous"}
        backbone = ResNet(blocks=blocks, width=width, stem_width=6, **options, rngs=rngs)
        return model(backbone, classes, preprocessing=Preprocessing(), rngs=rngs)

    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(build)))


def named(tree: dict[str, Any]) -> dict[str, Any]:
    """The leaves under our names: backbone/layer1/0/conv1/kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def torchvision(ours: str) -> str:
    *module, kind = ours.removeprefix("backbone/").split("/")
    module = ".".join(module).replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1")
    return f"{module}.{KINDS[kind]}"


def scale(ours: str) -> str:
    return torchvision(ours).replace("head.", "layer5.conv2d_list.")


def deeplab_pytorch(ours: str, *, shortcut: str = "shortcut", head: str = "aspp") -> str:
    *module, kind = ours.removeprefix("backbone/").split("/")
    match module:
        case ["head", i]:
            module = head, f"c{i}"
        case [layer]:
            module = "layer1", "conv1", layer.rstrip("1")
        case [stage, block, branch]:
            branches = {"1": "reduce", "2": "conv3x3", "3": "increase"}
            module = f"layer{int(stage[-1]) + 1}", f"block{int(block) + 1}", branches[branch[-1]], branch[:-1]
        case [stage, block, "downsample", layer]:
            module = f"layer{int(stage[-1]) + 1}", f"block{int(block) + 1}", shortcut, layer
    return ".".join([*module, KINDS[kind]])


def early_deeplab_pytorch(ours: str) -> str:
    return deeplab_pytorch(ours, shortcut="proj", head="aspp.stages")


NAMINGS = [torchvision, scale, deeplab_pytorch, early_deeplab_pytorch]


def random_file(naming: Callable, prefix: str = "", tree: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Random arrays under a code base's names, in torch's layout."""
    rng, leaves = np.random.default_rng(0), named(network() if tree is None else tree)
    random = {prefix + naming(ours): rng.random(leaf.shape, np.float32) for ours, leaf in leaves.items()}
    assert len(random) == len(leaves)
    return {name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for name, array in random.items()}


def assert_arrived(loaded: dict[str, Any], stored: dict[str, np.ndarray], naming: Callable, prefix: str = ""):
    """Every value is that of its entry, and nothing else is there."""
    for ours, array in named(loaded).items():
        wanted = stored[prefix + naming(ours)]
        np.testing.assert_array_equal(array, wanted.transpose(2, 3, 1, 0) if wanted.ndim == 4 else wanted, err_msg=ours)
        assert array.dtype == np.float32


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def refusal(path: Path, tree: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_deeplab(path, network() if tree is None else tree)
    text = str(caught.value)
    assert text.isprintable()
    assert str(path) in text
    return text


def test_the_names_are_those_of_the_sources():
    """As they stand in kazuto1011/deeplab-pytorch (and its issues 26 and 70), and in what others load of isht7's."""
    blocks = {
        f"layer3.block{block}.{branch}.{entry}"
        for block in (1, 2)
        for branch in ("reduce", "conv3x3", "increase")
        for entry in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    }
    others = {"layer1.conv1.conv.weight", "layer1.conv1.bn.running_var", "layer5.block1.shortcut.bn.running_mean"}
    others |= {"layer5.block1.shortcut.conv.weight", "aspp.c0.weight", "aspp.c3.bias"}
    assert blocks | others <= random_file(deeplab_pytorch).keys()
    early = {"scale.aspp.stages.c2.weight", "scale.layer2.block1.proj.conv.weight"}
    assert early <= random_file(early_deeplab_pytorch, "scale.").keys()
    scaled = {"Scale.layer5.conv2d_list.3.weight", "Scale.conv1.weight", "Scale.layer4.0.downsample.1.bias"}
    assert scaled <= random_file(scale, "Scale.").keys()


@pytest.mark.parametrize(
    ("naming", "prefix", "ending"),
    [
        (deeplab_pytorch, "", "npz"), (deeplab_pytorch, "base.", "npz"), (deeplab_pytorch, "module.base.", "pth"),
        (early_deeplab_pytorch, "scale.", "npz"), (scale, "", "npz"), (scale, "Scale.", "npz"),
        (scale, "module.Scale.", "safetensors"), (torchvision, "", "npz"), (torchvision, "module.", "npz"),
    ],
)  # fmt: skip
def test_every_entry_arrives(tmp_path, naming, prefix, ending):
    arrays = random_file(naming, prefix)
    loaded = load_deeplab(saved(tmp_path / f"w.{ending}", arrays), network())
    assert jax.tree.structure(loaded.network) == jax.tree.structure(network())
    assert_arrived(loaded.network, arrays, naming, prefix)
    assert str(loaded) == f"{len(arrays)} entries loaded, 0 skipped, head loaded"
    assert loaded.new == {}


def test_a_head_of_another_kind_is_told_by_its_shape(tmp_path):
    path = saved(tmp_path / "w.npz", random_file(torchvision, "", network(classes=21)))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), network(classes=7))
    inner = shapes["head"][1]["kernel"]
    shapes["head"][1]["kernel"] = jax.ShapeDtypeStruct((*inner.shape[:2], 7, 7), inner.dtype)  # after another one
    assert "has shape (21," in load_deeplab(path, shapes).new["head"]


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_head_of_other_classes_is_left_out_and_said(tmp_path, naming):
    path = saved(tmp_path / "w.npz", random_file(naming, "module.", network(classes=21)))
    loaded = load_deeplab(path, network(classes=7))
    assert loaded.network.keys() == {"backbone"}
    assert str(loaded).endswith(", head new: the file's has 21 classes, this one 7")
    assert len(loaded.skipped) == 8
    assert f"module.{naming('head/3/kernel')}" in loaded.skipped


def test_a_head_that_is_not_whole_is_left_out_and_said(tmp_path):
    arrays = random_file(deeplab_pytorch, "base.")
    cut = {name: array for name, array in arrays.items() if name != "base.aspp.c3.bias"}
    loaded = load_deeplab(saved(tmp_path / "w.npz", cut), network())
    assert str(loaded).endswith("head new: the file lacks base.aspp.c3.bias")
    assert loaded.network.keys() == {"backbone"}

    # DeepLabs of two heads have one on the stage before, under the same name.
    deeper = arrays | {f"base.aspp.c{i}.weight": np.zeros((CLASSES, 64, 3, 3), np.float32) for i in range(4)}
    loaded = load_deeplab(saved(tmp_path / "w.npz", deeper), network())
    assert str(loaded).endswith("head new: base.aspp.c0.weight has shape (3, 64, 3, 3), not (3, 128, 3, 3)")
    assert not find_architecture(read_weights(tmp_path / "w.npz")).deeplab


def test_a_classifier_of_deeplab_pytorch_has_no_head(tmp_path):
    arrays = random_file(deeplab_pytorch, "", {"backbone": network()["backbone"]})
    for shape in [(5, 128), (91, 128, 1, 1)]:  # of its ResNet; of its DeepLabV1, the one with the COCO weights
        fc = {"fc.weight": np.zeros(shape, np.float32), "fc.bias": np.zeros(shape[0], np.float32)}
        counter = {"layer1.conv1.bn.num_batches_tracked": np.array(0)}
        path = saved(tmp_path / "w.npz", arrays | fc | counter)
        loaded = load_deeplab(path, network())
        skipped = "3 skipped (fc.weight, fc.bias, 1 num_batches_tracked)"
        assert str(loaded) == f"{len(arrays)} entries loaded, {skipped}, head new: the file has none"
        assert_arrived(loaded.network, arrays, deeplab_pytorch)
        assert find_architecture(read_weights(path)).classes == (5 if len(shape) == 2 else None)


def test_a_classifier_gets_the_backbone_of_a_deeplab(tmp_path):
    arrays = random_file(deeplab_pytorch, "base.")
    path = saved(tmp_path / "w.npz", arrays)
    loaded = load_deeplab(path, {"backbone": network()["backbone"], "head": np.zeros((128, 5))})
    assert_arrived({"backbone": loaded.backbone}, arrays, deeplab_pytorch, "base.")
    assert str(loaded).endswith("2 more), 1 new (head)")


def test_v3plus_gets_the_backbone(tmp_path):
    arrays = random_file(deeplab_pytorch, "base.")
    loaded = load_deeplab(saved(tmp_path / "w.npz", arrays), network(DeepLabV3Plus))
    assert loaded.network.keys() == {"backbone"}
    assert_arrived(loaded.network, arrays, deeplab_pytorch, "base.")
    assert set(loaded.skipped) == {f"base.aspp.c{i}.{kind}" for i in range(4) for kind in ("weight", "bias")}
    assert str(loaded).endswith(", 4 new (classifier, decoder, finer, pyramid)")


@pytest.mark.parametrize("model", [DeepLabV2, DeepLabV3Plus])
def test_torchvisions_deeplabv3(tmp_path, model):
    arrays = random_file(torchvision, "backbone.", {"backbone": network()["backbone"]})
    heads = {
        "classifier.0.convs.0.0.weight": np.ones((256, 128, 1, 1)), "classifier.0.project.1.bias": np.ones(256),
        "classifier.4.weight": np.ones((21, 256, 1, 1)), "classifier.4.bias": np.ones(21),
        "aux_classifier.0.weight": np.ones((8, 64, 3, 3)), "aux_classifier.4.bias": np.ones(21),
    }  # fmt: skip
    path = saved(tmp_path / "w.npz", arrays | heads)
    loaded = load_deeplab(path, network(model))
    assert_arrived(loaded.network, arrays, torchvision, "backbone.")
    assert f"{len(arrays)} entries loaded, 6 skipped ({', '.join(heads)}), " in str(loaded)
    assert set(loaded.new) == set(network(model)) - {"backbone"}
    weights = read_weights(path)
    assert (weights.prefix, weights.caffe) == ("backbone.", False)
    assert find_architecture(weights)[:3] == ((1, 2, 1, 1), 4, 6)


@pytest.mark.parametrize(
    ("naming", "prefix", "missing", "wrong"),
    [
        (deeplab_pytorch, "module.base.", "layer3.block2.increase.bn.running_var", "layer1.conv1.conv.weight"),
        (early_deeplab_pytorch, "scale.", "layer5.block1.proj.conv.weight", "layer4.block1.conv3x3.conv.weight"),
        (scale, "Scale.", "layer4.0.downsample.1.bias", "conv1.weight"),
        (torchvision, "", "layer2.1.bn1.weight", "layer1.0.conv2.weight"),
    ],
)
def test_problems_are_named_as_the_file_does(tmp_path, naming, prefix, missing, wrong):
    arrays = random_file(naming, prefix)
    del arrays[prefix + missing]
    shape = arrays[prefix + wrong].shape
    arrays[prefix + wrong] = np.zeros((9, *shape[1:]), np.float32)
    text = refusal(saved(tmp_path / "w.npz", arrays))
    assert f": {prefix}{missing} is missing" in text or f"; {prefix}{missing} is missing" in text
    assert f" {prefix}{wrong} has shape {(9, *shape[1:])}, not {shape}" in text
    assert text.count("; ") == 1


def test_values_of_a_head_must_be_numbers(tmp_path):
    arrays = random_file(deeplab_pytorch, "base.")
    arrays["base.aspp.c2.bias"][1] = np.nan
    text = refusal(saved(tmp_path / "w.npz", arrays))
    assert "does not hold this backbone and head: base.aspp.c2.bias holds values that are not finite" in text
    other = load_deeplab(tmp_path / "w.npz", network(classes=2))
    assert other.new == {"head": "the file's has 3 classes, this one 2"}


def test_another_network_is_told_with_its_flags(tmp_path):
    path = saved(tmp_path / "w.npz", random_file(deeplab_pytorch, "base."))
    flags = "use --model.blocks 1 2 1 1 --model.width 4 --model.stem-width 6"
    assert flags in refusal(path, network(blocks=(1, 1, 1, 1), width=2))
    cut = {name: array for name, array in random_file(deeplab_pytorch).items() if "increase.conv" not in name}
    with pytest.raises(UserError, match=r"is no layer2.block1.increase.conv.weight, layer3.block1.increase.conv"):
        find_architecture(read_weights(saved(path, cut)))


def test_two_names_for_one_entry_are_refused(tmp_path):
    arrays = random_file(deeplab_pytorch) | {"layer1.0.bn2.bias": np.zeros(4, np.float32)}
    text = refusal(saved(tmp_path / "w.npz", arrays))
    assert "holds layer2.block1.conv3x3.bn.bias and layer1.0.bn2.bias, two names for one entry" in text


def test_two_backbones_are_refused_in_the_files_words(tmp_path):
    arrays = random_file(deeplab_pytorch, "student.") | random_file(deeplab_pytorch, "teacher.")
    stems = "student.layer1.conv1.conv.weight, teacher.layer1.conv1.conv.weight"
    assert f"holds 2 backbones ({stems})" in refusal(saved(tmp_path / "w.npz", arrays))


@pytest.mark.parametrize(
    ("naming", "prefix", "head"),
    [
        (deeplab_pytorch, "base.", True), (early_deeplab_pytorch, "", True), (scale, "Scale.", True), (scale, "", True),
        (scale, "Scale.", False), (torchvision, "", True), (torchvision, "backbone.", False),
    ],
)  # fmt: skip
def test_convert(program, tmp_path, naming, prefix, head):
    tree = network() if head else {"backbone": network()["backbone"]}
    arrays = random_file(naming, prefix, tree)
    source, out = saved(tmp_path / "source.npz", arrays), tmp_path / "out"
    finished = program("lpcam_jax.__main__", "convert", source, "--out", out)
    assert finished.code == 0, finished.err

    described = "ResNet-17 (blocks 1 2 1 1, width 4, stem 6), batch norm separate"
    described += f", DeepLabV2 head of {CLASSES} classes" if head else ""
    fate = "head loaded" if head else "1 new (head)"
    assert f"{described}, {len(arrays)} entries loaded, 0 skipped, {fate}\n" in finished.out

    (line,) = [line for line in finished.out.splitlines() if line.startswith("train with it: ")]
    model = tyro.cli(DeepLabConfig, args=shlex.split(line.removeprefix("train with it: "))).model
    caffe = naming is not torchvision
    assert (model.blocks, model.width, model.stem_width) == ((1, 2, 1, 1), 4, 6)
    if caffe:
        assert (model.layout, model.stem_pool, model.channel_order) == ("caffe", "symmetric_ceil", "bgr")
        assert (model.mean, model.std) == ((104.008, 116.669, 122.675), (1, 1, 1))
    assert ("not in the file: --model.layout" in finished.out) != caffe
    assert ("--model.layout caffe" in line) == caffe
    report = json.loads((out / "report.json").read_text())
    assert line.endswith(report["flags"])
    assert (report["prefix"], report["new"]) == (prefix, [] if head else ["head"])
    assert report["architecture"]["deeplab"] == head

    with np.load(out / "backbone.npz") as file:
        written = {name: file[name] for name in file.files}
    assert written.keys() == {torchvision(ours) for ours in named(tree)}
    again = load_deeplab(out / "backbone.npz", network())
    assert again.network.keys() == tree.keys()
    assert_arrived(again.network, arrays, naming, prefix)


def test_convert_leaves_a_broken_head_out(program, tmp_path):
    arrays = random_file(deeplab_pytorch, "base.")
    del arrays["base.aspp.c1.weight"]
    finished = program(
        "lpcam_jax.__main__", "convert", saved(tmp_path / "source.npz", arrays), "--out", tmp_path / "out"
    )
    assert finished.code == 0, finished.err
    assert "head new: the file lacks base.aspp.c1.weight" in finished.out
    with np.load(tmp_path / "out" / "backbone.npz") as file:
        assert not [name for name in file.files if name.startswith("head")]
