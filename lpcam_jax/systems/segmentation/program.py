"""A segmentation network as one function of pictures, for other programs.

    pictures uint8 (b, H, W, 3)  ->  probabilities float32 (b, H, W, c + 1),  mask uint8 (b, H, W)

The masks are those of `segment` at scale 1, with or without the mirror image as the run says, and without a CRF.
Pictures are not fitted to `inference.fit`: whoever calls the program does that. Where the run says otherwise, the
program's `without` names it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...class_activation import resize_bilinear
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import graph_of
from ..base import Program


def segmentation_program(run: Run, config: Any, state: TrainState, size: tuple[int, int]) -> Program:
    """The program of a segmentation network.

    Args:
        run: its run.
        config: that of the run, at the precision of the program.
        state: its parameters and batch statistics.
        size: (H, W) of the pictures.
    """
    classes, inference = len(run.class_names), config.inference
    graph, *_ = graph_of(config, classes)
    arrays = jax.tree.map(np.asarray, (state.parameters, state.batch_stats))

    def segment(pictures: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, *jax.tree.map(jnp.asarray, arrays))
        box = jnp.array([[0, 0, *size]], jnp.int32)
        views = [model(model.preprocessing(pictures, box))]
        if inference.mirror:
            views.append(model(model.preprocessing(pictures[:, :, ::-1], box))[:, :, ::-1])
        of_views = [jax.nn.softmax(resize_bilinear(logits, size), axis=-1) for logits in views]
        maximum = inference.fusion == "maximum"
        probabilities = jnp.maximum(of_views[0], of_views[-1]) if maximum else sum(of_views) / len(of_views)
        return {"probabilities": probabilities, "mask": probabilities.argmax(axis=-1).astype(jnp.uint8)}

    outputs = {
        "probabilities": f"float32 (b, {size[0]}, {size[1]}, {classes + 1}), background first, each in [0, 1]",
        "mask": f"uint8 (b, {size[0]}, {size[1]}), 0 background, n + 1 class n",
    }
    missing = {
        f"the scales {', '.join(f'{scale:g}' for scale in inference.scales)}": inference.scales != (1.0,),
        f"the fit to sides of {' and '.join(map(str, inference.fit or ()))} pixels": inference.fit is not None,
        f"the CRF {inference.crf}": inference.crf != "",
    }
    without = ", ".join(what for what, is_missing in missing.items() if is_missing)
    return Program(segment, size, outputs, tuple(run.class_names), run.directory.name, int(state.step), without)
