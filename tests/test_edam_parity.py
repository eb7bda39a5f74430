"""EDAM, its loss, gradients, optimizer, maps and files are those of an independent torch model."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from noise import SIZES, Noise, found_in
from PIL import Image

from lpcam_jax.backbones.wideresnet import WideResNet38Config
from lpcam_jax.inference.forward import Network
from lpcam_jax.machine.devices import mesh
from lpcam_jax.systems.edam import attention
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMHead, EDAMInference, EDAMTraining
from lpcam_jax.systems.edam.maps import METHOD, map_pictures
from lpcam_jax.systems.edam.system import system
from lpcam_jax.systems.edam.training import edam_loss, edam_optimizer, edam_schedule
from lpcam_jax.training.state import graph_of, network_of

torch = pytest.importorskip("torch")

from reference import torch_edam  # noqa: E402 (they need torch)
from reference.torch_weights import relative_difference, to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES, WIDTH, TOKENS, GRID = 3, 1, 12, 5
FROZEN = ("conv1a", "b2", "b2_1", "b2_2")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Pair(NamedTuple):
    """Torch's network, in float64, and ours with what it wrote into a file."""

    network: "torch.nn.Module"
    graph: nnx.GraphDef
    arrays: tuple[dict, dict]


CONFIG = EDAMConfig(model=WideResNet38Config(width=WIDTH, final_relu=False, dropout=False), head=EDAMHead(width=TOKENS))


@cache
def abstract() -> tuple[nnx.GraphDef, dict, dict, dict]:
    """Graph, parameters, statistics, and these two together."""
    network = network_of(CONFIG, CLASSES)
    return *graph_of(CONFIG, CLASSES), nnx.to_pure_dict(nnx.state(network))


def read(state: dict, folder: Path) -> tuple[dict, dict]:
    """Our parameters and statistics with the values of a state dict, by way of a file as it is published."""

    def part(shapes, values):
        if not isinstance(shapes, dict):
            return jnp.asarray(values)
        return {name: part(shape, values[name]) for name, shape in shapes.items()}

    torch.save({name: value.float() for name, value in state.items()}, folder / "EDAM.pth")
    _, *trees, network = abstract()
    config = replace(CONFIG, model=replace(CONFIG.model, weights=str(folder / "EDAM.pth")))
    loaded = system.load(config, network)
    assert set(loaded.skipped) == {"embedding.position.pe"} | {name for name in state if "num_batches" in name}
    assert not loaded.new
    return tuple(part(tree, loaded.network) for tree in trees)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    network = torch_edam.EDAM(CLASSES, width=WIDTH, tokens=TOKENS, grid=GRID)
    network = torch_edam.randomized(network).double().eval()
    return Pair(network, abstract()[0], read(network.state_dict(), tmp_path_factory.mktemp("weights")))


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 33, 49), (2, 40, 23)])
def test_heat_maps_and_logits_of_a_pair(pair, shape):
    images = images_of(*shape)

    @jax.jit
    def forward(arrays):
        model = nnx.merge(pair.graph, *arrays)
        features = model.features(images)
        heat = model.heat(features)
        return features, heat, model.logits(features, heat)

    features, heat, logits = jax.device_get(forward(pair.arrays))
    with torch.no_grad():
        trunk = pair.network.trunk(to_torch(images))
        expected, of_pair = pair.network.heat(trunk), pair.network(to_torch(images))
    assert trunk.min() < -0.1, "there is no ReLU at the end"
    assert relative_difference(features, trunk.permute(0, 2, 3, 1)) < 1e-5
    np.testing.assert_allclose((heat**2).sum(axis=-1), 1, atol=1e-5)
    assert relative_difference(heat, expected.permute(0, 2, 3, 1)) < 1e-4
    assert of_pair.abs().max() > 0.1
    assert relative_difference(logits.reshape(-1), of_pair) < 1e-5


def test_positions_are_those_of_the_published_table():
    """Of the crops it is for, to float32; a picture of another width counts its own positions."""
    ours = np.asarray(attention.positions(None, (46, 46), 128)).reshape(2116, 128)
    np.testing.assert_allclose(ours, torch_edam.table(2116, 128), atol=2e-4)
    narrow = np.asarray(attention.positions(np.int32([[3, 5]]), (4, 7), 16))[0, :3, :5].reshape(15, 16)
    np.testing.assert_allclose(narrow, torch_edam.table(15, 16), atol=1e-5)


