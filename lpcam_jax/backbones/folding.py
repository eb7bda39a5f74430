"""Preparation of a trained network for inference: batch norms are folded into the preceding convolutions.

(conv(x, K) - mean) s + bias  =  conv(x, s K) + (bias - s mean),      s = scale / sqrt(var + 1e-5)
"""

from functools import cache
from typing import Any

import jax
from flax import nnx

from .layers.norms import BatchNorm, Shift


def fold_batch_norm(
    graph: nnx.GraphDef, parameters: dict[str, Any], batch_stats: dict[str, Any]
) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """Fold batch norms into convolutions; the network computes the same in fewer steps, but cannot be trained.

    Args:
        graph: graph of any network. `folds` of its modules lists the norms and their convolutions; a norm not listed,
            such as one before the first convolution of a block, is kept.
        parameters: its parameters.
        batch_stats: its batch statistics.

    Returns:
        Graph, parameters and batch statistics of the folded network: scaled kernels, and a bias in place of each norm.
        A folded network is returned unchanged.
    """
    if not batch_stats:
        return graph, parameters, batch_stats

    program = _folding(graph)
    folded_graph = nnx.graphdef(nnx.eval_shape(program.merged, parameters, batch_stats))
    return folded_graph, *program.values(parameters, batch_stats)


class _Folding:
    """The folding of a network, compiled once for all its parameters over time."""

    def __init__(self, graph: nnx.GraphDef):
        self._graph = graph
        self.values = jax.jit(self._values)

    def merged(self, parameters: dict[str, Any], batch_stats: dict[str, Any]) -> nnx.Module:
        """The folded network."""
        model = nnx.merge(self._graph, parameters, batch_stats)
        for _, module in list(nnx.iter_modules(model)):
            for conv, norm in getattr(module, "folds", ()):
                _fold(module, conv, norm)
        return model

    def _values(self, parameters, batch_stats):
        model = self.merged(parameters, batch_stats)
        return tuple(nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))


@cache
def _folding(graph: nnx.GraphDef) -> _Folding:
    return _Folding(graph)


def _fold(module: nnx.Module, conv: str, norm: str) -> None:
    """Fold a norm of a module into its convolution, unless already done."""
    before, after = getattr(module, conv), getattr(module, norm)
    if isinstance(after, BatchNorm):
        factor, bias = after.factor_and_bias()
        before.for_inference(factor)
        setattr(module, norm, Shift(bias))
