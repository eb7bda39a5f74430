"""What a training step of DeepLabV2 costs, from the compiler: flops, and peak bytes of this backend.

    python -m benchmarks.cost

ResNet-101, 321x321 pictures, 21 classes. Nothing is trained: the step is lowered for every platform, and compiled for
this one. Prints Markdown for RESULTS.md.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from lpcam_jax.config import SegmentationConfig
from lpcam_jax.training.optimizers import segmentation_optimizer
from lpcam_jax.training.segmentation import make_train_step
from lpcam_jax.training.state import graph_of, initial_state

CLASSES = 20
PLATFORMS = ("cpu", "cuda", "tpu")


def main() -> None:
    """Lower, compile, print."""
    print("| step | GFLOP | peak GB (this CPU) | lowered for |\n|---|---|---|---|")
    for accumulate, precision in ((2, "float32"), (1, "float32"), (2, "bfloat16")):
        config = SegmentationConfig()
        training = dataclasses.replace(config.training, accumulate=accumulate)
        model = dataclasses.replace(config.model, precision=precision)
        config = dataclasses.replace(config, training=training, model=model)
        graph, *_ = graph_of(config, CLASSES)
        optimizer = segmentation_optimizer(training)
        state = jax.eval_shape(partial(initial_state, config, CLASSES, optimizer))
        step = make_train_step(graph, optimizer, training, seed=0)
        b, side = training.batch_size, training.crop
        batch = {
            "image": jax.ShapeDtypeStruct((b, side, side, 3), jnp.uint8),
            "box": jax.ShapeDtypeStruct((b, 4), jnp.int32),
            "mask": jax.ShapeDtypeStruct((b, side, side), jnp.uint8),
        }
        exported = jax.export.export(step, platforms=PLATFORMS)(state, batch)
        lowered = step.lower(state, batch)
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        peak -= memory.alias_size_in_bytes  # what is donated
        parts = f", in {accumulate} parts" if accumulate > 1 else ""
        flops, platforms = compiled.cost_analysis()["flops"], ", ".join(exported.platforms)
        print(f"| batch {b}{parts}, {precision} | {flops / 1e9:,.0f} | {peak / 1e9:.1f} | {platforms} |", flush=True)


if __name__ == "__main__":
    main()
