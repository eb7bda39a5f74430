"""A run of train.py that was never trained: drawn weights and prototypes, as `infer.py` reads them."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import draws
from lpcam_jax import Prototypes
from lpcam_jax.config import Data
from lpcam_jax.machine import devices
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.lpcam.training import classifier_optimizer
from lpcam_jax.systems.prototyping.stored_prototypes import save_prototypes
from lpcam_jax.training.checkpoints import CheckpointWriter, TrainState
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import initial_state, network_of, with_weights


def optimizer_of(config: LPCAMConfig, *, steps: int) -> optax.GradientTransformation:
    """The optimizer of a classifier."""
    return classifier_optimizer(config.training, network_of(config, draws.CLASSES), steps=steps)


def with_drawn_weights(config: LPCAMConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0 with the weights of `draws.classifier`."""
    arrays = draws.classifier(config.model.blocks, config.model.width)
    state = jax.jit(lambda: initial_state(config, draws.CLASSES, optimizer))()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.npz"
        np.savez(file, **arrays)
        state = with_weights(
            state, replace(config, model=replace(config.model, weights=str(file))), devices=devices.mesh()
        )
    return state._replace(parameters={**state.parameters, "head": jnp.asarray(arrays["fc.weight"].T)})


def drawn_prototypes(channels: int = 2048) -> Prototypes:
    """The prototypes of `draws.prototypes`, all of which are kept."""
    of_class, of_context = draws.prototypes(channels)
    all_of_them = np.ones(of_class.shape[:2], bool)
    return Prototypes(of_class, all_of_them, of_context, all_of_them)


def write_run(folder: Path, pictures: Path) -> None:
    """The run's folder, anew, with `pictures` as its data set."""
    shutil.rmtree(folder, ignore_errors=True)
    config = LPCAMConfig(data=Data(source="folder", root=str(pictures)))
    state = with_drawn_weights(config, optimizer_of(config, steps=1))
    run = Run.create(folder, config, draws.CLASS_NAMES)
    with CheckpointWriter(run) as checkpoints:
        checkpoints.save(1, state._replace(step=jnp.int32(1)))
    save_prototypes(run, drawn_prototypes(), step=1)
