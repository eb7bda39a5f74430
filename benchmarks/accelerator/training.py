"""Training steps, as train.py compiles them: with donated state, by precision and size of the batch."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.compiled import Compiled, compiled, device
from benchmarks.accelerator.part import Programs, Row, timed
from benchmarks.accelerator.sizes import Sizes
from benchmarks.ours.trained import with_drawn_weights
from benchmarks.steps import CLASSES, Step, classifier_step, segmentation_step
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabModel, DeepLabTraining
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.training.state import initial_state

PRECISIONS = ("float32", "bfloat16")
_TRIES, _SPARE = 3, 0.9  # of the memory, for what a plan leaves out
_WHOLE = 8  # the largest batches are multiples of it


def classifier(sizes: Sizes) -> Programs:
    """The classifier's step."""
    for precision in PRECISIONS:
        yield (
            _name("classifier step", sizes, sizes.crop, precision),
            partial(_classifier, sizes, sizes.batch, precision),
        )


def segmentation(sizes: Sizes) -> Programs:
    """DeepLabV2's step."""
    for precision in PRECISIONS:
        name = _name("DeepLabV2 step", sizes, sizes.masked_crop, precision)
        yield name, partial(_segmentation, sizes, sizes.batch, precision)


def largest(sizes: Sizes) -> Programs:
    """Both, with the largest batch that the device's memory holds."""
    for step, of_batch in (("classifier step", _classifier), ("DeepLabV2 step", _segmentation)):
        for precision in reversed(PRECISIONS):
            yield f"{step}, the largest batch, {precision}", partial(_largest, sizes, of_batch, precision)


def _name(step: str, sizes: Sizes, side: int, precision: str) -> str:
    return f"{step}, {sizes.batch} pictures of {side}x{side}, {precision}"


def _classifier(sizes: Sizes, batch: int, precision: str, limit: float = np.inf) -> Row:
    model = ResNetConfig(blocks=sizes.blocks, width=sizes.width, stem_width=sizes.width, precision=precision)
    config = LPCAMConfig(model=model, training=LPCAMTraining(batch_size=batch, crop=sizes.crop, learning_rate=1e-3))
    step = classifier_step(config)
    return _measured(sizes, step, lambda: with_drawn_weights(config, step.optimizer), precision, limit)


def _segmentation(sizes: Sizes, batch: int, precision: str, limit: float = np.inf) -> Row:
    config = DeepLabConfig(
        model=replace(
            DeepLabModel(), blocks=sizes.deep_blocks, width=sizes.width, stem_width=sizes.width, precision=precision
        ),
        training=DeepLabTraining(batch_size=batch, crop=sizes.masked_crop, accumulate=1),
    )
    step = segmentation_step(config)
    return _measured(sizes, step, jax.jit(partial(initial_state, config, CLASSES, step.optimizer)), precision, limit)


class DoesNotFitError(Exception):
    """A step needs more memory than there is.

    Attributes:
        program: the compiled step.
    """

    def __init__(self, program: Compiled):
        super().__init__(f"needs {program.memory / 1e9:.2f} GB")
        self.program = program


def _measured(sizes: Sizes, step: Step, state_of: Any, precision: str, limit: float) -> Row:
    program = compiled(step.function, step.state, step.batch)
    if program.memory > limit:
        raise DoesNotFitError(program)
    batch = jax.device_put(drawn_batch(step.batch), device())
    state, losses = jax.device_put(state_of(), device()), []

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            state, metrics = program.run(state, batch)
        losses.append(float(metrics["loss"]))

    row = timed(run, least=sizes.seconds)
    facts = {"batch": len(batch["image"]), "first loss": losses[0], "memory, GB": program.memory / 1e9}
    if peak := (device().memory_stats() or {}).get("peak_bytes_in_use"):
        facts["peak of its process, GB"] = peak / 1e9
    return row | {
        "pictures": len(batch["image"]),
        "flops": program.flops,
        "bytes": program.bytes,
        "precision": precision,
        "facts": facts,
    }


def drawn_batch(shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Random pictures without padding, labels, and masks of which a few pixels are ignored."""
    rng, side = np.random.default_rng(4), shapes["image"].shape[1]
    draw = {
        "image": lambda shape: rng.integers(0, 256, shape, np.uint8),
        "box": lambda shape: np.tile(np.int32([[0, 0, side, side]]), (shape[0], 1)),
        "labels": lambda shape: np.random.default_rng(5).integers(0, 2, shape).astype(np.float32),
        "mask": lambda shape: np.where(rng.random(shape) < 0.05, 255, rng.integers(0, CLASSES + 1, shape)).astype("u1"),
    }
    return {name: draw[name](leaf.shape) for name, leaf in shapes.items()}


def _largest(sizes: Sizes, of_batch: Any, precision: str) -> Row:
    """The plan of the usual batch tells what a picture takes, and so how many fit; if not, a few less are tried."""
    limit = sizes.memory or (device().memory_stats() or {}).get("bytes_limit")
    if not limit:
        return {"error": "the device does not say how much memory it has"}
    batch, room = sizes.batch, _SPARE * limit
    try:
        of_batch(sizes, batch, precision, limit=0)
    except DoesNotFitError as usual:
        batch = int(room * batch / usual.program.memory)
    for _ in range(_TRIES):
        batch = batch - batch % _WHOLE if batch >= _WHOLE else max(batch, 1)
        try:
            return of_batch(sizes, batch, precision, limit=room)
        except DoesNotFitError as planned:
            batch = min(int(room * batch / planned.program.memory), batch - 1)
        except jax.errors.JaxRuntimeError as full:
            if "RESOURCE_EXHAUSTED" not in str(full):
                raise
            batch = int(0.8 * batch)
    return {
        "error": f"out of memory, {limit / 1e9:.3g} GB, after {_TRIES} tries; the next would be of {batch} pictures"
    }
