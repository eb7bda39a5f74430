"""LPCAM on a vision transformer: from training to pages, what is trained and what decays, and bad flags in one line."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import stored_checkpoint
from flax import nnx
from tiny_networks import VIT

import lpcam_jax
from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.backbones.vit import attention
from lpcam_jax.machine.devices import portable
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.irn.network import build_irnet
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.systems.lpcam.training import classifier_optimizer
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import graph_of, network_of

FLAGS = ("--model.backbone", "vit", "--model.patch", 8, "--model.dim", 16, "--model.depth", 4, "--model.head-dim", 8)
CLASSES = 3


@pytest.fixture(scope="module")
def trained(recipe, program, tmp_path_factory):
    """A finished run, and what was printed; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "vit"
    words = ("--training.batch-norm", "frozen", "--model.layer-scale")
    finished = program("train.py", recipe, *FLAGS, *words, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir, finished


def test_lpcam_is_trained_on_it(trained):
    workdir, finished = trained
    model = ViTConfig(patch=8, dim=16, depth=4, head_dim=8, layer_scale=True)
    assert Run.open(workdir).config.model == model
    assert "dry run" not in finished.out + finished.err, "it has no batch norm that could be frozen"


def test_heat_maps_and_the_page_of_prototypes(trained, program, tmp_path):
    finished = program("infer.py", "--ckpt", trained[0], "--out", tmp_path / "maps", "--limit", 6)
    assert finished.code == 0, finished.err
    assert set(json.loads((tmp_path / "maps/metrics.json").read_text())["scores"]) == {"cam", "lpcam_f", "lpcam"}
    page = (tmp_path / "maps/prototypes.html").read_text()
    assert '"floor": -1' in page or '"floor":-1' in page, "features may be negative"


def test_a_notebook_loads_it(trained):
    model = lpcam_jax.load(trained[0])
    picture = np.random.default_rng(3).integers(0, 255, (41, 70, 3), np.uint8)
    assert model.stride == 8
    assert model.features(picture).shape == (6, 9, 16)
    assert model(picture).maps["lpcam"].shape[:2] == (41, 70)


def test_another_run_starts_with_its_backbone_and_its_flags(trained, recipe, program, tmp_path):
    words = ("--model.weights", trained[0], "--training.frozen", "all", "--workdir", tmp_path / "run")
    finished = program("train.py", recipe, "--model.backbone", "vit", *words, "--stages", "classifier")
    assert finished.code == 0, finished.err
    assert Run.open(tmp_path / "run").config.model == replace(
        Run.open(trained[0]).config.model, weights=str(trained[0])
    )
    before, after = (stored_checkpoint(run, 6)["parameters"] for run in (trained[0], tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, after["backbone"], before["backbone"])
    assert (after["head"] != before["head"]).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model.depth", 3), "--model.depth is 3; use at least 4."),
        (("--model.dim", 20), "--model.dim 20 is no multiple of --model.head-dim 8; change one."),
        (
            ("--training.frozen", "conv1"),
            "--training.frozen conv1: the backbone has no such part; it has embedding, blocks1, blocks2, blocks3, "
            "blocks4.",
        ),
    ],
)
def test_bad_flags_are_one_line(recipe, program, tmp_path, words, said):
    finished = program("train.py", recipe, *FLAGS, *words, "--workdir", tmp_path / "run")
    assert (finished.code, finished.err.splitlines()[-1]) == (2, f"error: {said}")


def test_irn_needs_finer_stages():
    with pytest.raises(UserError, match=r"one or two stages of stride 4, .*; this one's strides are 8, 8, 8, 8. Give"):
        nnx.eval_shape(lambda: build_irnet(ViTConfig(**VIT, patch=8)))


def updates_without_gradients(training: LPCAMTraining, model: ViTConfig) -> dict[tuple, float]:
    """The first update of every parameter, all of which are one, if no gradient asks for any."""
    config = LPCAMConfig(model=model, training=training)
    optimizer = classifier_optimizer(training, network_of(config, CLASSES), steps=10)
    _, shapes, _ = graph_of(config, CLASSES)
    ones, zeros = (
        jax.tree.map(lambda leaf, value=value: np.full(leaf.shape, value, np.float32), shapes) for value in (1, 0)
    )
    updates, _ = jax.jit(lambda: optimizer.update(zeros, optimizer.init(ones), ones))()
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(updates))
    return {tuple(entry.key for entry in path): float(leaf.flat[0]) for path, leaf in leaves}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_kernels_and_the_head_decay(optimizer):
    training = LPCAMTraining(optimizer=optimizer, learning_rate=0.5, head_multiplier=3, weight_decay=0.1, frozen=())
    model = ViTConfig(**VIT, layer_scale=True, pre_norm=True)
    updates = updates_without_gradients(training, model)
    kinds = {path[-1] for path in updates}
    assert kinds == {"kernel", "bias", "scale", "gamma1", "gamma2", "tokens", "positions", "head"}
    for path, update in updates.items():
        decay = {"kernel": -0.05, "head": -0.15}.get(path[-1], 0)
        assert update == pytest.approx(decay, rel=1e-6), path
    frozen = updates_without_gradients(replace(training, frozen=("blocks2",)), model)
    assert {path[1] for path, update in frozen.items() if path[-1] == "kernel" and not update} == {"blocks2"}


def test_layers_towards_the_picture_learn_more_slowly():
    training = LPCAMTraining(learning_rate=1.0, head_multiplier=1, weight_decay=1.0, frozen=(), layer_decay=0.5)
    updates = updates_without_gradients(training, ViTConfig(**VIT | {"depth": 5}))
    rates = {path[1:4]: -update for path, update in updates.items() if path[-1] == "kernel" and "qkv" in path}
    blocks = [rates[place] for place in sorted(rates)]
    assert len(blocks) == 5
    np.testing.assert_allclose(blocks, [2.0**-number for number in (5, 4, 3, 2, 1)], rtol=1e-6)
    patches = next(-update for path, update in updates.items() if "patches" in path and path[-1] == "kernel")
    assert patches == pytest.approx(2.0**-6)
    assert -updates["head",] == pytest.approx(1)
    frozen = updates_without_gradients(replace(training, frozen=("embedding", "blocks1")), ViTConfig(**VIT))
    assert {path[1] for path, update in frozen.items() if path[-1] == "kernel" and not update} == {
        "embedding",
        "blocks1",
    }


def test_attention_is_the_same_on_other_devices():
    """Traced for CPUs, and in the form for all."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 9, 3, 4)).astype(np.float32) for _ in range(3)]
    attended = rng.random((2, 1, 1, 9)) < 0.6
    for mask in (attended, None):
        here = jax.jit(lambda *arrays, mask=mask: attention(*arrays, mask))(*arrays)
        with portable():
            anywhere = jax.jit(lambda *arrays, mask=mask: attention(*arrays, mask))(*arrays)
        np.testing.assert_allclose(here, anywhere, atol=1e-6)
        hidden = [arrays[0], *(np.where(attended.reshape(2, 9, 1, 1), x, 7) for x in arrays[1:])]
        same = jax.jit(lambda *arrays, mask=mask: attention(*arrays, mask))(*hidden)
        assert np.allclose(here, same, atol=1e-6) == (mask is not None)


def test_all_parts_can_be_frozen():
    training = LPCAMTraining(weight_decay=0.1, frozen=("all",))
    updates = updates_without_gradients(training, ViTConfig(**VIT))
    assert [path for path, update in updates.items() if update] == [("head",)]
