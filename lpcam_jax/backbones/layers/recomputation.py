"""Blocks whose inside is computed again for the gradient."""

from typing import Any

import jax
from flax import nnx


def recomputed(block: nnx.Module, *inputs: Any) -> Any:
    """The output of a block that is computed again for the gradient, instead of storing what is inside."""
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda state, *inputs: nnx.merge(graph, state)(*inputs))(state, *inputs)
