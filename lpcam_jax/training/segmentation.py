"""Training a segmentation network from masks: true ones, or seeds and pseudo masks made without a pixel label.

loss = mean over labelled pixels of the cross entropy (`segmentation_losses`)
gradient of a step = mean over the parts of its batch, computed one after the other
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from .. import processes
from ..config import SegmentationConfig, SegmentationTraining
from ..data.pipeline import masked_crops, training_batches
from ..data.records import RecordSource
from ..devices import local_mesh
from ..metrics import iou
from ..models.deeplab import build_deeplab
from ..scoring import picture_confusion
from ..segmentation import segment_pictures
from .checkpoints import TrainState
from .loop import Batch, TrainStep, Validation, check_batch, first_state, note_untrained_reach, run_steps
from .optimizers import segmentation_optimizer
from .run import Run
from .segmentation_losses import segmentation_loss
from .state import graph_of, in_use


def make_train_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, training: SegmentationTraining, *, seed: int
) -> TrainStep:
    """The jitted step.

    Args:
        graph: of the network.
        optimizer: of its parameters.
        training: accumulation, batch norm, running mean.
        seed: of the dropout.

    Returns:
        (state, batch) -> (state, {"loss": float32 ()}), the mean over the parts; the state that goes in is donated.
    """
    parts, decay = training.accumulate, training.average

    def loss_of(parameters, batch_stats, batch, key):
        model = nnx.merge(graph, parameters, batch_stats)
        images = model.preprocessing(batch["image"], batch["box"])
        loss = segmentation_loss(
            model, images, batch["mask"], train_backbone=training.batch_norm == "train", dropout_key=key
        )
        return loss / parts, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def step(state: TrainState, batch: Batch):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step), parts)

        # Every parts-th record: so a part has as many on each device as any other.
        batches = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        loss, gradients, batch_stats = 0.0, None, state.batch_stats
        for part in range(parts):
            one = jax.tree.map(lambda x, part=part: x[part], batches)
            # One after the other, also where nothing but memory asks for it. (A loop would be slow on CPUs.)
            one, gradients = jax.lax.optimization_barrier((one, gradients))
            (value, batch_stats), more = gradient(state.parameters, batch_stats, one, keys[part])
            loss, gradients = loss + value, more if gradients is None else jax.tree.map(jnp.add, gradients, more)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = state.average
        if average is not None:
            average = optax.incremental_update(parameters, average, 1 - decay)
        return TrainState(state.step + 1, parameters, batch_stats, opt_state, average), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def train_segmentation(run: Run, pictures: RecordSource, validation: RecordSource, *, devices: Mesh) -> TrainState:
    """Train, or go on training, the segmentation network of a run; its last checkpoint is the result.

    Args:
        run: directory and config.
        pictures: with the masks to train on.
        validation: with true masks, for the validation mIoU; may be none.
        devices: the mesh.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `run_steps` and `first_state`, or the batch does not divide over its parts and the devices.
    """
    config, training = run.config, run.config.training
    check_batch(training.batch_size, training.accumulate, devices)
    graph, *_ = graph_of(config, len(run.class_names))
    model = nnx.eval_shape(partial(build_deeplab, config.model, 1))
    note_untrained_reach(max(model.rates) * config.model.output_stride, crop=training.crop)
    optimizer = segmentation_optimizer(training)
    has_truth = len(validation) and validation.has_masks
    measure = make_validation(config, graph, validation, devices=local_mesh())
    return run_steps(
        run,
        first_state(run, optimizer, devices=devices),
        make_train_step(graph, optimizer, training, seed=config.seed),
        lambda start: training_batches(
            pictures,
            masked_crops(training),
            batch_size=training.batch_size,
            seed=config.seed,
            start=start,
            part=processes.part(),
        ),
        steps=training.steps,
        validation=Validation(training.validate_every, measure, "mIoU") if has_truth else None,
        description="segmentation",
        devices=devices,
    )


def make_validation(
    config: SegmentationConfig, graph: nnx.GraphDef, validation: RecordSource, *, devices: Mesh
) -> Callable[[TrainState], float]:
    """The validation of a state: mIoU with the background, at the settings of inference, compiled once.

    Args:
        config: of the run.
        graph: of the network.
        validation: pictures with true masks, seen whole; those that cannot be read are left out.
        devices: the mesh of this process, which computes its share of the pictures.

    Returns:
        state -> mIoU in [0, 1]; NaN when no pixel has a label.
    """
    segment = segment_pictures(graph, inference=config.inference, devices=devices)
    classes = len(validation.class_names) + 1

    def validate(state: TrainState) -> float:
        used, matrix = in_use(state), np.zeros((classes, classes))
        share = processes.share(range(len(validation)))
        results = segment(
            (used.parameters, used.batch_stats), validation, skipped=[], description="validation", only=share
        )
        for _, record, mask in results:
            if record.mask is not None:
                matrix += picture_confusion(record.mask, mask, classes)
        matrix = np.sum(processes.gather(matrix), axis=0)
        return float(np.nanmean(iou(matrix.astype(np.float32)))) if matrix.any() else math.nan

    return validate
