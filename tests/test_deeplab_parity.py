"""The segmentation networks, losses and gradients are those of independent torch models with the same weights."""

import copy
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.layers.resizing import rescale
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.backbones.resnet import ResNet
from lpcam_jax.systems.deeplab.config import DeepLabTraining
from lpcam_jax.systems.deeplab.losses import multi_scale_loss
from lpcam_jax.systems.deeplab.network import DeepLabV2, DeepLabV3Plus
from lpcam_jax.systems.deeplab.training import deeplab_loss, deeplab_optimizer
from lpcam_jax.systems.segmentation.losses import full_size_loss
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.step import make_train_step

torch = pytest.importorskip("torch")

from reference import torch_deeplab, torch_resnet  # noqa: E402 (they need torch)
from reference.torch_weights import filled, relative_difference, to_torch, torch_name  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES = 5
# As wide as ResNet-101, which repeats blocks that are here.
WIDE = {"blocks": (1, 1, 4, 1)}
TINY = {"blocks": (1, 1, 2, 2), "width": 8, "stem_width": 12}
V2 = {"layout": "caffe", "stem_pool": "symmetric_ceil", "output_stride": 8}


class Pair(NamedTuple):
    """Our network in pure dicts and torch's, in float64, with the same weights."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: "torch.nn.Module"


@cache
def pair(*, output_stride: int, **options) -> Pair:
    """V2 in the Caffe layout, else V3+."""
    is_v2 = options.get("layout") == "caffe"
    ours, theirs = (DeepLabV2, torch_deeplab.DeepLabV2) if is_v2 else (DeepLabV3Plus, torch_deeplab.DeepLabV3Plus)

    def build():
        rngs = nnx.Rngs(0)
        backbone = ResNet(**options, output_stride=output_stride, dilation="atrous", rngs=rngs)
        return ours(backbone, CLASSES, preprocessing=Preprocessing(), rngs=rngs)

    stages = {8: torch_deeplab.MSRA_8} if is_v2 else {16: torch_deeplab.TORCHVISION_16, 8: torch_deeplab.TORCHVISION_8}
    torch_options = {{"stem_pool": "pool"}.get(name, name): value for name, value in options.items()}
    backbone = torch_resnet.ResNet(1, **torch_options, stages=stages[output_stride])
    width = options.get("width", 64)
    rates = {16: (6, 12, 18), 8: (12, 24, 36)}[output_stride]
    channels = (32 * width,) if is_v2 else (32 * width, 4 * width, rates)
    network = torch_resnet.randomized(theirs(backbone, *channels, CLASSES), seed=0).double().eval()

    graph, *trees = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    arrays = without_prefix(network.state_dict())
    trees = [filled(nnx.to_pure_dict(tree), arrays) for tree in trees]
    names = [torch_name(path) for tree in trees for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert sorted(names) == sorted(name for name in arrays if "num_batches" not in name), "one to one"
    return Pair(graph, *trees, network)


def without_prefix(arrays: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    return {name.removeprefix("backbone."): array for name, array in arrays.items()}


def logits_of(model, images) -> list[jax.Array]:
    return model.pyramid(images) if isinstance(model, DeepLabV2) else [model(images)]


def outputs_of(one: Pair, images: np.ndarray) -> list[np.ndarray]:
    @jax.jit
    def forward(parameters, batch_stats, images):
        return logits_of(nnx.merge(one.graph, parameters, batch_stats), images)

    return jax.device_get(forward(one.parameters, one.batch_stats, images))


def expected_outputs(one: Pair, images: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = one.network(to_torch(images))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [output.permute(0, 2, 3, 1).numpy() for output in outputs]


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (WIDE | V2, (1, 97, 65)),
        (TINY | V2, (2, 98, 66)),
        (TINY | V2, (1, 33, 40)),
        (TINY | {"output_stride": 16}, (2, 50, 66)),
        (TINY | {"output_stride": 8}, (1, 97, 65)),
    ],
    ids=["v2-wide", "v2-even", "v2-small", "v3plus-even", "v3plus-8"],
)
def test_logits(options, shape):
    one, images = pair(**options), images_of(*shape)
    outputs, expected = outputs_of(one, images), expected_outputs(one, images)
    assert len(outputs) == len(expected) == (4 if "layout" in options else 1)
    for values, other in zip(outputs, expected, strict=True):
        assert 0.1 < np.abs(other).max() < 100, "in the scale of a trained network's"
        assert relative_difference(values, other) < 1e-5


@pytest.mark.parametrize("scale", [0.75, 0.5])
@pytest.mark.parametrize("length", [2, 33, 98])
def test_rescaling_by_a_factor(scale, length):
    x = images_of(2, length, 7)
    values, sizes = jax.jit(rescale, static_argnums=2)(x, np.int32([[length, 7]] * 2), scale)
    expected = torch.nn.functional.interpolate(to_torch(x), scale_factor=scale, mode="bilinear", align_corners=False)
    assert sizes.tolist() == [[*expected.shape[2:]]] * 2
    assert relative_difference(values, expected.permute(0, 2, 3, 1)) < 1e-6


# Training.


def labels_of(*shape: int) -> np.ndarray:
    """Patches of labels, a quarter of them 255."""
    rng = np.random.default_rng(shape)
    patches = rng.choice([*range(CLASSES), 255, 255], (shape[0], 12, 12)).astype(np.uint8)
    return np.kron(patches, np.ones((1, 16, 16), np.uint8))[:, : shape[1], : shape[2]]


def torch_loss(outputs: Any, labels: np.ndarray) -> "torch.Tensor":
    loss = torch_deeplab.four_losses if isinstance(outputs, list) else torch_deeplab.full_size_loss
    return loss(outputs, labels)


def test_the_four_losses_and_their_gradients():
    labels, rng = labels_of(2, 97, 65), np.random.default_rng(0)
    shapes = [(13, 9), (10, 7), (7, 5), (13, 9)]
    logits = [rng.normal(0, 3, (2, *shape, CLASSES)).astype(np.float32) for shape in shapes]
    value, gradients = jax.jit(jax.value_and_grad(multi_scale_loss))(logits, labels)
    tensors = [to_torch(one).requires_grad_() for one in logits]
    expected = torch_loss(tensors, labels)
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-6
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert relative_difference(gradient, tensor.grad.permute(0, 2, 3, 1)) < 1e-5


def test_the_loss_at_full_size_and_its_gradient():
    labels = labels_of(2, 97, 65)
    logits = np.random.default_rng(0).normal(0, 3, (2, 25, 17, CLASSES)).astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(full_size_loss))(logits, labels)
    tensor = to_torch(logits).requires_grad_()
    expected = torch_loss(tensor, labels)
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-6
    assert relative_difference(gradient, tensor.grad.permute(0, 2, 3, 1)) < 1e-5


@pytest.mark.parametrize("options", [TINY | V2, TINY | {"output_stride": 16}], ids=["v2", "v3plus"])
def test_gradients_of_the_network(options):
    one, labels = pair(**options), labels_of(1, 33, 41)
    images = smooth_images(one.network, 1, 33, 41)

    @jax.jit
    @jax.value_and_grad
    def of_parameters(parameters):
        logits = logits_of(nnx.merge(one.graph, parameters, one.batch_stats), images)
        return multi_scale_loss(logits, labels) if len(logits) > 1 else full_size_loss(logits[0], labels)

    value, gradients = of_parameters(one.parameters)
    one.network.zero_grad()
    expected = torch_loss(one.network(to_torch(images)), labels)
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    named = without_prefix({name: parameter.grad for name, parameter in one.network.named_parameters()})
    named = filled(one.parameters, named)
    largest = max(float(np.abs(gradient).max()) for gradient in jax.tree.leaves(named))
    for (path, gradient), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(named), strict=True
    ):
        assert relative_difference(gradient, other, 1e-4 * largest) < 1e-3, torch_name(path)


def smooth_images(network: "torch.nn.Module", *shape: int) -> np.ndarray:
    """Pictures at which no ReLU is within rounding of its kink; see `smooth_batch` in test_torch_parity.py."""
    distances = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].abs().min().item()))
        for module in network.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    for seed in range(60):
        images = np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)
        distances.clear()
        with torch.no_grad():
            network(to_torch(images))
        if min(distances) > 2e-6:
            for hook in hooks:
                hook.remove()
            return images
    raise AssertionError("no picture is far from all kinks; take smaller ones")


STEPS = 10
SMALL = {"blocks": (1, 1, 1, 1), "width": 8, "stem_width": 8}
TRAINING = {  # with a decay that is seen in ten steps
    "v2": DeepLabTraining(steps=STEPS, hold=3, weight_decay=0.5, learning_rate=3e-4, batch_norm="fixed"),
    "v3plus": DeepLabTraining(steps=STEPS, hold=3, weight_decay=0.5, learning_rate=3e-4, batch_norm="frozen"),
}


def batch_of(*shape: int) -> dict[str, np.ndarray]:
    """Pictures with a colour for each label, padded right and bottom, with anything there; and their masks."""
    count, height, width = shape
    rng, masks = np.random.default_rng(shape), labels_of(*shape)
    images = rng.integers(0, 256, (256, 3))[masks] // 2 + rng.integers(0, 128, (*shape, 3))
    boxes = np.int32([[0, 0, height - 3 * i, width - 5 * i] for i in range(count)])
    for mask, (_, _, bottom, right) in zip(masks, boxes, strict=True):
        mask[bottom:] = mask[:, right:] = 255
    return {"image": images.astype(np.uint8), "box": boxes, "mask": masks}


def normalized(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The pictures by hand: zeros around the normalized box."""
    images = np.zeros(batch["image"].shape)
    for image, picture, (_, _, bottom, right) in zip(images, batch["image"], batch["box"], strict=True):
        inside = np.s_[:bottom, :right]
        image[inside] = (picture[inside] / 255.0 - [[[0.485, 0.456, 0.406]]]) / [[[0.229, 0.224, 0.225]]]
    return images


