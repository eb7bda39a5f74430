"""The training step of all systems: gradient of the loss, optimizer, batch statistics, running mean.

gradient of a step = mean over the parts of its batch, computed sequentially
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ..data.pipeline import Batch
from ..machine.devices import traces_for_cpus
from .checkpoints import TrainState

Loss = Callable[[nnx.Module, Batch, jax.Array], jax.Array]
"""(network, batch, random key) -> float32 (), inside `jax.jit`."""
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    seed: int,
    accumulate: int = 1,
    average: float = 0.0,
) -> TrainStep:
    """Make the jitted training step.

    Args:
        graph: the network's graph.
        optimizer: the optimizer of its parameters.
        loss: the loss of a batch; its updates of batch statistics are kept.
        seed: random seed; the key of step t depends only on seed and t.
        accumulate: number of parts each batch is split into.
        average: decay per step of the running mean of the parameters; used if the state has one.

    Returns:
        (state, batch) -> (state, {"loss": float32 ()}), the mean over the parts; the input state is donated.
    """

    def loss_of(parameters: Any, batch_stats: Any, batch: Batch, key: jax.Array):
        network = nnx.merge(graph, parameters, batch_stats)
        value = loss(network, batch, key)
        # No division by 1: it would change the compiled program, and with it cached compilations.
        value = value / accumulate if accumulate > 1 else value
        return value, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    gradient = jax.value_and_grad(loss_of, has_aux=True)

    def of_parts(state: TrainState, batch: Batch, key: jax.Array):
        keys = jax.random.split(key, accumulate)
        # Every n-th record, so that each part is spread evenly over the devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(sums: Any, part: tuple[Batch, jax.Array]):
            # The barrier forces sequential execution, to save memory, also where there is no loop.
            part, (total, gradients, batch_stats) = jax.lax.optimization_barrier((part, sums))
            (value, batch_stats), addend = gradient(state.parameters, batch_stats, *part)
            return (total + value, jax.tree.map(jnp.add, gradients, addend), batch_stats), None

        nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.parameters), state.batch_stats
        # A loop would be slow on CPUs; elsewhere it is compiled once for all parts.
        (total, gradients, batch_stats), _ = jax.lax.scan(add, nothing, (parts, keys), unroll=traces_for_cpus())
        return (total, batch_stats), gradients

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulate > 1:
            (value, batch_stats), gradients = of_parts(state, batch, key)
        else:
            (value, batch_stats), gradients = gradient(state.parameters, state.batch_stats, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        mean = state.average
        if mean is not None:
            mean = optax.incremental_update(parameters, mean, 1 - average)
        return TrainState(state.step + 1, parameters, batch_stats, opt_state, mean), {"loss": value}

    return jax.jit(step, donate_argnums=0)
