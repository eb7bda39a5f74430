"""UperNet: windows, levels, decay, schedule, loss, crops, files; test_upernet_parity.py has its numbers."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_networks import (
    BACKBONES,
    Random,
    image_of,
    network,
    padded,
    random_arrays,
    relative_difference,
    split,
)

from lpcam_jax.backbones.layers.drops import channel_dropout
from lpcam_jax.backbones.layers.pooling import adaptive_pool
from lpcam_jax.backbones.weights.fill import Loaded
from lpcam_jax.config import Data
from lpcam_jax.data.records import Record, Subset
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.segmentation.losses import cross_entropy
from lpcam_jax.systems.upernet import training
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetTraining
from lpcam_jax.systems.upernet.network import build_upernet
from lpcam_jax.systems.upernet.training import varied_crops
from lpcam_jax.systems.upernet.weights import load_upernet
from lpcam_jax.training.optimizers import Group, poly
from lpcam_jax.training.run import Job, Run

SWIN = "upernet"


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_windows_cover_the_valid_region_and_overlap_where_it_does_not_divide(bins):
    rng, sizes = np.random.default_rng(0), ((7, 5), (1, 8), (6, 6))
    x = rng.normal(size=(len(sizes), 7, 8, 2)).astype(np.float32)
    pool = jax.jit(adaptive_pool, static_argnums=2)
    pooled = np.asarray(pool(x, np.int32(sizes), bins))
    assert pooled.shape == (len(sizes), bins, bins, 2)
    for picture, means, (height, width) in zip(x, pooled, sizes, strict=True):
        for row, column in np.ndindex(bins, bins):
            rows = slice(row * height // bins, -(-(row + 1) * height // bins))
            columns = slice(column * width // bins, -(-(column + 1) * width // bins))
            np.testing.assert_allclose(means[row, column], picture[rows, columns].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(pool(x[:1, :7, :5], None, bins), pooled[:1], atol=1e-6)


def test_dropout_is_of_whole_channels_of_a_picture():
    x = np.random.default_rng(0).uniform(1, 2, (40, 3, 2, 50)).astype(np.float32)
    dropped = np.asarray(channel_dropout(jax.random.key(0), x, rate=0.1))
    kept = dropped[:, 0, 0] != 0
    np.testing.assert_allclose(dropped, np.where(kept[:, None, None], x / 0.9, 0), rtol=1e-6)
    assert 0.85 < kept.mean() < 0.95
    assert len(np.unique(kept, axis=0)) == len(kept)


@pytest.mark.parametrize("name", ["resnet", "vgg16", "wideresnet38", "vit", "swin"])
def test_logits_are_four_pixels_apart_on_any_backbone(name):
    """On a vision transformer, too, whose patches are sixteen apart."""
    config = UperNetConfig(model=BACKBONES[name].config, head=UperNetHead(width=4, auxiliary_width=4))
    model = nnx.eval_shape(lambda: build_upernet(config, 3))
    graph, arrays = nnx.split(model)
    logits = jax.eval_shape(lambda arrays, images: nnx.merge(graph, arrays)(images), arrays, np.zeros((2, 64, 97, 3)))
    assert (logits.shape, logits.dtype) == ((2, 16, 28 if name == "vit" else 25, 3), np.float32)


def test_levels_of_a_vision_transformer_are_those_of_the_picture_alone():
    config = UperNetConfig(model=BACKBONES["vit"].config, head=UperNetHead(width=4, auxiliary_width=4))
    graph, trees = split(nnx.eval_shape(lambda: build_upernet(config, 3)))
    net = Random(graph, trees, lambda model, images, sizes: model.levels(images, sizes))
    size = (33, 70)
    levels, grids = net(*padded((size,), (48, 96)))
    expected, _ = net(image_of(size)[None], None)
    for x, alone, grid in zip(levels, expected, grids, strict=True):
        assert tuple(grid[0]) == alone.shape[1:3]
        assert relative_difference(x[:, : grid[0, 0], : grid[0, 1]], alone) < 1e-5
        assert not x[:, grid[0, 0] :].any()
        assert not x[:, :, grid[0, 1] :].any()
    assert [tuple(grid[0]) for grid in grids] == [(12, 20), (6, 10), (3, 5), (2, 3)]


# Optimizer


def test_what_has_no_decay():
    net = network(SWIN)
    optimizer = net.system.optimizer(net.model)
    training = net.config.training
    ones = jax.tree.map(np.ones_like, net.parameters)
    nothing = jax.tree.map(np.zeros_like, ones)
    updates = jax.jit(lambda: optimizer.update(nothing, optimizer.init(ones), ones)[0])()
    decayed = {path for path, leaf in jax.tree_util.tree_leaves_with_path(updates) if np.asarray(leaf).any()}
    of = {"/".join(str(entry.key) for entry in path): path for path, _ in jax.tree_util.tree_leaves_with_path(ones)}
    frozen = re.compile("backbone/(" + "|".join(training.frozen) + ")/")
    spared = re.compile(r"backbone/.*(norm\d?/(scale|bias)|positions)$")
    assert decayed == {path for name, path in of.items() if not frozen.match(name) and not spared.match(name)}
    for name in ("backbone/stage4/blocks/0/fc1/bias", "head/fusion/bn/scale", "classifier/bias"):
        assert of[name] in decayed
    for name in ("backbone/stage4/norm/scale", "backbone/stage4/blocks/0/attention/positions"):
        assert of[name] not in decayed


def test_the_rate_of_every_step():
    steps, warm_up = 50, 15
    settings = SimpleNamespace(optimizer="sgd", learning_rate=6e-5, momentum=0.0, power=1.0)
    optimizer = poly(settings, steps=steps, warm_up=warm_up)(Group(1.0, 0.0))

    def step(state, _):
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        return state, -update

    _, rates = jax.lax.scan(step, optimizer.init(jnp.zeros(())), length=steps)
    expected = [6e-5 * (1 - i / steps) * (1 - (1 - min(i / warm_up, 1)) * (1 - 1e-6)) for i in range(steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert np.argmax(rates) == warm_up


def test_all_pixels_or_the_labelled_ones():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 6, 5, 4)).astype(np.float32), rng.choice([0, 1, 2, 3, 255], (2, 6, 5))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, np.where(labels == 255, 0, labels))
    total, labelled = np.asarray(losses)[labels != 255].sum(), (labels != 255).sum()
    assert float(cross_entropy(logits, labels, over="all")) == pytest.approx(total / labels.size, rel=1e-6)
    assert float(cross_entropy(logits, labels, over="labelled")) == pytest.approx(total / labelled, rel=1e-6)


# Crops


def halves(height: int, width: int) -> Record:
    """Red, of class 1, over blue, of class 2."""
    mask = np.ones((height, width), np.uint8)
    mask[height // 2 :] = 2
    colors = np.uint8([[0, 0, 0], [200, 0, 0], [0, 0, 200]])
    return Record("", colors[mask], np.zeros(2, np.float32), mask)


CROPS = UperNetTraining(crop=32, fit=(40, 160), photometric=False, largest_class=1.0)


def test_a_crop_and_its_mask_show_the_same():
    rng, crops = np.random.default_rng(0), varied_crops(CROPS)
    shown = set()
    for _ in range(60):
        made = crops(halves(30, 50), rng)
        top, left, bottom, right = made["box"]
        assert (top, left) == (0, 0)
        assert made["image"].shape == (32, 32, 3)
        assert (made["mask"][bottom:] == 255).all()
        assert (made["mask"][:, right:] == 255).all()
        assert not made["image"][bottom:].any()
        inside, labels = made["image"][:bottom, :right], made["mask"][:bottom, :right]
        edge = np.abs(np.diff(labels.astype(int), axis=0)).any()
        red = inside[..., 0] > inside[..., 2]
        assert (red == (labels == 1)).all(axis=1).sum() >= bottom - edge  # the row between is both
        shown.add(int(bottom))
    assert max(shown) == 32  # the factor goes from a half to two
    assert 20 <= min(shown) < 30


def test_pictures_that_are_not_fitted_are_no_larger_than_in_inference(monkeypatch):
    """`data.longest` holds in training and in inference."""
    monkeypatch.setattr(training, "train", lambda job, plan: plan)
    for fit, side in ((None, 50), ((40, 160), max(Shapes(2).size(0)))):
        config = UperNetConfig(data=Data(source="shapes", scenes=2, longest=50), training=replace(CROPS, fit=fit))
        run = Run(Path("run"), config, Shapes(2).class_names)
        plan = training.train_upernet(Job(run, None), Shapes(2), Subset(Shapes(2), []))
        assert max(plan.pictures[0].image.shape) == max(plan.pictures[0].mask.shape) == side


def test_a_record_without_a_mask_is_not_labelled():
    made = varied_crops(CROPS)(halves(30, 50)._replace(mask=None), np.random.default_rng(0))
    assert (made["mask"] == 255).all()


def test_colours_change_and_labels_do_not():
    crops = [varied_crops(replace(CROPS, photometric=on)) for on in (False, True)]
    plain, changed = (of(halves(30, 50), np.random.default_rng(3)) for of in crops)
    np.testing.assert_array_equal(plain["mask"], changed["mask"])
    assert (plain["image"] != changed["image"]).any()


# Files

CONFIG = network(SWIN).config


def mmsegmentation(path: tuple) -> str:
    """The name of a leaf of the heads."""
    name = "/".join(str(entry.key) for entry in path)
    for ours, theirs in {
        "head/windows/(.)/": r"decode_head.psp_modules.\1.1.",
        "head/whole/": "decode_head.bottleneck.",
        "head/laterals/(.)/": r"decode_head.lateral_convs.\1.",
        "head/smoothing/(.)/": r"decode_head.fpn_convs.\1.",
        "head/fusion/": "decode_head.fpn_bottleneck.",
        "^classifier/": "decode_head.conv_seg.",
        "^auxiliary/": "auxiliary_head.convs.0.",
        "^auxiliary_classifier/": "auxiliary_head.conv_seg.",
        "/": ".",
        "kernel|scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
    }.items():
        name = re.sub(ours, theirs, name)
    return name


@pytest.fixture(scope="module")
def whole():
    """A network's arrays as nested dicts, statistics included; and those of its heads in a file of mmsegmentation."""
    model = nnx.eval_shape(lambda: build_upernet(CONFIG, 4))
    tree = random_arrays(nnx.to_pure_dict(nnx.state(model)))
    heads = {part: values for part, values in tree.items() if part != "backbone"}
    arrays = {
        mmsegmentation(path): np.transpose(leaf, (3, 2, 0, 1)) if leaf.ndim == 4 else leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(heads)
    }
    return tree, arrays


