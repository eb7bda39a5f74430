"""Training a segmentation network: what a step does, and what a run keeps.

test_deeplab_parity.py compares ten steps with torch.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import stored_checkpoint
from flax import nnx
from test_training import any_differs

from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.machine import devices
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabTraining
from lpcam_jax.systems.deeplab.training import deeplab_loss, deeplab_optimizer
from lpcam_jax.systems.segmentation.losses import cross_entropy
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import graph_of, network_of, trained_state
from lpcam_jax.training.step import make_train_step

CLASSES = 6  # of the data set that the package draws


# The optimizer.


def parameters_of(*values: float) -> dict:
    """Parameters with the names of DeepLabV3+'s, one number each."""
    v = iter(values)

    def leaves(*names):
        return {name: jnp.float32([next(v)]) for name in names}

    return {
        "backbone": {
            "conv1": leaves("kernel"),
            "layer1": {0: {"conv1": leaves("kernel"), "downsample": {"bn": leaves("bias", "scale")}}},
            "layer2": {0: {"bn3": leaves("bias", "scale")}},
        },
        "classifier": leaves("bias", "kernel"),
        "decoder": {1: {"bn": leaves("bias", "scale"), "conv": leaves("kernel")}},
    }


STAYS = (0.0, 0.0)
# (multiplier of the rate, decay) of the parameters in the order above.
FIXED = (STAYS, (1, 0.5), STAYS, STAYS, STAYS, STAYS, (20, 0), (10, 0.5), (10, 0.5), (10, 0.5), (10, 0.5))
FROZEN = (STAYS, (1, 0.5), (1, 0.5), (1, 0.5), (1, 0.5), (1, 0.5), *FIXED[6:])


@pytest.fixture(scope="module")
def tiny(segmentation_recipe) -> DeepLabConfig:
    config = load_recipe(segmentation_recipe)
    return replace(config, training=replace(config.training, learning_rate=0.01))


@pytest.fixture(scope="module")
def without_memory(tiny):
    """The network, which knows its parts and norms."""
    return network_of(tiny, CLASSES)


@pytest.mark.parametrize(("batch_norm", "groups"), [("fixed", FIXED), ("frozen", FROZEN), ("train", FROZEN)])
def test_three_sgd_steps_by_hand(without_memory, batch_norm, groups):
    training = DeepLabTraining(
        steps=5, hold=2, learning_rate=0.01, weight_decay=0.5, momentum=0.9, frozen=("conv1",), batch_norm=batch_norm
    )
    rng, optimizer = np.random.default_rng(0), deeplab_optimizer(training, without_memory)
    values, gradients = rng.normal(size=11), rng.normal(size=(3, 11))
    parameters = parameters_of(*values)
    state = optimizer.init(parameters)
    for one in gradients:
        updates, state = optimizer.update(parameters_of(*one), state, parameters)
        parameters = optax.apply_updates(parameters, updates)

    multipliers, decays = np.array(groups).T
    trace = 0.0
    for gradient, step in zip(gradients, (0, 0, 2), strict=True):  # at which the rate was last set
        trace = gradient + decays * values + 0.9 * trace
        values = values - 0.01 * (1 - step / 5) ** 0.9 * multipliers * trace
    np.testing.assert_allclose(np.concatenate(jax.tree.leaves(parameters)), values, rtol=1e-5)


def test_adamw_decays_apart_from_the_gradients_and_no_bias(without_memory):
    training = DeepLabTraining(steps=4, hold=1, learning_rate=0.01, weight_decay=0.5, optimizer="adamw")
    optimizer, parameters = deeplab_optimizer(training, without_memory), parameters_of(*[2.0] * 11)
    updates, _ = optimizer.update(parameters_of(*[0.0] * 11), optimizer.init(parameters), parameters)
    multipliers = np.array([1, *[multiplier for multiplier, _ in FIXED[1:]]])
    decays = np.array([0.5, *[decay for _, decay in FIXED[1:]]])
    np.testing.assert_allclose(np.concatenate(jax.tree.leaves(updates)), -0.01 * multipliers * decays * 2, rtol=1e-5)


# A step of a network of three numbers.


class ThreeNumbers(nnx.Module):
    """The logits of a pixel are its red value times a number a class; remembers what it saw."""

    def __init__(self):
        self.numbers = nnx.Param(jnp.float32([0.5, -0.25, 1.0]))
        self.firsts = nnx.BatchStat(jnp.zeros((), jnp.float32))  # red values of first pixels, as decimal digits
        self.noise = nnx.BatchStat(jnp.zeros(2, jnp.float32))  # drawn with the last two keys
        self.preprocessing = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def loss(self, images, labels, *, train_backbone, dropout_key):
        self.firsts[...] = 10 * self.firsts[...] + images[0, 0, 0, 0]
        self.noise[...] = jnp.stack([jax.random.uniform(dropout_key), self.noise[0]])
        return cross_entropy(images[..., :1] * self.numbers[...].reshape(1, 1, 1, 3), labels)


