"""Training the classifier: what a step does, and that damage never changes or loses a result.

That a run which was stopped ends with the same bits: test_program_contract.py.
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import HANGS, stored_checkpoint
from flax import nnx
from test_commands import assert_one_line_error

from lpcam_jax.data.sources import seed_source, training_sources
from lpcam_jax.inference.forward import Network
from lpcam_jax.machine.devices import replicate
from lpcam_jax.machine.errors import UserError
from lpcam_jax.prototypes import Prototypes
from lpcam_jax.systems.lpcam import training as classification
from lpcam_jax.systems.lpcam.clustering_stage import make_prototypes
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.systems.lpcam.training import classification_loss, classifier_optimizer
from lpcam_jax.systems.prototyping.stored_prototypes import has_prototypes, load_prototypes
from lpcam_jax.training import loop
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.log import MetricsLog
from lpcam_jax.training.run import Job, Run
from lpcam_jax.training.state import graph_of, initial_state, network_of, trained_state
from lpcam_jax.training.step import make_train_step

CLASSES = 6


class Stop(Exception):
    """Stands for whatever ends a program early."""


def train(directory, config: LPCAMConfig, mesh) -> TrainState:
    sources = training_sources(config, masks=False)
    return classification.train_classifier(Job(Run.create(directory, config, sources[0].class_names), mesh), *sources)


def used_at(directory, step: int, mesh) -> TrainState:
    """What the checkpoint of a step computes with."""
    run = Run.open(directory)
    run.steps = lambda: [step]
    return trained_state(run, devices=mesh)


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def any_differs(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def prototypes_of(directory) -> dict[str, np.ndarray]:
    with np.load(directory / "prototypes.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def batches(monkeypatch):
    """`batches.change = (step, function)`: the function is applied to the batch of that step."""

    class Changed:
        change = (0, None)

    real = loop.training_batches

    def changed(*arguments, start, **options):
        for step, batch in zip(count(start + 1), real(*arguments, start=start, **options)):
            at, function = Changed.change
            yield function(batch) if step == at else batch

    monkeypatch.setattr(loop, "training_batches", changed)
    return Changed


def stop(batch):
    raise Stop


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize(("pool", "how"), [("ceil", "less"), ("symmetric_ceil", "more")])
def test_a_grid_that_would_displace_the_maps_is_refused(program, recipe, tmp_path, pool, how):
    finished = program("train.py", recipe, "--model.stem-pool", pool, "--workdir", tmp_path / "run")
    assert_one_line_error(finished, f"{pool}: with this pool some grids have a position {how} than a heat map takes")


@pytest.mark.parametrize("text", ['{"model_type": "resnet", "class_names": ["cat"]}', "[1, 2]", "no JSON", ""])
def test_a_config_of_another_program_is_not_written_over(program, recipe, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    finished = program("train.py", recipe, "--workdir", tmp_path)
    assert_one_line_error(finished, r"config\.json is not of this program; choose another --workdir")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("config.json", text)]


# Continuing.


@pytest.mark.rest
def test_a_run_that_was_stopped_in_its_last_validation_has_the_whole_log(tiny, trained, mesh, monkeypatch, tmp_path):
    real, numbers = Network.run, count(1)
    monkeypatch.setattr(Network, "run", lambda *a, **k: stop(a) if next(numbers) == 3 else real(*a, **k))
    with pytest.raises(Stop):
        train(tmp_path, tiny, mesh)
    monkeypatch.undo()
    train(tmp_path, tiny, mesh)
    assert (tmp_path / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()


def test_processes_that_see_another_disk_say_so_before_they_begin(program, recipe, tmp_path, monkeypatch):
    def with_a_late_disk(values):
        [pictures, steps] = values
        return [values, [pictures, [*steps, 7]]]  # of the second process

    monkeypatch.setattr(loop.processes, "gather_values", with_a_late_disk)
    finished = program("train.py", recipe, "--workdir", tmp_path / "run")
    assert_one_line_error(finished, "the processes do not see the same pictures or the same checkpoints")
    assert not (tmp_path / "run" / "pictures.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_whoever_is_asked_to_stop_saves_first(program, recipe, batches, trained, tmp_path, number, code):
    before = signal.getsignal(number)
    batches.change = (3, lambda batch: os.kill(os.getpid(), number) or batch)
    stopped = program("train.py", recipe, "--workdir", tmp_path)
    assert (stopped.code, stopped.err.splitlines()[-1]) == (code, "stopped; the same command continues where it was.")
    assert signal.getsignal(number) == before
    assert Run.open(tmp_path).steps()[-1] == 3, "checkpoint_every is 2"
    batches.change = (0, None)
    assert program("train.py", recipe, "--workdir", tmp_path).code == 0
    assert (tmp_path / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()
    for ours, theirs in zip(*(prototypes_of(run).values() for run in (tmp_path, trained)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_whoever_is_asked_to_stop_in_the_last_step_makes_no_prototypes(program, recipe, batches, trained, tmp_path):
    batches.change = (6, lambda batch: os.kill(os.getpid(), signal.SIGTERM) or batch)
    assert program("train.py", recipe, "--workdir", tmp_path).code == 143
    assert Run.open(tmp_path).steps()[-1] == 6
    assert not (tmp_path / "prototypes.npz").exists()
    assert (tmp_path / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()


def test_the_terminal_may_be_gone_when_a_program_is_asked_to_stop(start_program, recipe, tmp_path):
    """Ctrl-C ends `| tee`, too, and nobody reads what is said then."""
    never = ("--training.epochs", 10**4, "--training.checkpoint-every", 10**5)
    process = start_program("train.py", recipe, "--workdir", tmp_path, *never)
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=HANGS) == 130
    assert len(Run.open(tmp_path).steps()) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_the_prototypes(tiny, trained, copy, mesh, seed):
    (copy / "prototypes.npz").unlink()
    run = Run(copy, replace(tiny, seed=seed), Run.open(trained).class_names)
    make_prototypes(Job(run, mesh), seed_source(tiny))
    centres, other = prototypes_of(copy)["class_centres"], prototypes_of(trained)["class_centres"]
    assert np.array_equal(centres, other) == (seed == 0)


def test_a_loss_that_is_not_finite_names_its_step_and_leaves_the_checkpoints(program, recipe, batches, tmp_path):
    batches.change = (4, lambda batch: batch | {"labels": batch["labels"] * np.float32("nan")})
    finished = program("train.py", recipe, "--workdir", tmp_path)
    assert finished.code == 2
    message = finished.err.splitlines()[-1]
    assert message.startswith("error: the loss is nan at step 4; lower --training.learning-rate")
    assert message.endswith("(checkpoints up to step 2 are intact).")
    assert Run.open(tmp_path).steps() == [2]
    assert stored_checkpoint(tmp_path, 2)["step"] == 2


def test_parameters_that_are_not_finite_are_no_checkpoint(tiny, mesh, tmp_path):
    """Those after the last step have no loss that would tell."""
    run = Run.create(tmp_path / "run", replace(tiny, training=replace(tiny.training, checkpoint_every=2)), ("cat",))
    state = replicate(TrainState(jnp.zeros((), jnp.int32), {"w": jnp.ones(3)}, {}, (), None), mesh)

    def step(state, batch):
        w = state.parameters["w"] * jnp.where(state.step == 3, jnp.nan, 1)
        return state._replace(step=state.step + 1, parameters={"w": w}), {"loss": jnp.float32(1)}

    batches = (batch for batch in repeat({"image": np.zeros((8, 1), np.uint8)}))
    options = {"validation": None, "description": "training", "unit": "img", "devices": mesh}
    with pytest.raises(UserError, match=r"parameters are not finite at step 4; .* up to step 2 are intact"):
        loop.run_steps(run, state, step, lambda start: batches, steps=4, **options)
    assert run.steps() == [2]


def test_other_settings_in_the_same_workdir_are_named(tiny, copy):
    changed = replace(tiny, training=replace(tiny.training, epochs=9), model=replace(tiny.model, width=8), seed=3)
    names = Run.open(copy).class_names
    with pytest.raises(UserError, match=r"\(model.width 4 -> 8, training.epochs 3 -> 9, seed\)"):
        Run.create(copy, changed, names)
    with pytest.raises(UserError, match=r"\(class names\)"):
        Run.create(copy, tiny, names[:-1])
    assert Run.open(copy).config == tiny


def test_other_prototype_settings_make_only_the_prototypes_again(program, recipe, copy):
    kept = {path: path.stat().st_mtime_ns for path in copy.glob("checkpoints/**/*")}
    metrics = (copy / "metrics.jsonl").read_text()
    finished = program("train.py", recipe, "--workdir", copy, "--prototypes.clusters", 2)
    assert finished.code == 0, finished.err
    assert prototypes_of(copy)["class_centres"].shape[1] == 2
    assert kept == {path: path.stat().st_mtime_ns for path in copy.glob("checkpoints/**/*")}
    assert metrics == (copy / "metrics.jsonl").read_text()


# Damage.


@pytest.mark.parametrize("change", ["class count", "width", "depth"])
def test_a_checkpoint_of_another_model_is_one_line(copy, mesh, change):
    values = json.loads((copy / "config.json").read_text())
    if change == "class count":
        values["class_names"].append("walrus")
    elif change == "width":
        values["config"]["model"]["width"] = 8
    else:
        values["config"]["model"]["blocks"] = [1, 1, 1, 2]
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is of another model: .* has shape") as error:
        trained_state(Run.open(copy), devices=mesh)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_one_line_and_the_one_before_still_works(trained, copy, mesh, no_loose_ends):
    newest = copy / "checkpoints" / "6"
    for path in (newest / "default" / "d").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        UserError, match=r"delete the folder .*/checkpoints/6 to fall back to the one of step 4, or"
    ) as error:
        trained_state(Run.open(copy), devices=mesh)
    assert "\n" not in str(error.value)
    shutil.rmtree(newest)
    assert_same_bits(trained_state(Run.open(copy), devices=mesh), used_at(trained, 4, mesh))


@pytest.mark.rest
def test_no_damage_that_matters_goes_unnoticed_without_checksums(trained, copy, mesh, no_loose_ends):
    whole = trained_state(Run.open(trained), devices=mesh)
    (copy / "checkpoints" / "6" / "checksums.json").unlink()  # as after a kill at the wrong moment
    for path in (copy / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            with contextlib.suppress(UserError):  # none: a file that is not needed
                assert_same_bits(trained_state(Run.open(copy), devices=mesh), whole)
            gc.collect(1)
            path.write_bytes(content)


def test_damaged_prototypes_are_one_line_and_are_made_again(program, recipe, trained, copy):
    file = copy / "prototypes.npz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"prototypes.npz cannot be read .* --stages prototypes") as error:
        load_prototypes(Run.open(copy))
    assert "\n" not in str(error.value)
    assert program("train.py", recipe, "--workdir", copy, "--stages", "prototypes").code == 0
    assert_same_bits(prototypes_of(copy), prototypes_of(trained))


def test_prototypes_of_an_older_checkpoint_are_refused(copy):
    shutil.rmtree(copy / "checkpoints" / "6")
    with pytest.raises(UserError, match="are of step 6, not of its checkpoint"):
        load_prototypes(Run.open(copy))


def test_prototypes_of_another_network_at_the_same_step_are_made_again(program, recipe, trained, mesh, tmp_path):
    words = ("train.py", recipe, "--workdir", tmp_path / "run", "--training.learning-rate", 0.02)
    assert program(*words).code == 0
    own = prototypes_of(tmp_path / "run")
    shutil.copy(trained / "prototypes.npz", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    with pytest.raises(UserError, match=r"are of another network than its checkpoint; run train\.py .*prototypes\."):
        load_prototypes(run)
    with pytest.raises(UserError, match="of another network"):
        load_prototypes(run, trained_state(run, devices=mesh))
    assert program(*words).code == 0
    assert_same_bits(prototypes_of(tmp_path / "run"), own)


# Former versions did not say of which network prototypes are.
CHANGES = {
    "of nine classes": (lambda array: np.concatenate([array, array[:3]]), "are of 9 classes, and it has 6; run train"),
    "of fewer channels": (lambda array: array[..., :40] if array.ndim == 3 else array, "of 6 classes and 40 channels"),
    "of shapes that do not belong together": (
        lambda array: array[:, :2] if array.dtype == bool else array,
        r"cannot be read \(class_mask of shape \(6, 2\) beside centres of shape \(6, 3, 128\)\); delete it",
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_prototypes_that_do_not_fit_the_network_are_one_line(program, copy, tmp_path, how):
    change, line = CHANGES[how]
    before = prototypes_of(copy)
    before.pop("network")
    names = Prototypes._fields
    np.savez(copy / "prototypes.npz", **{k: change(array) if k in names else array for k, array in before.items()})
    assert_one_line_error(program("infer.py", "--ckpt", copy, "--out", tmp_path / "out", "--limit", 1), line)


def test_prototypes_of_a_former_version_are_taken_as_they_are(trained, copy):
    before = prototypes_of(copy)
    before.pop("network")
    np.savez(copy / "prototypes.npz", **before)
    run = Run.open(copy)
    assert_same_bits(load_prototypes(run), load_prototypes(Run.open(trained)))
    assert has_prototypes(run, str(before["pictures"]))


def test_a_packed_run_has_the_prototypes_of_its_network(program, trained, tmp_path):
    out = tmp_path / "packed"
    assert program("lpcam_jax.__main__", "export", "--format", "hub", "--ckpt", trained, "--out", out).code == 0
    assert_same_bits(load_prototypes(Run.open(out)), load_prototypes(Run.open(trained)))


# The log.


def test_the_log_drops_what_came_after_the_checkpoint_and_a_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": 0.4}', '{"step": 3, "loss": 0.3}', '{"step": 4, "lo']
    path.write_text("\n".join(lines))
    with MetricsLog(path, start=2) as log:
        log.write({"step": 3, "loss": 0.25})
    assert path.read_text().splitlines() == [*lines[:2], '{"step": 3, "loss": 0.25}']


# A step.


def test_two_sgd_steps_by_hand():
    training = LPCAMTraining(learning_rate=0.1, head_multiplier=10, weight_decay=0.01, momentum=0.5, power=0.9)
    network = SimpleNamespace(backbone=SimpleNamespace(parts=("conv1", "layer1"), stem=("conv1",)))
    optimizer = classifier_optimizer(replace(training, frozen=("stem",)), network, steps=4)
    parameters = {"backbone": {"conv1": jnp.array([1.0]), "layer1": jnp.array([2.0])}, "head": jnp.array([3.0])}
    gradients = [[0.5, 0.5, 0.5], [-1.0, -1.0, 0.25]]

    state, structure = optimizer.init(parameters), jax.tree.structure(parameters)
    for values in gradients:
        tree = jax.tree.unflatten(structure, [jnp.array([value]) for value in values])
        updates, state = optimizer.update(tree, state, parameters)
        parameters = optax.apply_updates(parameters, updates)

    expected = []
    for value, rate, k in ((2.0, 0.1, 1), (3.0, 1.0, 2)):
        trace = 0.0
        for step in range(2):
            trace = gradients[step][k] + 0.01 * value + 0.5 * trace
            value -= rate * (1 - step / 4) ** 0.9 * trace
        expected.append(value)
    assert parameters["backbone"]["conv1"] == 1.0
    np.testing.assert_allclose([*parameters["backbone"]["layer1"], *parameters["head"]], expected, rtol=1e-6)


FROZEN = ("conv1", "bn1", "layer1")


@pytest.fixture(scope="module")
def start(tiny) -> TrainState:
    """Step 0 of the tiny recipe."""
    return jax.jit(partial(initial_state, tiny, CLASSES, optax.identity()))()


@pytest.fixture(scope="module")
def one_step(tiny, start):
    """A batch, the state after one step with frozen parts and statistics, and the step's metrics."""
    graph, *_ = graph_of(tiny, CLASSES)
    optimizer = classifier_optimizer(replace(tiny.training, frozen=FROZEN), network_of(tiny, CLASSES), steps=10)
    step = make_train_step(graph, optimizer, classification_loss(train_batch_norm=False), seed=0)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "box": np.array([[0, 0, 32, 32]] * 4, np.int32),
        "labels": rng.integers(0, 2, (4, CLASSES)).astype(np.float32),
    }
    state = jax.tree.map(jnp.copy, start)._replace(opt_state=optimizer.init(start.parameters))
    return batch, *step(state, batch)


