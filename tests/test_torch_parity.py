"""The network, its gradients and its training steps are those of an independent torch model with the same weights."""

import copy
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.layers.norms import BatchNorm
from lpcam_jax.backbones.layers.pooling import max_pool
from lpcam_jax.systems.lpcam.config import LPCAMTraining
from lpcam_jax.systems.lpcam.network import build_classifier
from lpcam_jax.systems.lpcam.training import classification_loss, classifier_optimizer
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.step import make_train_step

torch = pytest.importorskip("torch")

from reference.torch_resnet import POOLS, ResNet, randomized  # noqa: E402 (they need torch)
from reference.torch_weights import KINDS, filled, relative_difference, to_torch, torch_name  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

# The networks are small, and torch's threads wait in a loop for each other: with XLA's beside them that is slower.
torch.set_num_threads(1)

CLASSES = 5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNET101 = {"blocks": (3, 4, 23, 3)}
THIN = {"blocks": (2, 2, 2, 2), "width": 8, "stem_width": 12}
TINY = {"blocks": (1, 1, 2, 2), "width": 8, "stem_width": 12}
CAFFE = {"layout": "caffe", "stem_pool": "ceil"}


class Pair(NamedTuple):
    """Our network in pure dicts, as it is trained, and torch's with the same weights.

    Torch's computes in float64: what the two differ by is the rounding of ours.
    """

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: ResNet


@cache
def pair(**options) -> Pair:
    torch_options = {{"stem_pool": "pool"}.get(name, name): value for name, value in options.items()}
    network = randomized(ResNet(CLASSES, **torch_options), seed=0).double().eval()
    model = nnx.eval_shape(partial(build_classifier, ResNetConfig(**options), CLASSES))
    graph, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)
    trees = [filled(nnx.to_pure_dict(tree), network.state_dict()) for tree in trees]
    names = [torch_name(path) for tree in trees for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert sorted(names) == sorted(name for name in network.state_dict() if "num_batches" not in name), "one to one"
    return Pair(graph, *trees, network)


# Forward.


@torch.no_grad()
def expected_outputs(network: ResNet, images: np.ndarray) -> dict[str, np.ndarray]:
    """Torch's features of every stage, NHWC, and logits."""
    features = network.features(to_torch(images))
    outputs = {name: values.permute(0, 2, 3, 1).numpy() for name, values in features.items()}
    return outputs | {"logits": network(to_torch(images)).numpy()}


def outputs_of(one: Pair, images: np.ndarray) -> dict[str, np.ndarray]:
    @jax.jit
    def forward(parameters, batch_stats, images):
        model = nnx.merge(one.graph, parameters, batch_stats)
        features = model.backbone(images)
        return dict(zip(model.backbone.stages, features, strict=True)) | {"logits": model.logits(features[-1])}

    return jax.device_get(forward(one.parameters, one.batch_stats, images))


def images_of(*shape: int) -> np.ndarray:
    """Preprocessed pictures."""
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({**RESNET101, "output_stride": 8}, (1, 49, 65)),
        ({**TINY, "output_stride": 32}, (2, 97, 65)),
        ({**TINY, "output_stride": 16}, (2, 1, 34)),
        ({**TINY, "output_stride": 8}, (1, 65, 98)),
        ({**TINY, **CAFFE, "output_stride": 32}, (1, 96, 130)),
        ({**TINY, **CAFFE, "output_stride": 16}, (2, 97, 65)),
        ({**TINY, **CAFFE, "output_stride": 8}, (1, 33, 102)),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else "-".join(map(str, value.values())),
)
def test_features_and_logits(options, shape):
    one, images = pair(**options), images_of(*shape)
    expected, outputs = expected_outputs(one.network, images), outputs_of(one, images)
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        assert 0.1 < np.abs(values).max() < 100, "in the scale of a trained network's"
        assert relative_difference(outputs[name], values) < 1e-4, name