def loaded_from(arrays, network, tmp_path, monkeypatch):
    """Only the heads: what a backbone reads is tested with it."""
    np.savez(tmp_path / "w.npz", **arrays)
    config = replace(CONFIG, model=replace(CONFIG.model, weights=str(tmp_path / "w.npz")))
    new = {part: "" for part in network if part != "backbone"}
    monkeypatch.setattr(type(config.model), "load", lambda *_: Loaded({"backbone": {}}, 7, tuple(arrays), new))
    return load_upernet(config, network)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_heads_of_mmsegmentation(whole, tmp_path, monkeypatch, prefix):
    tree, arrays = whole
    assert {"decode_head.psp_modules.3.1.bn.running_var", "auxiliary_head.convs.0.conv.weight"} <= arrays.keys()
    file = {prefix + name: array for name, array in arrays.items()}
    loaded = loaded_from(file, tree, tmp_path, monkeypatch)
    assert (loaded.loaded, loaded.skipped, loaded.new) == (7 + len(arrays), (), {})
    for part, values in loaded.network.items():
        if part != "backbone":
            jax.tree.map(np.testing.assert_array_equal, values, tree[part])


def test_classifiers_of_other_classes_are_new(whole, tmp_path, monkeypatch):
    tree, arrays = whole
    others = {
        name: np.zeros((150, *array.shape[1:]), np.float32) if "conv_seg" in name else array
        for name, array in arrays.items()
    }
    loaded = loaded_from(others, tree, tmp_path, monkeypatch)
    assert loaded.network.keys() == {"backbone", "head", "auxiliary"}
    assert "classifier new: the file's has 150 classes, this one 4" in str(loaded)


