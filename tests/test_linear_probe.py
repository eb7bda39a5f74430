"""A linear probe: the head trained alone on features that were computed once."""

import shutil
from itertools import count

import jax
import numpy as np
import pytest
from conftest import stored_checkpoint
from test_commands import assert_one_line_error

import lpcam_jax
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.systems.lpcam import linear_probe
from lpcam_jax.training import loop
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

STEPS = 6


@pytest.fixture(scope="module")
def words(trained, tiny_runs) -> list:
    """Of train.py, for a linear probe on the backbone of the finished run; --workdir is missing."""
    weights = ("--model.weights", trained, "--training.frozen", "all", "--training.batch-norm", "frozen")
    return [*tiny_runs.words("classifier"), *weights, "--stages", "classifier"]


@pytest.fixture(scope="module")
def probe(words, program, tmp_path_factory):
    """The finished run, and what was printed."""
    workdir = tmp_path_factory.mktemp("probe") / "run"
    finished = program(*words, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir, finished


def test_every_picture_is_computed_once_and_only_the_head_is_trained(probe, trained):
    workdir, finished = probe
    lines = finished.err.split("\n")  # a bar may draw its last state twice, but ends its line once
    assert sum("pooled features: 100%" in line for line in lines) == 1
    assert sum("validation: 100%" in line for line in lines) == 1
    before, after = (stored_checkpoint(run, STEPS) for run in (trained, workdir))
    for part in ("parameters", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, after[part]["backbone"], before[part]["backbone"])
    assert (after["parameters"]["head"] != before["parameters"]["head"]).any()


def test_a_stopped_probe_goes_on_to_the_same_bits(probe, words, program, monkeypatch, tmp_path):
    real = loop.training_batches

    def stopping(*arguments, start, **options):
        for step, batch in zip(count(start + 1), real(*arguments, start=start, **options)):
            if step == STEPS // 2 + 1:
                raise KeyboardInterrupt
            yield batch

    command = (*words, "--workdir", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_batches", stopping)
        assert program(*command).code == 130
    assert Run.open(tmp_path / "run").steps() == [2]
    assert program(*command).code == 0
    found, expected = (stored_checkpoint(run, STEPS) for run in (tmp_path / "run", probe[0]))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_pooled_features_give_the_logits_of_the_classifier(trained, mesh):
    """Of pictures of any size: so training, validation and maps see the same."""
    run, scenes = Run.open(trained), Shapes(5)
    state = trained_state(run, devices=mesh)
    pooled = linear_probe.pooled(run.config, state, scenes, description="pooled features")
    np.testing.assert_array_equal(pooled.labels, scenes.labels)
    scores = pooled.features.mean(axis=1) @ np.asarray(state.parameters["head"])
    model = lpcam_jax.load(trained)
    for index, row in enumerate(scores):
        probabilities = model(scenes[index].image).probabilities
        np.testing.assert_allclose(1 / (1 + np.exp(-row)), list(probabilities.values()), atol=1e-4)


def test_features_at_another_scale_are_another_training(probe, words, program, tmp_path):
    workdir = shutil.copytree(probe[0], tmp_path / "run")
    finished = program(*words, "--workdir", workdir, "--inference.scales", 0.5, 1)
    assert_one_line_error(finished, r"other settings \(first of inference.scales 1.0 -> 0.5\)")
    assert program(*words, "--workdir", workdir, "--inference.scales", 1, 2).code == 0
