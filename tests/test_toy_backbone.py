"""A backbone of somebody else moves in: LPCAM is trained on it, and nothing in the package changes."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from toy_backbone import Preact, PreactConfig

import lpcam_jax
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.backbones.layers.norms import BatchNorm, Shift
from lpcam_jax.config import registry
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.systems.lpcam.network import build_classifier
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import initial_state

CLASSES = 3
SIZES = ((64, 96), (33, 17), (1, 50), (47, 96), (64, 3))


@pytest.fixture(scope="module", autouse=True)
def preact():
    """The toy backbone, registered while this module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_BACKBONES", registry._BACKBONES.copy())
        registry.register_backbone("preact", "toy_backbone:PreactConfig")
        yield


@pytest.fixture(scope="module")
def network():
    """Graph, parameters and statistics of a classifier on it, none of them a default."""
    graph, parameters, batch_stats = nnx.split(
        jax.jit(lambda: build_classifier(PreactConfig(), CLASSES))(), nnx.Param, nnx.BatchStat
    )
    rng = np.random.default_rng(0)
    parameters, batch_stats = (
        jax.tree.map(lambda leaf: leaf * rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), nnx.to_pure_dict(state))
        for state in (parameters, batch_stats)
    )
    shift = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), batch_stats)
    batch_stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf, by: leaf + by if path[-1].key == "mean" else leaf, batch_stats, shift
    )
    return graph, parameters, batch_stats


@pytest.fixture(scope="module")
def trained(recipe, program, tmp_path_factory):
    """A finished run of LPCAM on it; look, do not touch."""
    workdir = tmp_path_factory.mktemp("runs") / "preact"
    finished = program("train.py", recipe, "--model.backbone", "preact", "--model.width", 4, "--workdir", workdir)
    assert finished.code == 0, finished.err
    return workdir


def logits_and_features(network):
    graph, *arrays = network

    @jax.jit
    def forward(arrays, images, sizes):
        model = nnx.merge(graph, *arrays)
        features = model.features(images, sizes)
        return features, model.logits(features, sizes)

    return lambda images, sizes: jax.device_get(forward(arrays, images, sizes))


def test_padded_pictures_have_the_features_they_have_alone(network):
    forward, rng = logits_and_features(network), np.random.default_rng(1)
    images = np.zeros((len(SIZES), 64, 96, 3), np.float32)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:height, :width] = rng.normal(size=(height, width, 3))
    features, logits = forward(images, jnp.int32(SIZES))
    for number, (height, width) in enumerate(SIZES):
        alone, of_alone = forward(images[number : number + 1, :height, :width], jnp.int32([SIZES[number]]))
        rows, columns = -(-height // 16), -(-width // 16)
        assert alone.shape[1:3] == (rows, columns)
        np.testing.assert_allclose(features[number, :rows, :columns], alone[0], atol=1e-4 * abs(alone).max())
        np.testing.assert_allclose(logits[number], of_alone[0], atol=1e-4 * abs(of_alone).max())
        assert not features[number, rows:].any()
        assert not features[number, :, columns:].any()


def test_folded_it_computes_the_same_and_a_norm_before_all_convolutions_stays(network):
    images = np.random.default_rng(2).normal(size=(2, 64, 48, 3)).astype(np.float32)
    sizes = jnp.int32([(64, 48), (50, 31)])
    folded = fold_batch_norm(*network)
    model = nnx.merge(*folded)
    assert isinstance(model.backbone.middle.bn1, BatchNorm)
    assert isinstance(model.backbone.middle.bn2, Shift)
    expected, _ = logits_and_features(network)(images, sizes)
    features, _ = logits_and_features(folded)(images, sizes)
    np.testing.assert_allclose(features, expected, atol=1e-5 * abs(expected).max())
    again = fold_batch_norm(*folded)
    np.testing.assert_array_equal(logits_and_features(again)(images, sizes)[0], features)


def test_lpcam_is_trained_on_it_and_its_run_says_so(trained):
    run = Run.open(trained)
    assert run.config.model == PreactConfig(width=4)
    assert json.loads((trained / "config.json").read_text())["config"]["model"]["backbone"] == "preact"


def test_heat_maps_and_the_page_of_prototypes(trained, program, tmp_path):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "maps", "--limit", 6)
    assert finished.code == 0, finished.err
    assert set(json.loads((tmp_path / "maps/metrics.json").read_text())["scores"]) == {"cam", "lpcam_f", "lpcam"}
    page = (tmp_path / "maps/prototypes.html").read_text()
    assert '"floor": -1' in page or '"floor":-1' in page
    grey = [np.asarray(Image.open(file)) for file in (tmp_path / "maps/prototypes/similarity").rglob("*.png")]
    assert min(picture.min() for picture in grey) < 127, "features may be negative, and so may cosines"


def test_a_notebook_loads_it(trained):
    model = lpcam_jax.load(trained)
    picture = np.random.default_rng(3).integers(0, 255, (40, 70, 3), np.uint8)
    assert model.stride == 16
    assert model.features(picture).shape == (3, 5, 16)
    assert model(picture).maps["lpcam"].shape[:2] == (40, 70)


def test_parts_that_it_does_not_have_are_one_line(recipe, program, tmp_path):
    words = ("--model.backbone", "preact", "--training.frozen", "layer1", "--workdir", tmp_path / "run")
    finished = program("train.py", recipe, *words)
    assert (finished.code, finished.err.splitlines()[-1]) == (
        2,
        "error: --training.frozen layer1: the backbone has no such part; it has stem, fine, middle, coarse.",
    )


def test_a_backbone_that_nobody_registered_is_one_line(recipe, program, tmp_path):
    finished = program("train.py", recipe, "--model.backbone", "unknown", "--workdir", tmp_path / "run")
    assert finished.code == 2
    assert f"no 'unknown' among the backbones; there are {', '.join(registry.backbones())}." in finished.err


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_every_block_can_start_as_its_shortcut(batch_norm):
    """As it does where statistics that nobody measured are not moved."""
    config = LPCAMConfig(model=PreactConfig(), training=LPCAMTraining(batch_norm=batch_norm))
    state = jax.jit(partial(initial_state, config, CLASSES, optax.identity()))()
    for stage in Preact.stages:
        block = state.parameters["backbone"][stage]
        assert block["conv2"]["kernel"].any() == (batch_norm == "train")
        assert block["conv1"]["kernel"].any()


def test_the_features_of_every_stage_are_described(network):
    model = nnx.merge(*network)
    backbone: Preact = model.backbone
    outputs = backbone(jnp.zeros((1, 32, 48, 3)))
    assert [output.shape[-1] for output in outputs] == list(backbone.channels)
    assert [output.shape[1] for output in outputs] == [32 // stride for stride in backbone.strides]
