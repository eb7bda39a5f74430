"""A GPU or a TPU computes what the CPU beside it computes, goes on where it was, and says when its memory is full.

    pytest -m accelerator             # on the device that JAX finds; without one, they are skipped
    pytest -m accelerator --on-cpu    # the CPU beside itself, to try the tests

With XLA_FLAGS=--xla_gpu_deterministic_ops=true what is trained on a GPU is compared to the bit, without it loosely.
"""

import gc
import os
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import stored_checkpoint
from test_heatmaps import arrays_of
from tiny_networks import LABELS, SYSTEMS, TinyNetwork, network

import lpcam_jax
from benchmarks.accelerator.compiled import cpu, device
from benchmarks.accelerator.parity import difference, on, programs
from benchmarks.accelerator.sizes import SHORT
from lpcam_jax import Prototypes
from lpcam_jax.data.records import Record
from lpcam_jax.machine.programs import run_program
from lpcam_jax.training.checkpoints import CheckpointWriter, TrainState
from lpcam_jax.training.step import make_train_step

pytestmark = [pytest.mark.accelerator, pytest.mark.rest]  # of the rest, so that `make test` does not speak of them


def is_deterministic() -> bool:
    """Whether the same program gives the same bits every time."""
    return device().platform in ("cpu", "tpu") or "--xla_gpu_deterministic_ops=true" in os.environ.get("XLA_FLAGS", "")


