"""Classifier and LPCAM as one StableHLO program that runs wherever jax runs, without this package or the run.

    pictures uint8 (b, H, W, 3)  ->  cam, lpcam float32 (b, H, W, c),  probabilities float32 (b, c)

and, for a run with LPCAM-T, its maps as `taught`. The program contains parameters, prototypes, mean and std; b is
free, H and W are fixed. The maps are those of `maps` at scale 1, mirror image added, for all classes: the caller
chooses the classes of each picture, by its labels or by the probabilities.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export

from ... import __version__
from ...class_activation import cam
from ...config import at_precision
from ...machine.devices import portable
from ...prototype_activation import lpcam
from ...prototypes import Prototypes
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import graph_of, network_of
from .maps import on_picture

PLATFORMS = ("cpu", "cuda", "tpu")


def export_classifier(run: Run, state: TrainState, prototypes: Prototypes, size: tuple[int, int]) -> export.Exported:
    """Export the program.

    Args:
        run: a classifier's run, for its config.
        state: its parameters and batch statistics.
        prototypes: the prototypes of its classes.
        size: (H, W) of the pictures.

    Returns:
        Exported, for all of PLATFORMS; `.call(pictures)` returns {"cam", "lpcam", "probabilities"}, and "taught" if
        the prototypes have it.
    """
    config, classes = at_precision(run.config), len(run.class_names)
    graph, *_ = graph_of(config, classes)
    stride = network_of(config, classes).backbone.strides[-1]
    # Host arrays, so that the program does not depend on the number of devices here.
    arrays = jax.tree.map(np.asarray, (state.parameters, state.batch_stats, prototypes))

    def classify_and_map(pictures):
        parameters, batch_stats, prototypes = jax.tree.map(jnp.asarray, arrays)
        model = nnx.merge(graph, parameters, batch_stats)
        count = pictures.shape[0]
        both = jnp.concatenate([pictures, pictures[:, :, ::-1]])
        boxes = jnp.broadcast_to(jnp.array([[0, 0, *size]], jnp.int32), (2 * count, 4))
        features = model.features(model.preprocessing(both, boxes))
        logits = model.logits(features)
        straight, mirrored = features[:count], features[count:, :, ::-1]
        head = model.head[...]
        by_method = {"lpcam": prototypes} | ({} if prototypes.taught is None else {"taught": prototypes.taught})
        return {
            "cam": on_picture([cam(straight, head) + cam(mirrored, head)], size, stride=stride),
            **{
                method: on_picture([lpcam(straight + mirrored, directions)], size, stride=stride, epsilon=0.0)
                for method, directions in by_method.items()
            },
            "probabilities": jax.nn.sigmoid((logits[:count] + logits[count:]) / 2),
        }

    shape = export.symbolic_shape(f"b, {size[0]}, {size[1]}, 3")
    # Not `devices.jit_forward`, whose compiler options are specific to this machine.
    with portable():
        return export.export(jax.jit(classify_and_map), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))


def description(
    run: Run, state: TrainState, prototypes: Prototypes, size: tuple[int, int], file_name: str
) -> dict[str, Any]:
    """Describe the program in a file of this name, as plain JSON values."""
    height, width = size
    count = len(run.class_names)
    maps = f"float32 (b, {height}, {width}, {count}), each in [0, 1]"
    methods = ("cam", "lpcam") if prototypes.taught is None else ("cam", "lpcam", "taught")
    return {
        "version": __version__,
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "run": run.directory.name,
        "step": int(state.step),
        "class_names": list(run.class_names),
        "inputs": {"pictures": f"uint8 (b, {height}, {width}, 3), RGB, 0..255, any b; mean and std are in the program"},
        "outputs": dict.fromkeys(methods, maps) | {"probabilities": f"float32 (b, {count}), each in [0, 1]"},
        "load": [
            "from jax import export",
            f"program = export.deserialize(bytearray(open({file_name!r}, 'rb').read()))",
            "maps = program.call(pictures)",
        ],
    }
