"""A trained network made ready for inference, once: every batch norm folded into the convolution before it.

(conv(x, K) - mean) s + bias  =  conv(x, s K) + (bias - s mean),      s = scale / sqrt(var + 1e-5)
"""

from typing import Any

import jax
from flax import nnx

from .layers import BatchNorm, Shift


def fold_batch_norm(
    graph: nnx.GraphDef, parameters: dict[str, Any], batch_stats: dict[str, Any]
) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The same function of pictures, in fewer steps; it cannot be trained.

    Args:
        graph: of a Classifier, IRNet, AMN, DeepLabV2 or DeepLabV3Plus.
        parameters: its parameters.
        batch_stats: its batch statistics.

    Returns:
        Graph, parameters and batch statistics (none are left) of the folded network: scaled kernels, and one bias in
        place of a norm. What is folded already stays as it is.
    """
    if not batch_stats:
        return graph, parameters, batch_stats

    def folded(parameters, batch_stats):
        model = nnx.merge(graph, parameters, batch_stats)
        for _, module in list(nnx.iter_modules(model)):
            norms = [name for name, one in vars(module).items() if isinstance(one, BatchNorm)]
            for name in norms:
                _fold(module, name.replace("bn", "conv"), name)
        return model

    inference_graph = nnx.graphdef(nnx.eval_shape(folded, parameters, batch_stats))
    values = jax.jit(lambda *state: nnx.to_pure_dict(nnx.state(folded(*state), nnx.Param)))(parameters, batch_stats)
    return inference_graph, values, {}


def _fold(module: nnx.Module, conv: str, norm: str) -> None:
    """Fold a norm of a module into its convolution."""
    before, after = getattr(module, conv), getattr(module, norm)
    factor, bias = after.factor_and_bias()
    before.for_inference(factor)
    setattr(module, norm, Shift(bias))
