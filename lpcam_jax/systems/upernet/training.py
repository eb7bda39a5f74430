"""Training UperNet on masks: true ones, or seeds and pseudo masks made without pixel labels.

loss = mean over pixels of the cross entropy of the head, and of 0.4 times that of the auxiliary head
"""

import jax
import numpy as np
import optax
from flax import nnx

from ...backbones.layers.convolution import Linear
from ...data.augment import on_canvas, random_mirror, varied_window
from ...data.photometric import photometric_distortion
from ...data.pipeline import Augmentation
from ...data.records import Record, RecordSource
from ...data.resizing import fitted_size, resize_bilinear_uint8, resize_mask, scaled_size, shrunk
from ...seeds import IGNORE
from ...training.checkpoints import TrainState
from ...training.loop import Plan, train
from ...training.optimizers import FROZEN, Group, Path, backbone_groups, grouped, poly, without_decay
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..segmentation.validation import make_validation
from .config import UperNetTraining
from .network import UperNet


def train_upernet(job: Job, pictures: RecordSource, validation: RecordSource) -> TrainState:
    """Train the UperNet of a run, or resume its training; the last checkpoint is the result.

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
    plan = Plan(
        pictures if training.fit else shrunk(pictures, config.data.longest),
        varied_crops(training),
        upernet_loss(training),
        upernet_optimizer(training, network_of(config, len(job.run.class_names))),
        training.steps,
        "UperNet",
        accumulate=training.accumulate,
        least=2,  # for the norm of the picture pooled to one position
        validation=make_validation(config, validation),
    )
    return train(job, plan)


def upernet_loss(training: UperNetTraining) -> Loss:
    """The training loss.

    Args:
        training: weight and denominator of the losses, and whether the backbone's batch norm is trained.

    Returns:
        (UperNet, batch of `varied_crops`, key of what is left out at random) -> float32 ().
    """

    def loss(model: UperNet, batch: Batch, key: jax.Array) -> jax.Array:
        return model.loss(
            model.preprocessing(batch["image"], batch["box"]),
            batch["mask"],
            train_backbone=training.batch_norm == "train",
            key=key,
            auxiliary=training.auxiliary,
            over=training.loss_over,
        )

    return loss


def upernet_optimizer(training: UperNetTraining, network: nnx.Module) -> optax.GradientTransformation:
    """The optimizer of UperNet: one rate for all, and no decay where the backbone declares none, biases excepted.

    Args:
        training: learning rate, schedule, decay, frozen parts.
        network: UperNet, abstract (shapes only) or concrete.

    Returns:
        optax.GradientTransformation of its parameters.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.

    Source: mmsegmentation's recipe for Swin transformers, which excludes parameters from the decay by parts of their
    names, `norm`, `absolute_pos_embed` and `relative_position_bias_table`: so biases of linear layers, and the heads'
    batch norms, named `bn`, do decay.
    """
    groups = {"decayed": Group(1.0, training.weight_decay), "undecayed": Group(1.0, 0.0)}
    biases = {(*path, "bias") for path, module in nnx.iter_modules(network) if isinstance(module, Linear)}
    part_of, undecayed = backbone_groups(network, training.frozen), without_decay(network) - biases

    def group_of(path: Path) -> str:
        if part_of(path) == FROZEN:
            return FROZEN
        return "undecayed" if path in undecayed else "decayed"

    return grouped(groups, group_of, poly(training, steps=training.steps, warm_up=training.warm_up))


def varied_crops(training: UperNetTraining) -> Augmentation:
    """Random crops of several classes, with masks: resized, cropped, mirrored, and of other colours.

    Args:
        training: sizes, scales, and the share that no class may have.

    Returns:
        Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; mask uint8 (crop, crop), all
        255 if the record has no mask.

    Source: mmsegmentation's pipeline; but where a mask is enlarged or shrunk, its pixels are where the picture's are,
    and there up to half a pixel lower and further right.
    """
    crop = training.crop

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        mask = np.full(record.image.shape[:2], IGNORE, np.uint8) if record.mask is None else record.mask
        scale = rng.uniform(*training.scale_range)
        size = fitted_size(mask.shape, training.fit, scale=scale) if training.fit else scaled_size(mask.shape, scale)
        labels = resize_mask(mask, size)
        window = varied_window(rng, labels, crop=crop, most=training.largest_class)
        image = resize_bilinear_uint8(record.image, size, window=window)
        both = random_mirror(rng, np.concatenate([image, labels[window][..., None]], axis=-1))
        image, labels = both[..., :3], both[..., 3]
        if training.photometric:
            image = photometric_distortion(rng, image)
        image, labels, box = on_canvas(image, labels, crop=crop)
        return {"image": image, "box": box, "mask": labels}

    return augmented