def assert_repeated(one, other):
    """Of trees of arrays: the same bits, or about the same where the device adds in any order."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        if is_deterministic():
            np.testing.assert_array_equal(a, b, jax.tree_util.keystr(path))
        else:
            assert difference(a, b) < 1e-2, jax.tree_util.keystr(path)


def test_features_maps_clusters_crf_and_walk_are_those_of_the_cpu():
    rows = {name: work() for name, work in programs(SHORT)}
    assert len(rows) > 10
    assert {name: row for name, row in rows.items() if not row["agrees"]} == {}


# The functions of the package


def arguments() -> SimpleNamespace:
    """Small arrays for all of them."""
    rng = np.random.default_rng(0)

    def floats(*shape):
        return rng.random(shape, np.float32)

    masks = rng.integers(0, 4, (2, 9, 12)).astype(np.int32)
    every = np.ones((3, 4), bool)
    return SimpleNamespace(
        features=floats(2, 9, 12, 8),
        head=floats(8, 3) - 0.5,
        centres=floats(3, 4, 8),
        prototypes=Prototypes(floats(3, 4, 8), every, floats(3, 4, 8), every),
        points=floats(3, 50, 8) ** 4,
        weights=np.ones((3, 50), np.float32),
        maps=floats(2, 9, 12, 3),
        present=np.float32([[1, 0, 1], [1, 1, 0]]),
        masks=masks,
        truth=np.roll(masks, 1, axis=2),
        matrix=floats(4, 4),
        thresholds=np.linspace(0, 1, 5, dtype=np.float32),
        keys=jax.random.split(jax.random.key(0), 3),
    )


CALLS = {
    "average_precision": lambda f, a: f(a.present[0], a.maps[0, 0, 0]),
    "bounding_boxes": lambda f, a: f(a.maps[..., 0] > 0.9),
    "cam": lambda f, a: f(a.features, a.head),
    "class_scores": lambda f, a: f(a.centres, a.head),
    "cluster_classes": lambda f, a: f(a.keys, a.points, a.weights, k=3),
    "confident_labels": lambda f, a: f(a.maps, a.present),
    "confusion_matrix": lambda f, a: f(a.truth, a.masks, num_classes=4),
    "directions": lambda f, a: f(a.prototypes),
    "own_scores": lambda f, a: f(a.centres, a.centres, a.head),
    "evidence": lambda f, a: f(a.features, a.prototypes),
    "fuse": lambda f, a: f([a.maps, a.maps[:, :5, :7]], (140, 180)),
    "inverse_length": lambda f, a: f(a.features),
    "iou": lambda f, a: f(a.matrix),
    "ir_labels": lambda f, a: f(a.truth, a.masks),
    "kmeans": lambda f, a: f(a.points[0], a.weights[0], a.points[0, :3]),
    "kmeans_plus_plus": lambda f, a: f(a.keys[0], a.points[0], a.weights[0], k=3),
    "lpcam": lambda f, a: f(a.features, a.prototypes),
    "mean_average_precision": lambda f, a: f(a.present, a.maps[0, 0, :2]),
    "normalize": lambda f, a: f(a.maps),
    "otsu_threshold": lambda f, a: f(a.maps),
    "percentile_threshold": lambda f, a: f(a.maps, 80.0),
    "resize_bilinear": lambda f, a: f(a.maps, (20, 7)),
    "resize_nearest": lambda f, a: f(a.maps, (20, 7)),
    "seed_mask": lambda f, a: f(a.maps, a.present),
    "seed_scores": lambda f, a: f(a.matrix),
    "select_prototypes": lambda f, a: f(a.centres, a.centres + 1, a.head, mu_f=0.4),
    "similarity_maps": lambda f, a: f(a.features, a.centres),
    "split": lambda f, a: f(a.maps[..., 0]),
    "threshold_sweep": lambda f, a: f(
        a.truth.reshape(-1), a.masks.reshape(-1), a.maps[..., 0].reshape(-1), a.thresholds, num_classes=4
    ),
    "unit": lambda f, a: f(a.features),
    "without_context": lambda f, a: f(a.prototypes),
}
OF_NUMPY_OR_THE_DISK = {"largest_component", "with_class_values", "load"}


@pytest.mark.parametrize("name", CALLS)
def test_public_functions_stay_on_the_device_and_give_what_the_cpu_gives(name):
    function = getattr(lpcam_jax, name)
    ours, theirs = (
        CALLS[name](function, SimpleNamespace(**jax.device_put(vars(arguments()), where)))
        for where in (device(), cpu())
    )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.devices() == {device()}
        assert difference(one, other) < 1e-5


# The networks and their training


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_network_of_every_system_computes_what_it_computes_on_the_cpu(name):
    tiny, sizes = network(name), np.int32([[64, 50], [33, 64]])
    images = np.zeros((2, 64, 64, 3), np.float32)
    for image, (rows, columns) in zip(images, sizes, strict=True):
        image[:rows, :columns] = np.random.default_rng(0).normal(size=(rows, columns, 3))
    with jax.default_matmul_precision("highest"):
        function = jax.jit(tiny.traced)
        ours, theirs = (
            on(where, function, *tiny.arrays, images, sizes, LABELS[:2], None) for where in (device(), cpu())
        )
    assert ours
    for output, expected in theirs.items():
        assert difference(ours[output], expected) < 1e-4, output


class Steps:
    """Training steps of a tiny network, on one batch."""

    def __init__(self, tiny: TinyNetwork):
        rng = np.random.default_rng(0)
        sides = ((40, 30), (20, 50))
        records = [
            Record("", rng.integers(0, 256, (*side, 3), np.uint8), labels, rng.integers(0, 4, side, np.uint8))
            for side, labels in zip(sides, LABELS, strict=False)
        ]
        self._arrays, self._optimizer = tiny.arrays, tiny.system.optimizer(tiny.model)
        self._batch = jax.tree.map(lambda *leaves: np.stack(leaves), *(tiny.system.crops(one, rng) for one in records))
        self.step = make_train_step(tiny.graph, self._optimizer, tiny.system.loss, seed=0)

    def start(self, where: jax.Device) -> tuple[TrainState, dict[str, jax.Array]]:
        """State and batch."""
        parameters, batch_stats = self._arrays
        state = TrainState(jnp.int32(0), parameters, batch_stats, self._optimizer.init(parameters))
        return jax.device_put((state, self._batch), where)

    def run(self, where: jax.Device, count: int = 2) -> tuple[TrainState, list[float]]:
        """The state afterwards, and the losses."""
        (state, batch), losses = self.start(where), []
        for _ in range(count):
            state, metrics = self.step(state, batch)
            losses.append(float(metrics["loss"]))
        return jax.device_get(state), losses


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_training_step_of_every_system_learns_what_it_learns_on_the_cpu(name):
    with jax.default_matmul_precision("highest"):
        steps = Steps(network(name))
        (ours, losses), (theirs, expected) = steps.run(device()), steps.run(cpu())
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[0] != losses[1]
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert difference(one, other) < 1e-3


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps(network("classifier"))


def test_training_repeats_itself(steps):
    assert_repeated(*(steps.run(device(), 4)[0] for _ in range(2)))


def test_the_state_of_a_step_is_donated_and_memory_does_not_grow(steps):
    (state, batch), held = steps.start(device()), []
    for _ in range(6):
        before = state
        state, _ = jax.block_until_ready(steps.step(state, batch))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.parameters))
        del before
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))
    assert held[-1] == held[1]
    stats = device().memory_stats()
    if stats is None:
        assert device().platform == "cpu"
    else:
        assert 0 < stats["bytes_in_use"] <= stats["peak_bytes_in_use"] <= stats["bytes_limit"]


def test_a_run_that_was_stopped_goes_on_where_it_was(program, recipe, trained, tmp_path):
    saved, real = [], CheckpointWriter.save

    def save(*given, **options):
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt
        return real(*given, **options)

    words = ("train.py", recipe, "--workdir", tmp_path / "run", "--stages", "classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save)
        assert program(*words).code == 130
    assert program(*words).code == 0
    assert_repeated(stored_checkpoint(tmp_path / "run", 6), stored_checkpoint(trained, 6))


# Whole programs


def assert_are_maps_like(folder, other, within: float):
    files = sorted((other / "maps").glob("*.npz"))
    assert len(files) == 24
    for file in files:
        ours, theirs = arrays_of(folder / "maps" / file.name), arrays_of(file)
        for method in ("cam", "lpcam_f", "lpcam"):
            assert difference(ours[method], theirs[method]) < within, (file.name, method)


def test_maps_of_infer_are_those_of_a_computer_without_the_device(trained, mapped, start_program, tmp_path):
    process = start_program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", JAX_PLATFORMS="cpu")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert_are_maps_like(mapped.directory, tmp_path / "out", 0.05)


def test_maps_in_bfloat16_are_close_to_those_in_float32(program, trained, mapped, tmp_path):
    words = ("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--inference.precision", "bfloat16")
    assert program(*words).code == 0
    assert_are_maps_like(tmp_path / "out", mapped.directory, 0.1)


def test_memory_that_is_full_is_one_line_and_then_goes_on(capsys):
    def main():
        jax.device_put(jnp.zeros(1 << 46, np.uint8, device=device())).block_until_ready()

    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert end.value.code == 2
    assert re.fullmatch(r"error: the memory is full \(.*\); train with a smaller .*\n", capsys.readouterr().err)
    assert float(jnp.ones(8, device=device()).sum()) == 8