def three_numbers(training, seed=0):
    """The step and the first state of the network of three numbers."""
    graph, *trees = nnx.split(ThreeNumbers(), nnx.Param, nnx.BatchStat)
    parameters, batch_stats = map(nnx.to_pure_dict, trees)
    optimizer = optax.sgd(0.125)
    average = jax.tree.map(jnp.copy, parameters) if training.average else None
    state = TrainState(jnp.int32(0), parameters, batch_stats, optimizer.init(parameters), average)
    return step_with(graph, optimizer, training, seed=seed), state


def step_with(graph, optimizer, training, *, seed):
    loss = deeplab_loss(train_backbone=training.batch_norm == "train")
    return make_train_step(graph, optimizer, loss, seed=seed, accumulate=training.accumulate, average=training.average)


def batch_of_six() -> dict[str, np.ndarray]:
    """Pictures of 2x3 pixels whose red values are 1 to 6, the number of the record; fewer labels in each."""
    images = np.zeros((6, 2, 3, 3), np.uint8)
    images[...] = np.arange(1, 7).reshape(6, 1, 1, 1)
    masks = np.random.default_rng(0).integers(0, 3, (6, 2, 3), np.uint8)
    for number, mask in enumerate(masks):
        mask.reshape(-1)[:number] = 255
    return {"image": images, "box": np.int32([[0, 0, 2, 3]] * 6), "mask": masks}


def loss_by_hand(numbers: jax.Array, batch: dict[str, np.ndarray]) -> jax.Array:
    red, labels = (
        values.reshape(-1)[batch["mask"].reshape(-1) < 255] for values in (batch["image"][..., 0], batch["mask"])
    )
    logits = red[:, None].astype(np.float32) * numbers[None]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None].astype(int), axis=1))


@pytest.mark.parametrize("form", [nullcontext, devices.portable])  # one after another, and in a loop
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_step_takes_the_mean_gradient_of_its_parts(parts, form):
    step, state = three_numbers(DeepLabTraining(accumulate=parts))
    batch, start = batch_of_six(), np.float32([0.5, -0.25, 1.0])
    pieces = [{name: values[part::parts] for name, values in batch.items()} for part in range(parts)]
    losses, gradients = zip(*[jax.value_and_grad(loss_by_hand)(start, piece) for piece in pieces], strict=True)
    with form():
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_allclose(state.parameters["numbers"], start - 0.125 * np.mean(gradients, axis=0), rtol=1e-5)
    assert np.abs(np.mean(gradients, axis=0)).min() > 1e-3
    assert int(state.step) == 1


@pytest.mark.parametrize("form", [nullcontext, devices.portable])
@pytest.mark.parametrize(("parts", "firsts"), [(1, 1), (2, 12), (3, 123)])
def test_each_part_continues_from_the_statistics_of_the_one_before(parts, firsts, form):
    step, state = three_numbers(DeepLabTraining(accumulate=parts))
    with form():
        state, _ = step(state, batch_of_six())
    assert float(state.batch_stats["firsts"]) == firsts


def test_every_part_of_every_step_has_a_dropout_of_its_own():
    def drawn(seed):
        step, state = three_numbers(DeepLabTraining(accumulate=2), seed)
        found = []
        for _ in range(3):
            state, _ = step(state, batch_of_six())
            found += state.batch_stats["noise"].tolist()
        return found

    assert len(set(drawn(0) + drawn(1))) == 12
    assert drawn(0) == drawn(0)


def test_the_running_mean_follows_the_parameters():
    step, state = three_numbers(DeepLabTraining(accumulate=1, average=0.75))
    expected = np.array(state.parameters["numbers"])
    for _ in range(3):
        state, _ = step(state, batch_of_six())
        expected = 0.75 * expected + 0.25 * np.array(state.parameters["numbers"])
    np.testing.assert_allclose(state.average["numbers"], expected, rtol=1e-6)
    assert np.abs(expected - state.parameters["numbers"]).max() > 0.01


# A step of the networks.


@cache
def network(config: DeepLabConfig) -> tuple[nnx.GraphDef, dict, dict]:
    """A graph, parameters and statistics of which none is 0 or 1."""
    graph, *trees = graph_of(config, CLASSES)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:3]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return graph, *(jax.tree_util.tree_map_with_path(random, tree) for tree in trees)


@cache
def batch() -> dict[str, np.ndarray]:
    """As the tiny recipe's."""
    rng = np.random.default_rng(0)
    patches = rng.choice([*range(CLASSES + 1), 255], (4, 4, 4)).astype(np.uint8)
    return {
        "image": rng.integers(0, 256, (4, 48, 48, 3), np.uint8),
        "box": np.int32([[0, 0, 48 - 3 * i, 48 - 5 * i] for i in range(4)]),
        "mask": np.kron(patches, np.ones((1, 12, 12), np.uint8)),
    }