def test_frozen_parts_and_statistics_do_not_change_and_the_others_do(start, one_step):
    _, end, _ = one_step
    assert int(end.step) == 1
    assert_same_bits(end.batch_stats, start.batch_stats)
    before, after = start.parameters["backbone"], end.parameters["backbone"]
    for part in before:
        assert any_differs(after[part], before[part]) == (part not in FROZEN), part
    assert any_differs(end.parameters["head"], start.parameters["head"])


def test_training_batch_norm_changes_the_statistics(start, trained, mesh):
    before, after = start.batch_stats["backbone"], used_at(trained, 6, mesh).batch_stats["backbone"]
    for part in before:
        assert any_differs(after[part], before[part]), part


def test_the_loss_is_the_multilabel_soft_margin(tiny, start, one_step):
    batch, _, metrics = one_step
    model = nnx.merge(graph_of(tiny, CLASSES)[0], start.parameters, start.batch_stats)
    images = (batch["image"] - np.float32(tiny.model.mean)[None, None, None]) / np.float32(tiny.model.std)
    x, y = np.asarray(jax.jit(lambda images: model(images))(images), np.float64), batch["labels"]
    probability = 1 / (1 + np.exp(-x))
    expected = -(y * np.log(probability) + (1 - y) * np.log(1 - probability)).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
