"""Training the multi-label classifier.

loss = mean over batch and classes of the binary cross entropy of the logits (multi-label soft margin)
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
from ..config import Config
from ..data.pipeline import labelled_crops, training_batches
from ..data.records import RecordSource
from ..devices import jit_forward, local_mesh, replicate
from ..inference import features_of_both
from ..metrics import average_precision
from ..passes import Pass, run_passes
from .checkpoints import TrainState
from .loop import Batch, TrainStep, Validation, check_batch, first_state, run_steps, steps_of
from .optimizers import classifier_optimizer
from .run import Run
from .state import graph_of


def make_train_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, *, train_batch_norm: bool
) -> TrainStep:
    """The jitted step.

    Args:
        graph: of the classifier.
        optimizer: of its parameters.
        train_batch_norm: use and update with batch statistics, which are those of the global batch over all devices.

    Returns:
        (state, batch) -> (state, {"loss": float32 ()}); the state that goes in is donated.
    """

    def loss_of(parameters, batch_stats, batch):
        model = nnx.merge(graph, parameters, batch_stats)
        images = model.preprocessing(batch["image"], batch["box"])
        logits = model(images, train=train_batch_norm)
        loss = optax.sigmoid_binary_cross_entropy(logits, batch["labels"]).mean()
        return loss, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def step(state: TrainState, batch: Batch):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch_stats), gradients = gradient(state.parameters, state.batch_stats, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(state.step + 1, parameters, batch_stats, opt_state), {"loss": loss}

    return jax.jit(step, donate_argnums=0)


def train_classifier(run: Run, pictures: RecordSource, validation: RecordSource, *, devices: Mesh) -> TrainState:
    """Train, or go on training, the classifier of a run; its last checkpoint is the result.

    Args:
        run: directory and config.
        pictures: labelled pictures to train on.
        validation: labelled pictures of the validation mAP; may be none.
        devices: the mesh.

    Returns:
        TrainState after the last step.

    Raises:
        UserError: as `run_steps` and `first_state`, or the batch does not divide over the devices.
    """
    config, training = run.config, run.config.training
    check_batch(training.batch_size, 1, devices)
    steps = steps_of(training, len(pictures))
    graph, *_ = graph_of(config, len(run.class_names))
    optimizer = classifier_optimizer(training, steps=steps)
    measure = make_validation(config, graph, validation, devices=local_mesh())
    return run_steps(
        run,
        first_state(run, optimizer, devices=devices),
        make_train_step(graph, optimizer, train_batch_norm=training.batch_norm == "train"),
        lambda start: training_batches(
            pictures,
            labelled_crops(training),
            batch_size=training.batch_size,
            seed=config.seed,
            start=start,
            part=processes.part(),
        ),
        steps=steps,
        validation=Validation(steps // training.epochs, measure, "mAP") if len(validation) else None,
        description="classifier",
        devices=devices,
    )


def make_validation(
    config: Config, graph: nnx.GraphDef, validation: RecordSource, *, devices: Mesh
) -> Callable[[TrainState], float]:
    """The validation of a state: mean over classes of the average precision, compiled once.

    Args:
        config: of the run.
        graph: of the classifier.
        validation: labelled pictures, seen whole, at the first inference scale; those that cannot be read are left out.
        devices: the mesh of this process, which computes its share of the pictures.

    Returns:
        state -> mAP in [0, 1]; NaN when no class occurs.
    """

    @jit_forward
    def network(parameters, batch_stats, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        *_, logits = features_of_both(model, pictures, sizes)
        return {"logits": logits, "grid": model.backbone.grid_sizes(sizes)}

    def validate(state: TrainState) -> float:
        on_devices = replicate((state.parameters, state.batch_stats), devices)
        results = run_passes(
            [Pass(config.inference.scales[0], partial(network, *on_devices))],
            validation,
            batches=config.inference,
            devices=devices,
            description="validation",
            skipped=[],
            only=processes.share(range(len(validation))),
        )
        classes = len(validation.class_names)
        seen = [np.concatenate([record.labels, outputs[0]["logits"]]) for _, record, outputs in results]
        seen = np.concatenate(processes.gather(np.array(seen, np.float32).reshape(-1, 2 * classes)))
        if not len(seen):
            return math.nan
        labels, logits = np.split(seen, 2, axis=1)
        return float(jnp.nanmean(jax.vmap(average_precision, in_axes=1)(labels, logits)))

    return validate