def test_loss_and_gradients_of_two_pairs(pair, monkeypatch, tmp_path):
    rng, training = np.random.default_rng(0), EDAMTraining()
    pictures = rng.integers(0, 256, (2, 2, 40, 40, 3), np.uint8)
    labels = np.float32([[[1, 0, 1], [0, 0, 1]], [[0, 1, 0], [1, 1, 0]]])
    batch = {"image": pictures, "box": np.tile(np.int32([0, 0, 40, 40]), (2, 2, 1)), "labels": labels}
    monkeypatch.setattr(attention, "DROPOUT", 0.0)
    parameters, batch_stats = pair.arrays

    @jax.jit
    @jax.value_and_grad
    def of_parameters(parameters):
        model = nnx.merge(pair.graph, parameters, batch_stats)
        return edam_loss(training)(model, batch, jax.random.key(4))

    value, gradients = of_parameters(parameters)
    images = torch.stack([to_torch((picture / 255.0 - MEAN) / STD) for picture in pictures])
    pair.network.zero_grad()
    expected = torch_edam.loss(pair.network, images, torch.from_numpy(labels).double())
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    named = {name: parameter.grad for name, parameter in pair.network.named_parameters()}
    others, _ = read(pair.network.state_dict() | named, tmp_path)
    largest = max(float(np.abs(gradient).max()) for gradient in jax.tree.leaves(others))
    for (path, gradient), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(others), strict=True
    ):
        assert relative_difference(gradient, other, 1e-4 * largest) < 1e-3, jax.tree_util.keystr(path)


def test_updates_are_those_of_torch_s_sgd_with_the_published_groups(pair, tmp_path):
    """Through the warm-up and after it; what is frozen, and every batch norm, stays."""
    steps, training = 6, EDAMTraining(learning_rate=0.05, weight_decay=0.1, warm_up=3, frozen=FROZEN)
    optimizer = edam_optimizer(training, network_of(CONFIG, CLASSES), steps=steps)
    network = torch_edam.EDAM(CLASSES, width=WIDTH, tokens=TOKENS, grid=GRID).double()
    network.load_state_dict(pair.network.state_dict())
    theirs = torch.optim.SGD(torch_edam.groups(network, 0.05, 0.1), lr=0.05, momentum=0.9)
    rates, generator = [group["lr"] for group in theirs.param_groups], torch.Generator().manual_seed(0)

    @jax.jit
    def update(parameters, state, gradients):
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    start, _ = pair.arrays
    parameters, state = start, jax.jit(optimizer.init)(start)
    for step in range(steps):
        for group, rate in zip(theirs.param_groups, rates, strict=True):
            group["lr"] = rate * torch_edam.factor(step, steps, 3)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        named = {name: parameter.grad for name, parameter in network.named_parameters()}
        gradients, _ = read(network.state_dict() | named, tmp_path)
        parameters, state = update(parameters, state, gradients)
        theirs.step()
    expected, _ = read(network.state_dict(), tmp_path)
    moved = 0
    for (path, value), other, before in zip(
        jax.tree_util.tree_leaves_with_path(parameters),
        jax.tree.leaves(expected),
        jax.tree.leaves(start),
        strict=True,
    ):
        moved += np.abs(other - before).max() > 1e-3
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    assert 0 < moved < len(jax.tree.leaves(start))


@pytest.mark.parametrize("step", [0, 1, 1999, 2000, 2001, 33049])
def test_the_schedule_is_the_published_one(step):
    rate = float(edam_schedule(EDAMTraining(), 10.0, steps=33050)(step))
    assert rate == pytest.approx(0.01 * torch_edam.factor(step, 33050, 2000), rel=1e-4)


def test_maps_of_pictures_of_all_sizes(pair):
    """Of the labels, over four scales and mirror images, in batches of one shape."""
    labels = np.float32([[1, 0, 1], [0, 1, 0], [1, 1, 1]])
    source = Noise((1, 3, 5), labels=labels)
    network = Network(pair.graph, pair.arrays, mesh())
    options = {"inference": EDAMInference(max_shapes=1), "crop": 40, "description": None}
    found, errors = found_in(map_pictures(network, source, **options))
    assert not errors

    def expected(number: int) -> np.ndarray:
        image = Image.fromarray(source[source.order.index(number)].image)

        def resized(scale, mirrored):
            height, width = (max(round(length * scale), 1) for length in SIZES[number])
            small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
            small = small[:, ::-1] if mirrored else small
            return to_torch(((small / 255.0 - MEAN) / STD)[None])

        return torch_edam.maps(pair.network, SIZES[number], resized).numpy()

    for number, row in zip(source.order, labels, strict=True):
        made = found[str(number)]
        np.testing.assert_array_equal(made.classes, np.flatnonzero(row))
        assert made.probabilities is None
        np.testing.assert_allclose(made.maps[METHOD], expected(number)[made.classes], atol=1e-3)  # float16
