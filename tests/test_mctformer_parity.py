"""MCTformer, its losses, gradients, optimizer, maps and files are those of an independent torch model."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from noise import SIZES, Noise, found_in

from lpcam_jax import own_scores
from lpcam_jax.inference.forward import Network
from lpcam_jax.machine.devices import mesh
from lpcam_jax.prototypes import Prototypes
from lpcam_jax.systems.mctformer.clustered import clustered
from lpcam_jax.systems.mctformer.config import MCTformerConfig, MCTformerInference, MCTformerModel, MCTformerTraining
from lpcam_jax.systems.mctformer.maps import LPCAM_METHOD, METHOD, map_pictures
from lpcam_jax.systems.mctformer.network import class_logits, path_factors
from lpcam_jax.systems.mctformer.training import mctformer_loss, mctformer_optimizer, rate_of_epoch
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.state import graph_of, network_of

torch = pytest.importorskip("torch")

from reference import torch_mctformer  # noqa: E402 (they need torch)
from reference.torch_weights import relative_difference, to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES = 3
THEIRS = {"patch": 8, "dim": 24, "depth": 5, "heads": 2, "ratio": 2, "grid": 4}
OURS = {"patch": 8, "dim": 24, "depth": 5, "head_dim": 12, "mlp_ratio": 2, "position_grid": 4}
# The grid of the stored positions; one as long along one side only; no multiples of the patch.
SHAPES = ((1, 32, 32), (2, 32, 70), (2, 41, 23))
LABELS = np.float32([[1, 0, 1], [0, 1, 1]])


class Pair(NamedTuple):
    """Torch's network, in float64, and ours with what it wrote into a file."""

    network: "torch.nn.Module"
    config: MCTformerConfig
    graph: nnx.GraphDef
    parameters: dict


def read(state: dict, folder, config: MCTformerConfig) -> dict:
    """Our parameters with the values of a state dict, by way of a file as it is published."""
    torch.save({"model": {name: value.float() for name, value in state.items()}}, folder / "MCTformer.pth")
    _, shapes, _ = graph_of(config, CLASSES)
    loaded = config.model.load(folder / "MCTformer.pth", shapes)
    assert jax.tree.map(np.shape, loaded.network) == jax.tree.map(np.shape, shapes)
    return loaded.network


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    @cache
    def of(version: str) -> Pair:
        network = torch_mctformer.MCTformer(CLASSES, **THEIRS, has_head=version == "v2")
        network = torch_mctformer.randomized(network).double().eval()
        config = MCTformerConfig(model=MCTformerModel(**OURS, version=version))
        parameters = read(network.state_dict(), tmp_path_factory.mktemp("weights"), config)
        graph, *_ = graph_of(config, CLASSES)
        return Pair(network, config, graph, parameters)

    return of


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_scores(pair, shape):
    one, images = pair("v2"), images_of(*shape)

    @jax.jit
    def forward(parameters):
        model = nnx.merge(one.graph, parameters, {})
        tokens, patches = model(images)
        scores = model.scores(patches)
        return class_logits(tokens), model.patch_logits(scores), scores, patches

    found = jax.device_get(forward(one.parameters))
    with torch.no_grad():
        *expected, _ = one.network(to_torch(images))
    expected[2:] = [maps.permute(0, 2, 3, 1) for maps in expected[2:]]
    for values, of_torch in zip(found, expected, strict=True):
        assert 0.1 < of_torch.abs().max() < 100
        assert relative_difference(values, of_torch) < 1e-5