# All phases of window and stride, and a long one.
@pytest.mark.parametrize("length", [*range(1, 10), 39, 40])
@pytest.mark.parametrize("padding", POOLS)
def test_pool(padding, length):
    """Exactly torch's, where torch's has an output: its ceil mode without padding has none of a single position."""
    x = np.random.default_rng(length).random((2, length, 5, 3), np.float32)
    pooled, sizes = max_pool(x, jnp.int32([[length, 5]]), padding=padding)
    assert sizes.tolist() == [[*pooled.shape[1:3]]]
    pool = torch.nn.MaxPool2d(3, 2, **POOLS[padding])
    if padding == "ceil" and length == 1:
        with pytest.raises(RuntimeError, match="too small"):
            pool(to_torch(x))
        np.testing.assert_array_equal(pooled[:, 0], np.stack([x[:, 0, :3].max(1), x[:, 0, 2:].max(1)], axis=1))
    else:
        np.testing.assert_array_equal(pooled, pool(to_torch(x)).permute(0, 2, 3, 1))


# Training.


class Trained(NamedTuple):
    """What one step gives: the loss, the gradients and the statistics after it."""

    loss: float
    gradients: dict[str, Any]
    batch_stats: dict[str, Any]


def batch_of(*shape: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures that do not fill their canvases, anything around them, and labels."""
    rng = np.random.default_rng((*shape, seed))
    count, height, width = shape
    return {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "box": np.int32([[3 * i, 2 * i, height - i, width - 5 * i] for i in range(count)]),
        "labels": rng.integers(0, 2, (count, CLASSES)).astype(np.float32),
    }


def smooth_batch(network: ResNet, *shape: int, train_batch_norm: bool) -> dict[str, np.ndarray]:
    """A batch at which no ReLU is within rounding of its kink, so that float32 takes the same side as float64.

    A single one on the other side changes most gradients by 1e-3 and more; torch's in float32 no less than ours.
    """
    network, distances = copy.deepcopy(network).train(train_batch_norm), []
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].abs().min().item()))
    for seed in range(30):
        batch = batch_of(*shape, seed=seed)
        distances.clear()
        with torch.no_grad():
            network(to_torch(normalized(batch)))
        if min(distances) > 2e-6:
            return batch
    raise AssertionError("no batch is far from all kinks; take smaller pictures")


def normalized(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The pictures by hand: zeros around the normalized box."""
    images = np.zeros(batch["image"].shape)
    for image, picture, (top, left, bottom, right) in zip(images, batch["image"], batch["box"], strict=True):
        inside = np.s_[top:bottom, left:right]
        image[inside] = (picture[inside] / 255.0 - [[IMAGENET_MEAN]]) / [[IMAGENET_STD]]
    return images


def loss_in_torch(network: ResNet, batch: dict[str, np.ndarray]) -> "torch.Tensor":
    logits = network(to_torch(normalized(batch)))
    return torch.nn.functional.multilabel_soft_margin_loss(logits, torch.from_numpy(batch["labels"]).double())


KEEP_GRADIENTS = optax.GradientTransformation(
    lambda parameters: jax.tree.map(jnp.zeros_like, parameters),
    lambda gradients, *_: (jax.tree.map(jnp.zeros_like, gradients), gradients),
)


def first_state(one: Pair, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0, in memory of its own: a step consumes its state."""

    @jax.jit
    def build(parameters, batch_stats):
        parameters, batch_stats = jax.tree.map(jnp.copy, (parameters, batch_stats))
        return TrainState(jnp.int32(0), parameters, batch_stats, optimizer.init(parameters))

    return build(one.parameters, one.batch_stats)


def our_step(one: Pair, batch: dict[str, np.ndarray], *, train_batch_norm: bool) -> Trained:
    """One step of the package's training with an optimizer that only keeps the gradients."""
    loss = classification_loss(train_batch_norm=train_batch_norm)
    step = make_train_step(one.graph, KEEP_GRADIENTS, loss, seed=0)
    state, metrics = step(first_state(one, KEEP_GRADIENTS), batch)
    return Trained(float(metrics["loss"]), state.opt_state, state.batch_stats)


def torch_step(one: Pair, batch: dict[str, np.ndarray], *, train_batch_norm: bool) -> Trained:
    network = copy.deepcopy(one.network).train(train_batch_norm)
    loss = loss_in_torch(network, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return Trained(loss.item(), filled(one.parameters, gradients), filled(one.batch_stats, network.state_dict()))


def assert_close(tree: dict[str, Any], expected: dict[str, Any], *, within: float, floor: float = 0.0) -> None:
    for (path, value), other in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        assert relative_difference(value, other, floor) < within, torch_name(path)


@pytest.mark.parametrize(
    ("options", "train_batch_norm", "shape"),
    [(TINY, False, (2, 33, 41)), (THIN, True, (4, 49, 65))],
    ids=["frozen-batch-norm", "training-batch-norm"],
)
def test_gradients_and_statistics_of_a_step(options, train_batch_norm, shape):
    one = pair(**options)
    batch = smooth_batch(one.network, *shape, train_batch_norm=train_batch_norm)
    ours, expected = (step(one, batch, train_batch_norm=train_batch_norm) for step in (our_step, torch_step))
    assert relative_difference(ours.loss, expected.loss) < 1e-5
    largest = max(float(jnp.abs(gradient).max()) for gradient in jax.tree.leaves(expected.gradients))
    assert_close(ours.gradients, expected.gradients, within=1e-3, floor=1e-4 * largest)
    assert_close(ours.batch_stats, expected.batch_stats, within=1e-4 if train_batch_norm else 1e-9)
    assert any_differs(ours.batch_stats, one.batch_stats) == train_batch_norm


def any_differs(tree: Any, other: Any) -> bool:
    return not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, other)))


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 3, 1, 3)])
def test_batch_norm_in_train_mode(shape):
    rng = np.random.default_rng(0)
    x, slope = (rng.normal(2, 3, shape).astype(np.float32) for _ in range(2))
    start = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    graph = nnx.graphdef(nnx.eval_shape(lambda: BatchNorm(3)))

    def forward(values, x):
        norm = nnx.merge(graph, values)
        y = norm(x, train=True)
        return (y * slope).sum(), {"output": y, "mean": norm.mean[...], "var": norm.var[...]}

    (gradients, of_x), ours = jax.jit(jax.grad(forward, (0, 1), has_aux=True))(start, x)
    ours |= {"gradient": of_x, "scale": gradients["scale"], "bias": gradients["bias"]}

    norm = torch.nn.BatchNorm2d(3).double()
    norm.load_state_dict({KINDS[name]: torch.from_numpy(value) for name, value in start.items()}, strict=False)
    inputs = to_torch(x).requires_grad_()
    y = norm(inputs)
    y.backward(to_torch(slope))
    expected = {
        "output": y.detach().permute(0, 2, 3, 1),
        "gradient": inputs.grad.permute(0, 2, 3, 1),
        "scale": norm.weight.grad,
        "bias": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
    }
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_difference(ours[name], value) < 1e-4, name