def test_a_head_of_another_width_is_named(whole, tmp_path, monkeypatch):
    tree, arrays = whole
    wide = arrays | {"decode_head.fpn_bottleneck.conv.weight": np.zeros((16, 64, 3, 3), np.float32)}
    entry, flags = r"decode_head\.fpn_bottleneck\.conv\.weight has shape", "--head.width 16 --head.auxiliary-width 4"
    with pytest.raises(UserError, match=rf"does not hold this head: {entry} .*\. Use {flags}\.$"):
        loaded_from(wide, tree, tmp_path, monkeypatch)


def test_a_backbone_alone(whole, tmp_path, monkeypatch):
    loaded = loaded_from({"fc.weight": np.zeros((3, 2))}, whole[0], tmp_path, monkeypatch)
    assert loaded.network.keys() == {"backbone"}
    assert set(loaded.new) == {"head", "classifier", "auxiliary", "auxiliary_classifier"}


def test_the_default_is_swin_s_with_a_norm_at_every_stage():
    model = UperNetConfig().model
    assert (model.dim, model.depths, model.stage_norms, model.drop_path) == (96, (2, 2, 18, 2), True, 0.3)
    parameters = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build_upernet(UperNetConfig(), 150)), nnx.Param))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))
    assert round(count / 1e6) == 81  # as published, of ADE20K
