"""The progress bar of training: how long it says it takes."""

import re
import time
from itertools import repeat

import jax.numpy as jnp
import numpy as np

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.machine.devices import replicate
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.loop import Validation, run_steps
from lpcam_jax.training.run import Run


def test_validations_are_no_part_of_its_time(tmp_path, recipe, mesh, capfd):
    run = Run.create(tmp_path / "run", load_recipe(recipe), ("cat",))
    state = replicate(TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(3)}, {}, (), None), mesh)

    def step(state, batch):
        return state._replace(step=state.step + 1), {"loss": jnp.float32(1)}

    def measure(state):
        time.sleep(1.5)
        return 0.5

    began = time.monotonic()
    options = {"validation": Validation(1, measure, "mAP"), "description": "training", "devices": mesh}
    batches = (batch for batch in repeat({"image": np.zeros((8, 1), np.uint8)}))
    run_steps(run, state, step, lambda start: batches, steps=4, **options)
    took = time.monotonic() - began
    *_, (minutes, seconds) = re.findall(r"\[(\d+):(\d+)<", capfd.readouterr().err)
    assert 60 * int(minutes) + int(seconds) <= took - 4 * 1.5 + 1