@cache
def step_of(config: DeepLabConfig):
    """The step of a config's network, and a function that gives a first state."""
    graph, parameters, batch_stats = network(config)
    optimizer, mesh = deeplab_optimizer(config.training, network_of(config, CLASSES)), devices.mesh()
    step = step_with(graph, optimizer, config.training, seed=config.seed)

    @jax.jit
    def build():
        trees = jax.tree.map(jnp.array, (parameters, batch_stats))
        average = jax.tree.map(jnp.array, parameters) if config.training.average else None
        return TrainState(jnp.int32(0), *trees, optimizer.init(parameters), average)

    # On the devices as in a run: then it is the same program, compiled once.
    return lambda state: step(state, devices.shard(batch(), mesh)), lambda: devices.replicate(build(), mesh)


@pytest.mark.parametrize("batch_norm", ["fixed", pytest.param("train", marks=pytest.mark.rest)])  # "frozen": as torch
def test_what_of_the_batch_norms_is_trained(tiny, batch_norm):
    step, first = step_of(replace(tiny, training=replace(tiny.training, batch_norm=batch_norm)))
    start, (end, _) = first(), step(first())
    for tree in ("parameters", "batch_stats"):
        leaves = jax.tree_util.tree_leaves_with_path(getattr(start, tree))
        for (path, before), after in zip(leaves, jax.tree.leaves(getattr(end, tree)), strict=True):
            stays = path[0].key == "backbone" and str(path[-2].key).startswith("bn") and batch_norm == "fixed"
            assert any_differs(before, after) != stays, path


@pytest.mark.rest
def test_dropout_is_of_the_step(tiny):
    step, first = step_of(tiny)
    losses = [float(step(first()._replace(step=replicated(number)))[1]["loss"]) for number in (0, 0, 1, 2)]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
    np.testing.assert_allclose(losses, losses[0], rtol=0.2)


def replicated(number: int) -> jax.Array:
    return devices.replicate(jnp.int32(number), devices.mesh())


def rough(config: DeepLabConfig) -> DeepLabConfig:
    return replace(config, model=replace(config.model, precision="bfloat16"))


@pytest.mark.rest
def test_bfloat16_trains_float32(tiny):
    (step, first), (rough_step, rough_first) = step_of(tiny), step_of(rough(tiny))
    start, (_, expected), (end, metrics) = first(), step(first()), rough_step(rough_first())
    assert {leaf.dtype.name for leaf in jax.tree.leaves((end.parameters, end.batch_stats))} == {"float32"}
    assert 1e-6 < abs(float(metrics["loss"] / expected["loss"]) - 1) < 0.05
    assert all(
        any_differs(a, b) for a, b in zip(*map(jax.tree.leaves, (end.parameters, start.parameters)), strict=True)
    )


@pytest.mark.rest
def test_the_step_of_two_parts_exports_for_every_platform(tiny, monkeypatch):
    """Of one part, the network contract exports it."""
    training = replace(tiny.training, accumulate=2)
    graph, parameters, batch_stats = network(tiny)
    optimizer = deeplab_optimizer(training, network_of(tiny, CLASSES))
    state = TrainState(np.int32(0), parameters, batch_stats, optimizer.init(parameters), parameters)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch()))
    convolutions = []
    for backend, platforms in (("cpu", ("cpu",)), ("tpu", ("cuda", "tpu"))):
        # A 1x1 convolution is written otherwise on a CPU.
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        step = step_with(graph, optimizer, training, seed=0)
        exported = jax.export.export(step, platforms=platforms)(*shapes)
        assert exported.platforms == platforms
        convolutions.append(exported.mlir_module().count("stablehlo.convolution"))
        results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        expected = shapes[0], {"loss": jax.ShapeDtypeStruct((), jnp.float32)}
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), results) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), expected
        )
    assert 0 < convolutions[0] < convolutions[1]


# Runs.


@pytest.fixture(scope="module")
def finished(tiny_runs):
    """A finished run of the tiny recipe; look, do not touch."""
    return tiny_runs.run("segmentation").directory


def test_a_run_keeps_a_log_with_validations_and_what_moved(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[0].removeprefix('{"step": ') for line in lines] == list("12334566")
    assert [number for number, line in enumerate(lines) if "validation_miou" in line] == [3, 7]
    before, after = (stored_checkpoint(finished, step) for step in (4, 6))
    assert int(after["step"]) == 6
    for tree in ("parameters", "average", "batch_stats", "opt_state"):
        assert any_differs(before[tree], after[tree]), tree


def test_what_is_used_is_the_running_mean(finished, mesh):
    last, used = stored_checkpoint(finished, 6), trained_state(Run.open(finished), devices=mesh)
    for name, found in (("average", used.parameters), ("batch_stats", used.batch_stats)):
        assert not any_differs(last[name], found), name
    assert any_differs(last["average"], last["parameters"])
