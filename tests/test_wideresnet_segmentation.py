"""MCTformer's segmentation network: LargeFOV on a WideResNet-38, beside a torch network and its file."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_networks import split

from lpcam_jax.systems.deeplab.config import headed
from lpcam_jax.systems.deeplab.network import build_deeplab

torch = pytest.importorskip("torch")

from reference import torch_resnet, torch_wideresnet  # noqa: E402 (they need torch)
from reference.torch_weights import relative_difference, to_torch  # noqa: E402

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES, WIDTH, INSIDE = 4, 1, 12
MODEL = headed("wideresnet38")(head="largefov", head_width=INSIDE, width=WIDTH)


class Both(NamedTuple):
    """Our network, with what it read of the file of torch's, in float64."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: "torch.nn.Module"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights") / "seg.pth"


@pytest.fixture(scope="module")
def both(file) -> Both:
    network = torch_wideresnet.Segmentation(CLASSES, width=WIDTH, inside=INSIDE)
    network = torch_resnet.randomized(network, seed=0)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, file)
    graph, (parameters, batch_stats), loaded = loaded_from(file)
    assert loaded.new == {}
    assert all(name.endswith("num_batches_tracked") for name in loaded.skipped)
    assert "head loaded" in str(loaded)
    return Both(graph, *(part_of(loaded.network, tree) for tree in (parameters, batch_stats)), network.double().eval())


def loaded_from(file: Path, *, classes: int = CLASSES):
    """Graph and shapes of our network, and what it reads."""
    model = nnx.eval_shape(lambda: build_deeplab(MODEL, classes))
    return *split(model), MODEL.load(file, nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))


def part_of(values: Any, tree: Any) -> Any:
    """The arrays for the leaves of a tree."""
    return {key: part_of(values[key], leaf) for key, leaf in tree.items()} if isinstance(tree, dict) else values


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@cache
def forward_of(graph: nnx.GraphDef):
    return jax.jit(lambda parameters, batch_stats, images: nnx.merge(graph, parameters, batch_stats)(images))


@pytest.mark.parametrize("size", [(105, 121), (33, 50)])
def test_logits_are_those_of_torch(both, size):
    images = images_of(1, *size)
    with torch.no_grad():
        expected = both.network(to_torch(images)).permute(0, 2, 3, 1)
    assert expected.std(dim=(0, 1, 2)).min() > 1e-3
    logits = forward_of(both.graph)(both.parameters, both.batch_stats, images)
    assert relative_difference(logits, expected) < 1e-5


def test_loss_and_gradient_of_the_head_are_those_of_torch(both):
    images, rng = images_of(1, 49, 41), np.random.default_rng(0)
    patches = rng.choice([*range(CLASSES), 255], (1, 7, 6)).astype(np.uint8)
    labels = np.kron(patches, np.ones((1, 8, 8), np.uint8))[:, :49, :41]

    @jax.jit
    @jax.value_and_grad
    def loss(head):
        model = nnx.merge(both.graph, both.parameters | {"head": head}, both.batch_stats)
        return model.loss(images, labels, train_backbone=False, dropout_key=None)

    value, gradient = loss(both.parameters["head"])
    expected = both.network.loss(to_torch(images), torch.from_numpy(labels.astype(np.int64)))
    both.network.zero_grad()
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    for number, conv in enumerate([both.network.fc8_seg_conv1, both.network.fc8_seg_conv2]):
        assert relative_difference(gradient[number]["kernel"], conv.weight.grad.permute(2, 3, 1, 0)) < 1e-4
        assert relative_difference(gradient[number]["bias"], conv.bias.grad) < 1e-4


def test_a_head_of_other_classes_is_new_and_the_trunk_is_loaded(both, file):
    _, _, loaded = loaded_from(file, classes=CLASSES + 1)
    assert loaded.new == {"head": f"the file's has {CLASSES} classes, this one {CLASSES + 1}"}
    assert set(loaded.network) == {"backbone"}
    np.testing.assert_array_equal(loaded.backbone["bn7"]["scale"], both.parameters["backbone"]["bn7"]["scale"])


def test_a_file_without_the_head(both, file, tmp_path):
    arrays = {name: value for name, value in torch.load(file).items() if "fc8_seg" not in name}
    torch.save(arrays, tmp_path / "cls.pth")
    _, _, loaded = loaded_from(tmp_path / "cls.pth")
    assert loaded.new == {"head": "the file has none"}
