"""Training the multi-label classifier.

    loss = mean over batch and classes of the binary cross entropy of the logits (multi-label soft margin)

One jitted step on pure dicts, batch sharded over the mesh, state donated. Step t sees batch t and nothing else random,
so a resumed run ends with the same bits as one that never stopped.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..config import Config
from ..data.pipeline import Batch, training_batches
from ..data.records import RecordSource
from ..devices import abstract_on, jit_forward, replicate, shard
from ..errors import UserError
from ..inference import features_of_both
from ..metrics import average_precision
from ..passes import Pass, run_passes
from .checkpoints import Run, TrainState
from .log import MetricsLog
from .optimizers import make_optimizer
from .state import graph_of, initial_state, starts_blind, with_weights

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


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
        UserError: the loss is not finite (the step is named), a picture cannot be read, the batch does not divide over
        the devices, or the run's checkpoint is of another model.
    """
    config, training = run.config, run.config.training
    if training.batch_size % devices.size:
        raise UserError(
            f"a batch of {training.batch_size} does not divide over {devices.size} devices; "
            "choose another --training.batch-size."
        )
    steps_per_epoch = max(len(pictures) // training.batch_size, 1)
    steps = training.epochs * steps_per_epoch

    graph, *_ = graph_of(config, len(run.class_names))
    optimizer = make_optimizer(training, steps=steps)
    initialize = partial(initial_state, config, len(run.class_names), optimizer)
    if run.steps():
        state = run.restore(abstract_on(jax.eval_shape(initialize), devices))
    else:
        if starts_blind(config):
            tqdm.write("note: without --model.weights, and with frozen batch norm, this is a dry run: expect no model")
        state = jax.jit(initialize)()
        state = replicate(with_weights(state, config.model.weights) if config.model.weights else state, devices)
    start = int(state.step)
    if start >= steps:
        return state

    step = make_train_step(graph, optimizer, train_batch_norm=training.batch_norm == "train")
    validate = make_validation(config, graph, validation, devices=devices)
    batches = training_batches(pictures, training, seed=config.seed, start=start)
    log = MetricsLog(run.metrics_file, start=start)
    bar = tqdm(total=steps * training.batch_size, initial=start * training.batch_size, desc="classifier", unit="img")
    with bar, log, run.manager() as manager:
        for number in range(start + 1, steps + 1):
            state, metrics = step(state, shard(next(batches), devices))
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                manager.wait_until_finished()
                raise UserError(
                    f"the loss is {loss} at step {number}; lower --training.learning-rate and run again with another "
                    f"--workdir (checkpoints up to step {max(run.steps(), default=0)} are intact)."
                )
            bar.update(training.batch_size)
            bar.set_postfix_str(f"loss {loss:.4f}")
            log.write({"step": number, "loss": loss})
            if number % steps_per_epoch == 0 and len(validation):
                score = validate(state)
                if math.isfinite(score):
                    log.write({"step": number, "validation_map": score})
                    bar.write(f"epoch {number // steps_per_epoch}: validation mAP {100 * score:.1f} %")
            # Last, so that all the lines of a step with a checkpoint are in the log.
            if number % training.checkpoint_every == 0 or number == steps:
                manager.save(number, args=ocp.args.PyTreeSave(state._asdict()))
    return state


def make_validation(
    config: Config, graph: nnx.GraphDef, validation: RecordSource, *, devices: Mesh
) -> Callable[[TrainState], float]:
    """The validation of a state: mean over classes of the average precision, compiled once.

    Args:
        config: of the run.
        graph: of the classifier.
        validation: labelled pictures, seen whole, at the first inference scale; those that cannot be read are left out.
        devices: the mesh.

    Returns:
        state -> mAP in [0, 1]; NaN when no class occurs.
    """

    @jit_forward
    def network(parameters, batch_stats, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        *_, logits = features_of_both(model, pictures, sizes)
        return {"logits": logits, "grid": model.backbone.grid_sizes(sizes)}

    def validate(state: TrainState) -> float:
        one = Pass(config.inference.scales[0], partial(network, state.parameters, state.batch_stats))
        results = run_passes(
            [one], validation, inference=config.inference, devices=devices, description="validation", skipped=[]
        )
        seen = [(record.labels, outputs[0]["logits"]) for _, record, outputs in results]
        if not seen:
            return math.nan
        labels, logits = (np.stack(values) for values in zip(*seen, strict=True))
        return float(jnp.nanmean(jax.vmap(average_precision, in_axes=1)(labels, logits)))

    return validate
