"""Training MCTformer on image labels.

loss = sum over class tokens and patches of the mean over batch and classes of their binary cross entropy
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ...backbones.preprocessing import Preprocessing
from ...data.augment import random_box, random_mirror, random_resized_crop
from ...data.pipeline import Augmentation
from ...data.rand_augment import rand_augment
from ...data.records import Record, RecordSource
from ...inference.forward import as_they_are
from ...machine.errors import UserError
from ...training.checkpoints import TrainState
from ...training.loop import Plan, steps_of, train
from ...training.optimizers import Group, Path, grouped, without_decay
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..validation import mean_precision
from .config import MCTformerModel, MCTformerTraining
from .maps import logits_of_both
from .network import MCTformer, class_logits

_BATCH = 512  # that the learning rate is of


def train_mctformer(job: Job, pictures: RecordSource, validation: RecordSource) -> TrainState:
    """Train the MCTformer of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: labelled pictures to train on.
        validation: labelled pictures for the validation mAP of the class tokens; may be empty.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`; or a crop has no whole patch.
    """
    config, training = job.run.config, job.run.config.training
    if training.crop < config.model.patch:
        raise UserError(
            f"--training.crop {training.crop}: smaller than a patch, which has {config.model.patch} pixels; give a "
            "multiple of it."
        )
    steps = steps_of(training, len(pictures))
    of_epoch = max(len(pictures) // training.batch_size, 1)
    network = network_of(config, len(job.run.class_names))
    plan = Plan(
        pictures,
        timm_crops(training, config.model),
        mctformer_loss(training),
        mctformer_optimizer(training, network, epochs=steps // of_epoch, steps_of_epoch=of_epoch),
        steps,
        "MCTformer",
        validation=mean_precision(logits_of_both, config, validation, every=of_epoch),
    )
    return train(job, plan)


def mctformer_loss(training: MCTformerTraining) -> Loss:
    """The training loss.

    Args:
        training: holds the stochastic depth.

    Returns:
        (MCTformer, batch of `timm_crops`, key of noise and stochastic depth) -> float32 ().
    """

    def loss(model: MCTformer, batch: Batch, key: jax.Array) -> jax.Array:
        noise_key, path_key = jax.random.split(key)
        b, *shape, _ = batch["image"].shape
        images = as_they_are(model, batch["image"], jnp.broadcast_to(jnp.int32([shape]), (b, 2)))
        images = erased(noise_key, images, batch["erased"])
        tokens, patches = model(images, drop_path=training.drop_path, key=path_key)
        logits = [class_logits(tokens)]
        if model.head is not None:
            logits.append(model.patch_logits(model.scores(patches)))
        return sum(optax.sigmoid_binary_cross_entropy(one, batch["labels"]).mean() for one in logits)

    return loss


def erased(key: jax.Array, images: jax.Array, boxes: jax.Array) -> jax.Array:
    """Replace a box of each picture by noise, N(0, 1) in every channel of every pixel.

    Args:
        key: random key.
        images: float (b, h, w, 3), preprocessed.
        boxes: int32 (b, 4), top, left, bottom, right (exclusive); all 0: nothing is replaced.

    Returns:
        float (b, h, w, 3).

    Source: timm's RandomErasing, mode "pixel".
    """
    rows, columns = (jax.lax.broadcasted_iota(jnp.int32, (1, *images.shape[1:3], 1), axis) for axis in (1, 2))
    top, left, bottom, right = (boxes[:, side].reshape(-1, 1, 1, 1) for side in range(4))
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return jnp.where(inside, jax.random.normal(key, images.shape), images)


def mctformer_optimizer(
    training: MCTformerTraining, network: nnx.Module, *, epochs: int, steps_of_epoch: int
) -> optax.GradientTransformation:
    """MCTformer's optimizer: AdamW at the rates of `rate_of_epoch`, without decay where the network declares none.

    A class token and its position are two parameters in the reference, and one here. Both get the same gradients and
    neither decays, so Adam moves them alike, and their sum twice as far: as a group with twice the rate.

    Args:
        training: rates and decay.
        network: MCTformer, abstract (shapes only) or concrete.
        epochs: number of epochs.
        steps_of_epoch: number of steps of each.

    Returns:
        optax.GradientTransformation of its parameters.
    """
    rates = np.float32([rate_of_epoch(training, number, epochs=epochs) for number in range(epochs)])
    undecayed = without_decay(network)
    groups = {"decayed": Group(1.0, training.weight_decay), "undecayed": Group(1.0, 0.0), "tokens": Group(2.0, 0.0)}

    def group_of(path: Path) -> str:
        if path[-1] == "tokens":
            return "tokens"
        return "undecayed" if path in undecayed else "decayed"

    def rule(group: Group) -> optax.GradientTransformation:
        def schedule(step: jax.Array) -> jax.Array:
            return group.multiplier * jnp.asarray(rates)[jnp.minimum(step // steps_of_epoch, epochs - 1)]

        return optax.adamw(schedule, weight_decay=group.decay)

    return grouped(groups, group_of, rule)


def rate_of_epoch(training: MCTformerTraining, epoch: int, *, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0.

        s(t) = low + t (high - low) / warm_up                        t < warm_up
        s(t) = least + (high - least) (1 + cos(pi t / epochs)) / 2   otherwise;            t = max(epoch - 1, 0)

    Args:
        training: its rates; high is scaled with the batch size, the others are not.
        epoch: its number.
        epochs: number of epochs.

    Source: timm's cosine schedule, which the reference advances after each epoch, from 0: so the first rate is used
    twice.
    """
    t, high = max(epoch - 1, 0), training.learning_rate * training.batch_size / _BATCH
    if t < training.warm_up:
        return training.warm_up_rate + t * (high - training.warm_up_rate) / training.warm_up
    return training.least_rate + (high - training.least_rate) * (1 + math.cos(math.pi * t / epochs)) / 2


def timm_crops(training: MCTformerTraining, model: MCTformerModel) -> Augmentation:
    """Random parts of pictures, resized, mirrored and changed as timm does in training, with image labels.

    Args:
        training: sizes and shares.
        model: holds the mean colour, with which what a picture is moved away from is filled.

    Returns:
        Record -> image uint8 (crop, crop, 3); erased int32 (4,), the box that becomes noise, see `erased`; labels
        float32 (c,).

    Source: timm's transform for training.
    """
    mean = Preprocessing.of(model).mean
    fill = tuple(round(value) for value in (mean if model.channel_order == "rgb" else mean[::-1]))

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        image = random_resized_crop(rng, record.image, crop=training.crop, area=training.area)
        image = random_mirror(rng, image)
        if training.randaugment:
            image = rand_augment(rng, image, fill=fill)
        box = np.zeros(4, np.int32)
        if rng.random() < training.erase:
            box = random_box(rng, image.shape[:2], area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3))
        return {"image": np.ascontiguousarray(image), "erased": box, "labels": record.labels}

    return augmented