def test_the_attention_of_every_block(pair):
    """At one shape: that of others is in their maps."""
    one, images, depth = pair("v2"), images_of(*SHAPES[-1]), OURS["depth"]

    @jax.jit
    def forward(parameters):
        model = nnx.merge(one.graph, parameters, {})
        # One block alone at a time: what is summed by default is in the maps.
        seen = [model.attended(images, shares=jnp.eye(depth)[number]) for number in range(depth)]
        return [each.attention for each in seen], seen[0].affinity

    attention, affinity = jax.device_get(forward(one.parameters))
    with torch.no_grad():
        *_, weights = one.network(to_torch(images))
    means = [of_block.mean(1) for of_block in weights]
    for values, of_block in zip(attention, means, strict=True):
        of_classes = of_block[:, :CLASSES, CLASSES:].transpose(1, 2).reshape(values.shape)
        assert relative_difference(values, of_classes) < 1e-5
    assert relative_difference(affinity, sum(means)[:, CLASSES:, CLASSES:]) < 1e-5


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_loss_and_gradients_with_blocks_that_are_skipped(pair, version, tmp_path):
    one, training = pair(version), MCTformerTraining(drop_path=0.5)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    batch = {"image": pictures, "erased": np.zeros((2, 4), np.int32), "labels": LABELS}
    key = jax.random.key(4)

    @jax.jit
    @jax.value_and_grad
    def of_parameters(parameters):
        return mctformer_loss(training)(nnx.merge(one.graph, parameters, {}), batch, key)

    value, gradients = of_parameters(jax.tree.map(jnp.asarray, one.parameters))
    drawn = path_factors(jax.random.split(key)[1], OURS["depth"], 2, rate=0.5)
    factors = [torch.from_numpy(np.float64(of_block)) for of_block in drawn]
    assert 0 < sum(int((of_block == 0).sum()) for of_block in factors) < 10
    images = (pictures / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    one.network.zero_grad()
    logits = one.network(to_torch(images), factors)[:2]
    expected = torch_mctformer.loss(*logits, torch.from_numpy(LABELS).double())
    expected.backward()
    assert relative_difference(value, expected.item()) < 1e-5
    named = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in one.network.named_parameters()
    }
    assert not named["norm.weight"].any(), "the last norm is never applied"
    named["pos_embed"][:, :CLASSES] = 0  # a token is stored with its position, whose gradient is the same
    others = read(named, tmp_path, one.config)
    largest = max(float(np.abs(gradient).max()) for gradient in jax.tree.leaves(others))
    for (path, gradient), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(others), strict=True
    ):
        assert relative_difference(gradient, other, 1e-4 * largest) < 1e-3, jax.tree_util.keystr(path)


def test_seven_updates_are_those_of_torch_s_adamw_with_timm_s_groups(pair, tmp_path):
    """At the rates of three epochs; every gradient of a class token is its position's, too."""
    one, training = pair("v2"), MCTformerTraining(learning_rate=0.08, warm_up=2, weight_decay=0.3)
    options = {"epochs": 3, "steps_of_epoch": 3}
    optimizer = mctformer_optimizer(training, network_of(one.config, CLASSES), **options)
    network = torch_mctformer.MCTformer(CLASSES, **THEIRS).double()
    network.load_state_dict(one.network.state_dict())
    theirs = torch_mctformer.adamw(network, 0.0, 0.3)
    generator = torch.Generator().manual_seed(0)

    @jax.jit
    def update(parameters, state, gradients):
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    parameters = jax.tree.map(jnp.asarray, one.parameters)
    state = jax.jit(optimizer.init)(parameters)
    for step in range(7):
        for group in theirs.param_groups:
            group["lr"] = rate_of_epoch(training, step // 3, epochs=3)
        named = dict(network.named_parameters())
        for name, parameter in named.items():
            if not name.startswith("norm."):
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        named["pos_embed"].grad[:, :CLASSES] = named["cls_token"].grad
        gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named.items()}
        gradients["pos_embed"][:, :CLASSES] = 0
        parameters, state = update(parameters, state, read(gradients, tmp_path, one.config))
        theirs.step()
    expected = read(network.state_dict(), tmp_path, one.config)
    for (path, value), other, start in zip(
        jax.tree_util.tree_leaves_with_path(parameters),
        jax.tree.leaves(expected),
        jax.tree.leaves(one.parameters),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        assert np.abs(other - start).max() > 1e-3, name
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def prototypes() -> Prototypes:
    """Random ones, all kept."""
    centres, mask = np.random.default_rng(0).normal(size=(2, CLASSES, 4, OURS["dim"])), np.ones((CLASSES, 4), bool)
    return Prototypes(np.float32(centres[0]), mask, np.float32(centres[1]), mask)


def lpcam_by_hand(prototypes: Prototypes):
    """Patches (d, h, w) -> (c, h, w): cosine by cosine."""

    def activation(patches):
        def mean(centres):
            return torch.stack([torch.cosine_similarity(patches, centre[:, None, None], 0) for centre in centres]).mean(
                0
            )

        sets = zip(prototypes.class_centres, prototypes.context_centres, strict=True)
        sets = [[torch.from_numpy(np.float64(centres)) for centres in both] for both in sets]
        return torch.stack([torch.relu(mean(own) - mean(context)) for own, context in sets])

    return activation


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_maps_of_pictures_of_many_sizes(pair, prototypes, version):
    """In shared batches, padded, from uint8 to float16: those that the transcription makes of each picture alone."""
    one, order = pair(version), (0, 1, 4, 5)
    labels = np.float32([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]])
    used = prototypes if version == "v2" else None
    network = Network(one.graph, (one.parameters, {}), mesh())
    options = {"depth": OURS["depth"], "inference": MCTformerInference(max_shapes=2), "description": None}
    found, _ = found_in(map_pictures(network, used, Noise(order, labels=labels), **options))
    for number, of_picture in zip(order, labels, strict=True):
        image = Noise((number,))[0].image
        picture = to_torch(((image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])[None])
        made, classes = found[str(number)], np.flatnonzero(of_picture)
        np.testing.assert_array_equal(made.classes, classes)
        activations = {METHOD: None, LPCAM_METHOD: lpcam_by_hand(prototypes)}
        assert list(made.maps) == list(activations)[: 2 if used else 1]
        for method, maps in made.maps.items():
            arguments = one.network, picture, torch.from_numpy(np.float64(of_picture))
            expected = torch_mctformer.maps(*arguments, last=3, activation=activations[method]).numpy()
            assert expected[classes].std() > 0.05
            # What is rounded to half precision differs by up to 2.5e-4 more; the mean, by hardly anything.
            np.testing.assert_allclose(maps, expected[classes], rtol=0, atol=4e-4, err_msg=f"{SIZES[number]} {method}")
            assert np.abs(maps.astype(float) - expected[classes]).mean() < 1e-4