@pytest.mark.parametrize(("name", "options"), [("v2", SMALL | V2), ("v3plus", SMALL | {"output_stride": 16})])
def test_ten_steps_of_training(name, options, monkeypatch):
    monkeypatch.setattr(DeepLabV3Plus, "dropout", 0.0)  # torch's would drop others
    one, training, batch = pair(**options), TRAINING[name], batch_of(6, 33, 41)
    optimizer = deeplab_optimizer(training, nnx.merge(one.graph, one.parameters, one.batch_stats))
    parameters, batch_stats = jax.tree.map(jnp.array, (one.parameters, one.batch_stats))  # a step consumes its state
    state, losses = TrainState(jnp.int32(0), parameters, batch_stats, jax.jit(optimizer.init)(parameters)), []
    loss = deeplab_loss(train_backbone=False)
    step = make_train_step(one.graph, optimizer, loss, seed=0, accumulate=training.accumulate)
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))

    network = copy.deepcopy(one.network)
    for part, module in network.named_children():
        module.train(part != "backbone")
    expected_losses = torch_deeplab.train(
        network,
        lambda network, part: torch_loss(network(to_torch(normalized(part))), part["mask"]),
        [{name: values[part::2] for name, values in batch.items()} for part in range(2)],
        steps=STEPS,
        rate=training.learning_rate,
        decay=training.weight_decay,
        hold=training.hold,
        with_norms=training.batch_norm != "fixed",
    )
    expected_losses = list(expected_losses)

    assert expected_losses[-1] < 0.7 * expected_losses[0]
    assert relative_difference(losses, expected_losses) < 1e-5
    arrays = without_prefix(network.state_dict())
    assert_close(state.parameters, filled(one.parameters, arrays), within=2e-5)
    assert_close(state.batch_stats, filled(one.batch_stats, arrays), within=2e-5)


def assert_close(tree: dict[str, Any], expected: dict[str, Any], *, within: float) -> None:
    for (path, value), other in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        assert relative_difference(value, other) < within, torch_name(path)
