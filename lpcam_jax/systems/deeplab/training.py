"""Training a segmentation network on masks: true ones, or seeds and pseudo masks made without pixel labels.

loss = mean over labelled pixels of the cross entropy (`losses`)
"""

import jax
import numpy as np
import optax
from flax import nnx

from ...data.augment import random_scale, random_window, scaled_alike
from ...data.pipeline import Augmentation
from ...data.records import Record, RecordSource
from ...data.resizing import shrunk
from ...seeds import IGNORE
from ...training.checkpoints import TrainState
from ...training.loop import Plan, note_untrained_reach, train
from ...training.optimizers import FROZEN, Group, Path, backbone_groups, grouped, is_in_norm, poly, without_decay
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..segmentation.validation import make_validation
from .config import DeepLabTraining
from .large_fov import LargeFOV
from .network import DeepLabV2, DeepLabV3Plus


def train_deeplab(job: Job, pictures: RecordSource, validation: RecordSource) -> TrainState:
    """Train the segmentation network of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: pictures with the masks to train on.
        validation: pictures with true masks, for the validation mIoU; may be empty.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`.
    """
    config, training = job.run.config, job.run.config.training
    network = network_of(config, len(job.run.class_names))
    note_untrained_reach(max(network.rates) * network.backbone.strides[-1], crop=training.crop)
    plan = Plan(
        shrunk(pictures, config.data.longest),
        masked_crops(training),
        deeplab_loss(train_backbone=training.batch_norm == "train"),
        deeplab_optimizer(training, network),
        training.steps,
        "segmentation",
        accumulate=training.accumulate,
        least=2 if config.model.head == "deeplabv3plus" else 1,  # the norm of the pooled picture
        shared=training.scaling == "batch",
        validation=make_validation(config, validation),
    )
    return train(job, plan)


def deeplab_loss(*, train_backbone: bool) -> Loss:
    """The training loss.

    Args:
        train_backbone: whether the backbone's batch norm uses the statistics of the batch and updates the stored ones.

    Returns:
        (network, batch of `masked_crops`, dropout key) -> float32 ().
    """

    def loss(model: DeepLabV2 | DeepLabV3Plus | LargeFOV, batch: Batch, key: jax.Array) -> jax.Array:
        images = model.preprocessing(batch["image"], batch["box"])
        return model.loss(images, batch["mask"], train_backbone=train_backbone, dropout_key=key)

    return loss


def deeplab_optimizer(training: DeepLabTraining, network: nnx.Module) -> optax.GradientTransformation:
    """The optimizer of a segmentation network: a higher learning rate for the head, a still higher one for its biases,
    and no decay where the backbone declares none.

    Args:
        training: learning rates, decay, frozen parts, steps.
        network: the network, abstract (shapes only) or concrete.

    Returns:
        optax.GradientTransformation of its parameters.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.

    Source: DeepLabV2's recipe, where the norms are in no parameter group.
    """
    decay = training.weight_decay
    groups = {
        "backbone": Group(1.0, decay),
        "head": Group(training.head_multiplier, decay),
        "bias": Group(training.bias_multiplier, 0.0),
    }
    part_of, in_norm, undecayed = backbone_groups(network, training.frozen), is_in_norm(network), without_decay(network)
    if undecayed:  # not as an empty group, because optimizer states are stored by group
        groups["undecayed"] = Group(1.0, 0.0)

    def group_of(path: Path) -> str:
        part = part_of(path)
        if part == "backbone" and training.batch_norm == "fixed" and in_norm(path):
            return FROZEN
        if part == "backbone" and path in undecayed:
            return "undecayed"
        return "bias" if part == "head" and path[-1] == "bias" and not in_norm(path) else part

    return grouped(groups, group_of, poly(training, steps=training.steps, hold=training.hold))


def masked_crops(training: DeepLabTraining) -> Augmentation:
    """Random crops with masks.

    Args:
        training: scales, crop size, label of the padding.

    Returns:
        Record, generator, and the batch's generator if it has one scale -> image uint8 (crop, crop, 3); box int32 (4,),
        top, left, bottom, right; mask uint8 (crop, crop), all 255 in the box if the record has no mask.
    """

    ignore = IGNORE if training.padding == "ignored" else 0

    def augmented(record: Record, rng: np.random.Generator, of_batch: np.random.Generator | None = None) -> Batch:
        mask = np.full(record.image.shape[:2], IGNORE, np.uint8) if record.mask is None else record.mask
        if of_batch is None:
            image, mask = random_scale(rng, record.image, mask, scales=training.scales)
        else:
            scale = of_batch.uniform(min(training.scales), max(training.scales))
            image, mask = scaled_alike(record.image, mask, scale=scale)
        canvas, labels, box = random_window(rng, image, mask, crop=training.crop, ignore=ignore)
        if rng.random() < 0.5:  # mirror the whole window including its padding, as the recipe does
            canvas, labels = canvas[:, ::-1], labels[:, ::-1]
            box = np.int32([box[0], training.crop - box[3], box[2], training.crop - box[1]])
        return {"image": canvas, "box": box, "mask": labels}

    return augmented