def test_lpcam_alone_takes_the_place_of_the_whole_map(pair, prototypes):
    one, labels = pair("v2"), np.float32([[1, 1, 1]])
    network = Network(one.graph, (one.parameters, {}), mesh())
    inference = MCTformerInference(max_shapes=1, lpcam="alone")
    options = {"depth": OURS["depth"], "inference": inference, "description": None}
    found, _ = found_in(map_pictures(network, prototypes, Noise((1,), labels=labels), **options))
    image = Noise((1,))[0].image
    picture, total = to_torch(((image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])[None]), 0
    for mirrored in (False, True):
        with torch.no_grad():
            _, _, _, tokens, _ = one.network(picture.flip(-1) if mirrored else picture)
        maps = lpcam_by_hand(prototypes)(tokens[0])
        maps = torch.nn.functional.interpolate(maps[None], picture.shape[2:], mode="bilinear", align_corners=False)[0]
        total = total + (maps.flip(-1) if mirrored else maps)
    low, high = (extreme(total.flatten(1), 1)[:, None, None] for extreme in (torch.amin, torch.amax))
    np.testing.assert_allclose(found["1"].maps[LPCAM_METHOD], (total - low) / (high - low), rtol=0, atol=6e-4)


def test_centres_are_scored_as_the_head_scores_a_picture_that_is_one_centre_everywhere(pair, prototypes):
    one = pair("v2")
    state = TrainState(np.int32(0), one.parameters, {}, None)
    of = clustered(one.config, state)
    centres = torch.from_numpy(np.float64(prototypes.class_centres)).reshape(-1, OURS["dim"], 1, 1).expand(-1, -1, 3, 3)
    with torch.no_grad():
        scores = one.network.head(centres)[:, :, 1, 1].numpy()
    ours = prototypes.class_centres.reshape(-1, OURS["dim"]) @ of.weights + of.bias
    np.testing.assert_allclose(ours, scores, rtol=1e-4, atol=1e-5)
    own = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    own = own.reshape(CLASSES, -1, CLASSES)[np.arange(CLASSES), :, np.arange(CLASSES)]
    scored = own_scores(prototypes.class_centres, prototypes.class_centres, of.weights, bias=of.bias)
    np.testing.assert_allclose(scored, own, rtol=1e-3)
