"""Segmentation networks on any backbone: configs, heads, and runs."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY, stored_checkpoint
from flax import nnx
from PIL import Image
from test_commands import assert_one_line_error
from tiny_networks import CLASSES

import lpcam_jax
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.commands.evaluate import Arguments
from lpcam_jax.config import registry
from lpcam_jax.config.recipes import load_recipe, parse_with_recipe
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabTraining, headed
from lpcam_jax.systems.deeplab.large_fov import LargeFOV
from lpcam_jax.systems.deeplab.network import DeepLabV2, build_deeplab
from lpcam_jax.systems.deeplab.training import deeplab_optimizer
from lpcam_jax.training.run import Run

TINY = {
    "resnet": {"blocks": (1, 1, 1, 1), "width": 4},
    "vit": {"dim": 16, "depth": 4, "head_dim": 8},
    "swin": {"dim": 8, "depths": (1, 1, 1, 1), "head_dim": 4},
}
IMAGES = np.zeros((1, 72, 40, 3), np.float32)


def model_of(backbone: str, head: str):
    """A tiny network's config."""
    return headed(backbone)(head=head, head_width=8, **TINY.get(backbone, {"width": 4}))


@pytest.mark.parametrize("backbone", registry.backbones())
@pytest.mark.parametrize("head", ["deeplabv2", "largefov"])
def test_every_backbone_has_a_head(backbone, head):
    network = nnx.eval_shape(lambda: build_deeplab(model_of(backbone, head), CLASSES))
    logits = nnx.eval_shape(lambda: build_deeplab(model_of(backbone, head), CLASSES)(IMAGES))
    [grid] = network.grid_sizes(np.int32([IMAGES.shape[1:3]]))
    assert logits.shape == (1, *grid, CLASSES)
    reach = {"deeplabv2": 24, "largefov": 12}[head] * 8
    assert max(network.rates) * network.backbone.strides[-1] == reach, "in pixels"


class Drawn(nnx.Module):
    """A backbone whose features are what it draws."""

    strides, channels, draws = (8,), (4,), True

    def __call__(self, images, sizes=None, *, train=False, key=None):
        h, w = images.shape[1] // 8, images.shape[2] // 8
        return (jnp.ones((1, h, w, 4)) * (1 if key is None else jax.random.uniform(key)),)

    def grids(self, sizes):
        return (sizes,)


@pytest.mark.parametrize("head", [DeepLabV2, LargeFOV])
def test_what_a_backbone_draws_is_of_the_key_of_a_training_step(head):
    @jax.jit
    def loss(key):
        network = head(Drawn(), CLASSES, preprocessing=Preprocessing(), rngs=nnx.Rngs(0))
        return network.loss(IMAGES, np.ones(IMAGES.shape[:3], np.uint8), train_backbone=False, dropout_key=key)

    losses = [float(loss(jax.random.key(seed))) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_what_a_transformer_declares_does_not_decay():
    training = DeepLabTraining(optimizer="adamw", learning_rate=0.5, weight_decay=0.1, bias_multiplier=1)
    network = nnx.eval_shape(lambda: build_deeplab(model_of("vit", "largefov"), CLASSES))
    shapes = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    ones, zeros = (
        jax.tree.map(lambda leaf, value=value: np.full(leaf.shape, value, np.float32), shapes) for value in (1, 0)
    )
    optimizer = deeplab_optimizer(training, network)
    updates, _ = jax.jit(lambda: optimizer.update(zeros, optimizer.init(ones), ones))()
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
        if np.asarray(leaf).any()
    }
    assert decayed
    assert all(name.endswith("/kernel") for name in decayed), decayed


def test_a_head_that_needs_a_fine_stage_says_so():
    with pytest.raises(UserError, match=r"deeplabv3plus needs a stage of 4 pixels per position; .* of 16, 16, 16, 16"):
        nnx.eval_shape(lambda: build_deeplab(model_of("vit", "deeplabv3plus"), CLASSES))


@pytest.mark.parametrize("backbone", registry.backbones())
def test_a_config_comes_back_as_it_was(backbone, tmp_path):
    config = DeepLabConfig(model=model_of(backbone, "largefov"))
    Run.create(tmp_path, config, ("cat",))
    opened = Run.open(tmp_path).config
    assert opened == config
    assert (opened.model.backbone, opened.model.head) == (backbone, "largefov")


def test_a_recipe_keeps_its_head_on_another_backbone(segmentation_recipe):
    words = (segmentation_recipe, "--model.backbone", "vgg16", "--model.width", "2", "--predictions", "p", "--out", "o")
    config, _ = parse_with_recipe(Arguments, words, command="evaluate", description="")
    recipe = load_recipe(segmentation_recipe)
    assert (config.model.backbone, config.model.width, config.model.mean) == ("vgg16", 2, headed("vgg16")().mean)
    assert (config.model.head, config.model.head_width) == (recipe.model.head, recipe.model.head_width)
    assert config.training == recipe.training


def test_a_head_that_does_not_fit_is_one_line(program, segmentation_recipe, tmp_path):
    vit = ("--model.backbone", "vit", "--model.dim", 16, "--model.depth", 4, "--model.head-dim", 8)
    finished = program("train.py", segmentation_recipe, *vit, "--training.frozen", "--workdir", tmp_path / "run")
    assert_one_line_error(finished, "--model.head deeplabv3plus needs a stage of 4 pixels per position")


@pytest.mark.rest
def test_the_recipe_of_mctformer_s_network_on_own_pictures(program, tmp_path):
    """It is trained, goes on from where it was, and segments pictures as a loaded run does."""
    small = ("--data.source", "shapes", "--data.scenes", 6, "--data.validation", "all[5:]", "--data.train", "all[:5]")
    small += ("--data.seeds", "all", "--model.width", 1, "--model.head-width", 4, "--training.crop", 65)
    small += ("--inference.scales", 0.5, 0.75, "--inference.max-shapes", 1, "--training.checkpoint-every", 1)
    words = ("train.py", REPOSITORY / "configs" / "voc12_deeplab_wrn38.py", *small, "--training.steps", 2)
    finished = program(*words, "--workdir", tmp_path / "run")
    assert finished.code == 0, finished.err
    whole = stored_checkpoint(tmp_path / "run", 2)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    finished = program(*words, "--workdir", tmp_path / "run")
    assert finished.code == 0, finished.err
    jax.tree.map(np.testing.assert_array_equal, stored_checkpoint(tmp_path / "run", 2), whole)

    config, images = Run.open(tmp_path / "run").config, [scene.image for scene in Shapes(3, seed=1)]
    assert (config.inference.fusion, config.inference.crf, config.training.scaling) == ("maximum", "mctformer", "batch")
    for number, image in enumerate(images):
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "mine" / f"{number}.png")
    words = ("infer.py", "--ckpt", tmp_path / "run", "--out", tmp_path / "masks", "--images", tmp_path / "mine")
    finished = program(*words)
    assert finished.code == 0, finished.err
    protocol = json.loads((tmp_path / "masks" / "protocol.json").read_text())
    assert (protocol["fusion"], protocol["crf"]) == ("maximum", "mctformer")
    assert (tmp_path / "masks" / "index.html").is_file()
    for number, result in enumerate(lpcam_jax.load(tmp_path / "run")(images)):
        with Image.open(tmp_path / "masks" / "masks" / f"{number}.png") as mask:
            np.testing.assert_array_equal(result.mask, np.array(mask))
