"""Training EDAM on pairs of pictures that share a class.

loss = mean over pairs, both pictures and all classes of the binary cross entropy of the logits
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ...data.augment import color_jitter, random_crop, random_long_side, random_mirror
from ...data.pipeline import Augmentation
from ...data.records import Record, RecordSource
from ...training.checkpoints import TrainState
from ...training.loop import Plan, steps_of, train
from ...training.optimizers import FROZEN, Group, Path, backbone_groups, grouped, is_in_norm, on_schedule
from ...training.run import Job
from ...training.state import network_of
from ...training.step import Batch, Loss
from ..validation import mean_precision
from .config import EDAMTraining
from .maps import logits_of_both
from .network import EDAM
from .pairs import Pair, Pairs

_WARM_UP_FROM = 0.1


def train_edam(job: Job, pictures: RecordSource, validation: RecordSource) -> TrainState:
    """Train the EDAM of a run, or resume its training; the last checkpoint is the result.

    Args:
        job: the run and the mesh.
        pictures: labelled pictures to train on.
        validation: labelled pictures for the validation mAP of the attention between a picture and its mirror image;
            may be empty.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: see `training.loop.train`; or no picture has a class.
    """
    config, training = job.run.config, job.run.config.training
    steps = steps_of(training, -(-len(pictures) // 2))
    pairs = Pairs(pictures, steps * training.batch_size, seed=config.seed)
    fit = (training.crop, training.crop)
    plan = Plan(
        pictures,
        paired_crops(training),
        edam_loss(training),
        edam_optimizer(training, network_of(config, len(job.run.class_names)), steps=steps),
        steps,
        "EDAM",
        validation=mean_precision(logits_of_both, config, validation, every=max(steps // training.epochs, 1), fit=fit),
        instead=lambda _: pairs,
        shuffled=False,
        unit="pair",
    )
    return train(job, plan)


def edam_loss(training: EDAMTraining) -> Loss:
    """The training loss.

    Args:
        training: says whether batch norm is trained.

    Returns:
        (EDAM, batch of `paired_crops`, key of what is left out at random) -> float32 ().
    """

    def loss(model: EDAM, batch: Batch, key: jax.Array) -> jax.Array:
        images, boxes, labels = (
            leaf.reshape(-1, *leaf.shape[2:]) for leaf in (batch["image"], batch["box"], batch["labels"])
        )
        path_key, dropout_key = jax.random.split(key)
        images = model.preprocessing(images, boxes)
        features = model.features(images, train=training.batch_norm == "train", key=path_key)
        logits = model.logits(features, model.heat(features), dropout_key=dropout_key)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    return loss


def edam_optimizer(training: EDAMTraining, network: nnx.Module, *, steps: int) -> optax.GradientTransformation:
    """EDAM's optimizer: a higher learning rate for the layers on the features and for the scores.

    Args:
        training: learning rates, decay, frozen parts.
        network: EDAM, abstract (shapes only) or concrete.
        steps: number of steps.

    Returns:
        optax.GradientTransformation of its parameters. Biases and norms of the attention decay as its kernels do; those
        batch norms of the backbone that are not trained keep scale and shift.

    Raises:
        UserError: the backbone has no part with the name of a frozen one.

    Source: EDAM's optimizer, which, unlike that of its relatives, has momentum.
    """
    decay = training.weight_decay
    groups = {"head": Group(training.head_multiplier, decay), "backbone": Group(1.0, decay)}
    part_of, in_norm = backbone_groups(network, training.frozen), is_in_norm(network)

    def group_of(path: Path) -> str:
        if training.batch_norm == "frozen" and in_norm(path):
            return FROZEN
        if path[0] == "attention" and path[-1] != "score":
            return "backbone"
        return part_of(path)

    def rule(group: Group) -> optax.GradientTransformation:
        return on_schedule(training, group, edam_schedule(training, group.multiplier, steps=steps))

    return grouped(groups, group_of, rule)


def edam_schedule(training: EDAMTraining, multiplier: float, *, steps: int) -> optax.Schedule:
    """The learning rate: it rises from a tenth, and then falls to 0.

        rate(s) = high (0.1 + 0.9 s / warm_up)                                      s < warm_up
        rate(s) = high (1 - (s - warm_up) / (steps - warm_up)) ** power             otherwise

    Args:
        training: learning rate, warm-up, power.
        multiplier: factor on the learning rate.
        steps: number of steps.
    """
    high = training.learning_rate * multiplier
    after = max(steps - training.warm_up, 1)

    def schedule(step: jax.Array) -> jax.Array:
        rising = _WARM_UP_FROM + (1 - _WARM_UP_FROM) * step / max(training.warm_up, 1)
        falling = jnp.maximum(1 - (step - training.warm_up) / after, 0) ** training.power
        return high * jnp.where(step < training.warm_up, rising, falling)

    return schedule


def paired_crops(training: EDAMTraining) -> Augmentation:
    """Random crops of both pictures of a pair, of other colours, with image labels.

    Args:
        training: sizes of pictures and crops, jitter.

    Returns:
        Pair -> image uint8 (2, crop, crop, 3); box int32 (2, 4), top, left, bottom, right; labels float32 (2, c).
    """

    def of_one(record: Record, rng: np.random.Generator) -> Batch:
        image = random_long_side(rng, record.image, low=training.long_side[0], high=training.long_side[1])
        image = color_jitter(rng, np.ascontiguousarray(random_mirror(rng, image)), *training.jitter)
        canvas, box = random_crop(rng, image, crop=training.crop)
        return {"image": canvas, "box": box, "labels": record.labels}

    def augmented(pair: Pair, rng: np.random.Generator) -> Batch:
        first, second = (of_one(record, rng) for record in pair)
        return {name: np.stack([first[name], second[name]]) for name in first}

    return augmented
