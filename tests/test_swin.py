"""LPCAM on a Swin transformer: windows as in the paper, stochastic depth, what decays, and from training to pages."""

import json
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from test_vit import updates_without_gradients
from tiny_networks import SWIN, image_of, network, relative_difference

import lpcam_jax
from lpcam_jax.backbones.layers.drops import drop_path
from lpcam_jax.backbones.layers.pieces import joined, pieces_of
from lpcam_jax.backbones.swin import Attention, SwinConfig
from lpcam_jax.config.recipes import trained_config
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.training.checkpoints import CheckpointWriter
from lpcam_jax.training.loop import first_state
from lpcam_jax.training.run import Run

FLAGS = ("--model.backbone", "swin", "--model.dim", 8, "--model.depths", 1, 2, 1, 2, "--model.head-dim", 4)


def rolled(module: Attention, x: np.ndarray, shift: int) -> np.ndarray:
    """The attention of one map (h, w, d) as the paper has it: zeros to a multiple of the window, a roll, and masks."""
    (h, w, d), m, heads = x.shape, module.window, module.positions.shape[-1]
    lengths = [-(-length // m) * m for length in (h, w)]
    x = np.pad(x, [(0, lengths[0] - h), (0, lengths[1] - w), (0, 0)])
    qkv = x @ np.asarray(module.qkv.kernel[...]) + np.asarray(module.qkv.bias[...])
    regions = np.add.outer(*(10**axis * (np.arange(length) < shift) for axis, length in enumerate(lengths)))
    qkv, regions = (np.roll(array, (-shift, -shift), (0, 1)) for array in (qkv, regions))
    table = np.asarray(module.positions[...]).reshape(2 * m - 1, 2 * m - 1, heads)
    output = np.zeros_like(x)
    for top in range(0, lengths[0], m):
        for left in range(0, lengths[1], m):
            places = [(i, j) for i in range(m) for j in range(m)]
            values = np.array([qkv[top + k, left + n, 2 * d :].reshape(heads, -1) for k, n in places])
            for i, j in places:
                query = qkv[top + i, left + j, :d].reshape(heads, -1)
                logits = np.array(
                    [
                        (query * qkv[top + k, left + n, d : 2 * d].reshape(heads, -1)).sum(-1) * (d // heads) ** -0.5
                        + table[i - k + m - 1, j - n + m - 1]
                        - 100 * (regions[top + i, left + j] != regions[top + k, left + n])
                        for k, n in places
                    ]
                )
                weights = np.exp(logits - logits.max(0))
                output[top + i, left + j] = ((weights / weights.sum(0))[..., None] * values).sum(0).reshape(-1)
    output = np.roll(output, (shift, shift), (0, 1))[:h, :w]
    return output @ np.asarray(module.proj.kernel[...]) + np.asarray(module.proj.bias[...])


@pytest.mark.parametrize(("window", "shift"), [(3, 0), (3, 1), (4, 2)])
def test_windows_are_those_of_the_paper(window, shift):
    """Of maps that windows fill and do not fill, of one window and of many."""
    rng = np.random.default_rng(0)
    module = Attention(8, head_dim=4, window=window, shift=shift, dtype=np.float32, rngs=nnx.Rngs(0))
    for parameter in (module.qkv.kernel, module.qkv.bias, module.positions, module.proj.bias):
        parameter[...] = rng.normal(size=parameter.shape).astype(np.float32)
    sizes = [(1, 2), (4, 4), (6, 7), (8, 3)]
    maps = np.zeros((len(sizes), 9, 8, 8), np.float32)
    for values, (height, width) in zip(maps, sizes, strict=True):
        values[:height, :width] = rng.normal(size=(height, width, 8))
    found = nnx.jit(module)(maps, np.int32(sizes))
    for values, of_picture, (height, width) in zip(maps, found, sizes, strict=True):
        expected = rolled(module, values[:height, :width], shift)
        assert relative_difference(np.asarray(of_picture[:height, :width]), expected) < 1e-5


@pytest.mark.parametrize(("shape", "side", "before"), [((6, 4), 2, 0), ((5, 7), 3, 2), ((1, 2), 4, 3)])
def test_pieces_are_joined_to_the_map(shape, side, before):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    pieces = pieces_of(x, side, before=before)
    np.testing.assert_array_equal(joined(pieces, shape, before=before), x)
    row, column = before // side, before // side
    first = pieces[:, row, column, (before % side) * (side + 1)]
    np.testing.assert_array_equal(first, x[:, 0, 0])
    assert pieces.sum() == pytest.approx(x.sum(), rel=1e-4), "the others are zero"


def test_stochastic_depth_leaves_out_pictures_and_keeps_the_mean():
    x = np.ones((4000, 2, 1), np.float32)
    dropped = np.asarray(drop_path(jax.random.key(0), x, rate=0.25))
    assert (dropped[:, :1] == dropped).all(), "whole pictures"
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert drop_path(None, x, rate=0.25) is x


def test_training_draws_its_depth_and_inference_does_not():
    net = network("classifier, swin")
    images = np.stack([image_of((33, 49))] * 3)

    @jax.jit
    def logits(parameters, key):
        model = nnx.merge(net.graph, parameters, net.batch_stats)
        return model(images, key=key)

    drawn = [np.asarray(logits(net.parameters, jax.random.key(seed))) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert relative_difference(drawn[0], drawn[1]) > 1e-3
    assert relative_difference(drawn[0][0], drawn[0][1]) > 1e-3, "each picture its own"
    first, second, _ = np.asarray(logits(net.parameters, None))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_only_kernels_and_the_head_decay():
    training = LPCAMTraining(optimizer="adamw", learning_rate=0.5, weight_decay=0.1, frozen=("stage2",))
    updates = updates_without_gradients(training, SwinConfig(**SWIN, stage_norms=True))
    assert {path[-1] for path in updates} == {"kernel", "bias", "scale", "positions", "head"}
    for path, update in updates.items():
        decay = {"kernel": -0.05, "head": -0.5}.get(path[-1], 0) if path[1:2] != ("stage2",) else 0
        assert update == pytest.approx(decay, rel=1e-6), path


def test_layers_towards_the_picture_learn_more_slowly():
    """Blocks in order, and what merges positions with the block after it."""
    training = LPCAMTraining(learning_rate=1.0, head_multiplier=1, weight_decay=1.0, frozen=(), layer_decay=0.5)
    updates = updates_without_gradients(training, SwinConfig(**SWIN))
    rates = {path[1:4]: -update for path, update in updates.items() if path[-1] == "kernel" and path[0] == "backbone"}
    blocks = [rates[path] for path in sorted(path for path in rates if path[1] == "blocks")]
    np.testing.assert_allclose(blocks, [2.0**-number for number in range(len(blocks), 0, -1)], rtol=1e-6)
    merges = {path[0]: rate for path, rate in rates.items() if path[1] == "merge"}
    assert merges == {stage: rates[stage, "blocks", 0] for stage in ("stage2", "stage3", "stage4")}


# Programs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model.depths", 2, 2, 6), "--model.depths 2 2 6: give the blocks of four stages, at least 1."),
        (("--model.dim", 10), "--model.dim 10 is no multiple of --model.head-dim 4; change one."),
        (("--model.drop-path", 1), "--model.drop-path is 1; give a share, at least 0 and below 1."),
        (
            ("--training.frozen", "layer1"),
            "--training.frozen layer1: the backbone has no such part; it has embedding, stage1, stage2, stage3, "
            "stage4.",
        ),
    ],
)
def test_bad_flags_are_one_line(recipe, program, tmp_path, words, said):
    finished = program("train.py", recipe, *FLAGS, *words, "--workdir", tmp_path / "run")
    assert (finished.code, finished.err.splitlines()[-1]) == (2, f"error: {said}")


@pytest.mark.rest
def test_lpcam_is_trained_on_it_and_maps_pictures(recipe, program, tmp_path):
    run, out = tmp_path / "run", tmp_path / "maps"
    finished = program("train.py", recipe, *FLAGS, "--model.drop-path", 0.2, "--workdir", run)
    assert finished.code == 0, finished.err
    model = SwinConfig(dim=8, depths=(1, 2, 1, 2), head_dim=4, drop_path=0.2)
    assert Run.open(run).config.model == model
    finished = program("infer.py", "--ckpt", run, "--out", out, "--limit", 6)
    assert finished.code == 0, finished.err
    assert set(json.loads((out / "metrics.json").read_text())["scores"]) == {"cam", "lpcam_f", "lpcam"}
    loaded = lpcam_jax.load(run)
    assert loaded.stride == 32
    assert loaded.features(np.zeros((41, 70, 3), np.uint8)).shape == (2, 3, 64)


def test_a_run_on_its_backbone_takes_over_its_shape_and_draws_no_depth(recipe, tmp_path):
    model = SwinConfig(dim=8, depths=(1, 2, 1, 2), head_dim=4, drop_path=0.2)
    Run.create(tmp_path, LPCAMConfig(model=model), ("cat",))
    words = [recipe, "--model.backbone", "swin", "--model.weights", str(tmp_path), "--workdir", "run"]
    config = trained_config(words)
    assert config.model == replace(model, weights=str(tmp_path), drop_path=0.0)
    assert trained_config(["configs/voc12_upernet.py", *words[1:]]).model.stage_norms, "they are no part of its shape"


@pytest.mark.parametrize("has_norms", [False, True])
def test_norms_of_stages_are_new_where_a_run_has_none_and_left_out_where_it_has(tmp_path, mesh, capsys, has_norms):
    model = SwinConfig(dim=8, depths=(1, 1, 1, 1), head_dim=4)
    run = Run.create(tmp_path / "a", LPCAMConfig(model=replace(model, stage_norms=has_norms)), ("cat",))
    state = first_state(run, optax.identity(), devices=mesh)
    with CheckpointWriter(run) as writer:
        writer.save(0, state)
    other = replace(model, stage_norms=not has_norms, weights=str(tmp_path / "a"))
    other = first_state(Run.create(tmp_path / "b", LPCAMConfig(model=other), ("dog",)), optax.identity(), devices=mesh)
    said = "left out" if has_norms else "new"
    norms = "; ".join(f"stage{n}'s norm is {said}" for n in (1, 2, 3))
    assert f"weights {tmp_path / 'a'}: its backbone; {norms}\n" in capsys.readouterr().out
    ours, theirs = other.parameters["backbone"], state.parameters["backbone"]
    np.testing.assert_array_equal(*(tree["embedding"]["patches"]["kernel"] for tree in (ours, theirs)))
    assert ("norm" in ours["stage1"]) != has_norms
