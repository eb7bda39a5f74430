"""ResNet-50: the forward pass of the features, and a training step."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import draws
from benchmarks.contestant import Ready
from benchmarks.ours.trained import optimizer_of, with_drawn_weights
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.machine.devices import jit_forward
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.systems.lpcam.training import classification_loss
from lpcam_jax.training.state import graph_of
from lpcam_jax.training.step import make_train_step

from flax import nnx  # isort: skip


def forward(batch: int, side: int) -> Ready:
    """Pictures to features at output stride 16."""
    config = LPCAMConfig(model=ResNetConfig())
    graph, *_ = graph_of(config, draws.CLASSES)
    state = with_drawn_weights(config, optimizer_of(config, steps=1))
    graph, *folded = fold_batch_norm(graph, state.parameters, state.batch_stats)  # once, as infer.py does
    pictures = jax.device_put(draws.images(batch, side))
    boxes = jnp.tile(jnp.int32([[0, 0, side, side]]), (batch, 1))

    @jit_forward
    def features(parameters, batch_stats, pictures, boxes):
        model = nnx.merge(graph, parameters, batch_stats)
        return model.features(model.preprocessing(pictures, boxes))

    arguments = (*folded, pictures, boxes)
    compiled, seconds = _compiled(features, *arguments)
    return Ready(
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda result: {"features": np.asarray(result)},
        {"compilation, s": seconds},
    )


def step(batch: int, side: int) -> Ready:
    """A step of SGD with frozen batch norm, conv1 and bn1 frozen; the answer is the loss of the first."""
    config = LPCAMConfig(training=LPCAMTraining(learning_rate=1e-3))
    graph, *_ = graph_of(config, draws.CLASSES)
    optimizer = optimizer_of(config, steps=1000)
    box = np.tile(np.int32([[0, 0, side, side]]), (batch, 1))
    data = jax.device_put({"image": draws.images(batch, side), "box": box, "labels": draws.labels(batch)})
    state, losses = with_drawn_weights(config, optimizer), []
    train_step = make_train_step(graph, optimizer, classification_loss(train_batch_norm=False), seed=0)
    compiled, seconds = _compiled(train_step, state, data)

    def run():
        nonlocal state
        state, metrics = compiled(state, data)
        losses.append(float(metrics["loss"]))

    return Ready(run, lambda _: {"losses": losses[:2]}, {"compilation, s": seconds})


def _compiled(function, *arguments):
    """The program for these arguments, and the seconds it took to make."""
    start = time.perf_counter()
    return function.lower(*arguments).compile(), time.perf_counter() - start
