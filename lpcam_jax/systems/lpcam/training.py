"""Training the multi-label classifier.

loss = mean over batch and classes of the binary cross entropy of the logits (multi-label soft margin)
"""

import jax
import numpy as np
import optax
from flax import nnx

from ...data.augment import random_crop, random_long_side, random_mirror
from ...data.pipeline import Augmentation
from ...data.records import Record, RecordSource
from ...inference.plan import Outputs
from ...training.checkpoints import TrainState
from ...training.loop import Plan, steps_of, train
from ...training.optimizers import Group, Path, backbone_groups, grouped, layers_from_the_head, poly, without_decay
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..validation import mean_precision
from .config import LPCAMTraining
from .linear_probe import either, head_loss, is_linear_probe, pooled, probe_validation
from .maps import features_of_both
from .network import Classifier

BELOW_THE_HEAD = ("backbone", "undecayed")
"""Groups of parameters of the backbone."""


def train_classifier(job: Job, pictures: RecordSource, validation: RecordSource) -> TrainState:
    """Train the classifier of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: labelled pictures to train on.
        validation: labelled pictures for the validation mAP; may be empty.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`.
    """
    config, training = job.run.config, job.run.config.training
    steps = steps_of(training, len(pictures))
    network = network_of(config, len(job.run.class_names))
    plan = Plan(
        pictures,
        labelled_crops(training),
        classification_loss(train_batch_norm=training.batch_norm == "train"),
        classifier_optimizer(training, network, steps=steps),
        steps,
        "classifier",
        validation=mean_precision(logits_of_both, config, validation, every=steps // training.epochs),
    )
    if is_linear_probe(training):
        plan = plan._replace(
            augmented=either,
            loss=head_loss,
            validation=plan.validation and probe_validation(config, validation, every=plan.validation.every),
            instead=lambda state: pooled(config, state, pictures, description="pooled features"),
        )
    return train(job, plan)


def classification_loss(*, train_batch_norm: bool) -> Loss:
    """The training loss.

    Args:
        train_batch_norm: whether batch norm uses the statistics of the batch, global over all devices, and updates the
            stored ones.

    Returns:
        (classifier, batch of `labelled_crops`, key) -> float32 ().
    """

    def loss(model: Classifier, batch: Batch, key: jax.Array) -> jax.Array:
        images = model.preprocessing(batch["image"], batch["box"])
        logits = model(images, train=train_batch_norm, key=key)
        return optax.sigmoid_binary_cross_entropy(logits, batch["labels"]).mean()

    return loss


def classifier_optimizer(training: LPCAMTraining, network: nnx.Module, *, steps: int) -> optax.GradientTransformation:
    """The classifier's optimizer: a higher learning rate for the head, lower ones towards the picture if asked for,
    none for frozen parts of the backbone, and no decay where the backbone declares none.

    Args:
        training: learning rates, decay, frozen parts.
        network: the classifier, abstract (shapes only) or concrete.
        steps: number of steps after which the learning rate is 0.

    Returns:
        optax.GradientTransformation of its parameters.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}
    part_of, undecayed = backbone_groups(network, training.frozen), without_decay(network)
    if undecayed:  # not as an empty group, because optimizer states are stored by group
        groups["undecayed"] = Group(1.0, 0.0)

    def group_of(path: Path) -> str:
        part = part_of(path)
        return "undecayed" if part == "backbone" and path in undecayed else part

    if training.layer_decay == 1:
        return grouped(groups, group_of, poly(training, steps=steps))
    layer_of = layers_from_the_head(network)
    for number in set(layer_of.values()):
        rate = training.layer_decay**number
        groups |= {f"{name} {number}": groups[name]._replace(multiplier=rate) for name in {*groups} & {*BELOW_THE_HEAD}}
    numbered = {
        path: f"{group_of(path)} {number}" for path, number in layer_of.items() if group_of(path) in BELOW_THE_HEAD
    }
    return grouped(groups, lambda path: numbered.get(path) or group_of(path), poly(training, steps=steps))


def labelled_crops(training: LPCAMTraining) -> Augmentation:
    """Random crops with image labels.

    Args:
        training: sizes of pictures and crops.

    Returns:
        Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; labels float32 (c,).
    """

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        image = random_long_side(rng, record.image, low=training.long_side[0], high=training.long_side[1])
        canvas, box = random_crop(rng, random_mirror(rng, image), crop=training.crop)
        return {"image": canvas, "box": box, "labels": record.labels}

    return augmented


def logits_of_both(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """The classifier's logits (b, c), averaged over pictures and their mirror images."""
    *_, logits = features_of_both(model, pictures, sizes)
    return {"logits": logits}