def test_ten_steps_of_sgd():
    steps, batch = 10, batch_of(4, 49, 65)
    momentum, decay = 0.5, 0.02  # the reference's 1e-4 would hardly be seen
    training = replace(LPCAMTraining(learning_rate=0.02), momentum=momentum, weight_decay=decay)
    one = pair(**TINY)
    optimizer = classifier_optimizer(training, nnx.merge(one.graph, one.parameters, one.batch_stats), steps=steps)
    step = make_train_step(one.graph, optimizer, classification_loss(train_batch_norm=False), seed=0)
    state, losses = first_state(one, optimizer), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))

    # conv1 and bn1 are frozen, the head learns ten times faster, the rate falls by the power 0.9 of what is left.
    network, expected_losses = copy.deepcopy(one.network), []
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    groups = [
        {"params": [parameter for stage in stages for parameter in stage.parameters()], "rate": 0.02},
        {"params": [network.fc.weight], "rate": 0.2},
    ]
    sgd = torch.optim.SGD(groups, lr=0.0, momentum=momentum, weight_decay=decay)
    for number in range(steps):
        for group in sgd.param_groups:
            group["lr"] = group["rate"] * (1 - number / steps) ** 0.9
        loss = loss_in_torch(network, batch)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        expected_losses.append(loss.item())

    assert expected_losses[-1] < 0.7 * expected_losses[0]
    assert relative_difference(losses, expected_losses) < 1e-4
    expected = filled(one.parameters, network.state_dict())
    assert_close(state.parameters, expected, within=1e-5)
    for part, start in one.parameters["backbone"].items():
        assert any_differs(state.parameters["backbone"][part], start) == (part not in ("conv1", "bn1")), part
