"""Files of Swin transformers: the names and the orders of every code base, and one line about what does not fit."""

import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.machine.errors import UserError

CONFIG = SwinConfig(dim=4, depths=(2, 1, 3, 1), head_dim=2, mlp_ratio=2, window=3)
WITH_NORMS = replace(CONFIG, stage_norms=True)


@cache
def network(config):
    """What a loader is given: the shapes of the whole classifier."""
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    return {"backbone": nnx.to_pure_dict(nnx.state(model, nnx.Param)), "head": np.zeros((32, 2))}


def microsoft(config=CONFIG):
    """A state dict with Microsoft's names, every number another."""
    shapes = {"patch_embed.proj.weight": (config.dim, 3, 4, 4), "patch_embed.proj.bias": (config.dim,)}
    shapes |= {f"patch_embed.norm.{kind}": (config.dim,) for kind in ("weight", "bias")}
    for stage, depth in enumerate(config.depths):
        dim = config.dim * 2**stage
        block = {
            **{f"norm{i}.{kind}": (dim,) for i in (1, 2) for kind in ("weight", "bias")},
            "attn.relative_position_bias_table": ((2 * config.window - 1) ** 2, dim // config.head_dim),
            "attn.qkv.weight": (3 * dim, dim),
            "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
            "mlp.fc1.weight": (config.mlp_ratio * dim, dim),
            "mlp.fc1.bias": (config.mlp_ratio * dim,),
            "mlp.fc2.weight": (dim, config.mlp_ratio * dim),
            "mlp.fc2.bias": (dim,),
        }
        for number in range(depth):
            shapes |= {f"layers.{stage}.blocks.{number}.{name}": shape for name, shape in block.items()}
        if stage < 3:
            merge = {"reduction.weight": (2 * dim, 4 * dim), "norm.weight": (4 * dim,), "norm.bias": (4 * dim,)}
            shapes |= {f"layers.{stage}.downsample.{name}": shape for name, shape in merge.items()}
    shapes |= {"norm.weight": (8 * config.dim,), "norm.bias": (8 * config.dim,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def renamed(arrays, *pairs):
    for theirs, other in pairs:
        arrays = {re.sub(theirs, other, name): array for name, array in arrays.items()}
    return arrays


def timm():
    """What merges belongs to the stage that it makes."""
    return renamed(
        microsoft(), *((rf"layers\.{stage}\.downsample", f"layers.{stage + 1}.downsample") for stage in (2, 1, 0))
    )


def transformers():
    arrays = renamed(
        microsoft(),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^patch_embed\.norm", "embeddings.norm"),
        (r"^norm\.", "layernorm."),
        (r"norm1\.", "layernorm_before."),
        (r"norm2\.", "layernorm_after."),
        (r"attn\.relative", "attention.self.relative"),
        (r"attn\.proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
        (r"^layers\.", "encoder.layers."),
        (r"^", "swin."),
    )
    for name in [name for name in arrays if ".attn.qkv." in name]:
        parts = np.split(arrays.pop(name), 3)
        names = (name.replace("attn.qkv", f"attention.self.{part}") for part in ("query", "key", "value"))
        arrays |= dict(zip(names, parts, strict=True))
    return arrays


def newer_transformers():
    """As its fifth version names them in memory; in files it has the names of before."""
    return renamed(
        transformers(),
        (r"self\.relative_position_bias_table", "relative_position_bias.relative_position_bias_table"),
        (r"self\.(\w)(uery|ey|alue)", r"\1_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    )


def mmsegmentation(norms=()):
    """Four values of each channel side by side where positions are merged."""
    arrays = microsoft()
    for name in [name for name in arrays if ".downsample." in name]:
        values = arrays[name]
        four = values.reshape(*values.shape[:-1], 2, 2, -1)  # column, row, channel
        arrays[name] = np.moveaxis(four.swapaxes(-3, -2), -1, -3).reshape(values.shape)
    arrays = renamed(
        arrays,
        (r"^norm\.", "norm3."),
        (r"^layers\.", "stages."),
        (r"patch_embed\.proj", "patch_embed.projection"),
        (r"\.attn\.", ".attn.w_msa."),
        (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"),
    )
    arrays |= {f"norm{stage}.{kind}": array for stage, array in enumerate(norms) for kind in ("weight", "bias")}
    return renamed(arrays, (r"^", "backbone."))


BUFFERS = {"layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), np.int64)}
BUFFERS["layers.0.blocks.1.attn_mask"] = np.zeros((4, 9, 9), np.float32)
# The file -> what else it holds.
ORIGINS = {
    "Microsoft": (microsoft(), BUFFERS | {"head.weight": np.ones((2, 32))}),
    "of a module": (renamed(microsoft(), (r"^", "module.")), {}),
    "timm": (timm(), {"head.fc.weight": np.ones((2, 32))}),
    "transformers": (transformers(), {"classifier.weight": np.ones((2, 32))}),
    "transformers, in memory": (newer_transformers(), {"hidden_states_norms.stage1.weight": np.ones(4)}),
    "mmsegmentation": (
        mmsegmentation(),
        {"backbone.norm0.weight": np.ones(4), "decode_head.conv_seg.weight": np.ones((2, 4, 1, 1))},
    ),
}


def load(path, arrays, config=CONFIG):
    np.savez(path, **arrays)
    return config.load(path, network(config))


def refusal(path, arrays, config=CONFIG):
    with pytest.raises(UserError) as caught:
        load(path, arrays, config)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{path} ")


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_code_base_has_its_names(tmp_path, origin):
    arrays, others = ORIGINS[origin]
    expected = load(tmp_path / "microsoft.npz", microsoft())
    found = load(tmp_path / "theirs.npz", arrays | others)
    assert jax.tree.map(np.shape, found.backbone) == jax.tree.map(np.shape, network(CONFIG)["backbone"])
    jax.tree.map(np.testing.assert_array_equal, found.network, expected.network)
    assert (found.loaded, found.skipped, found.new) == (len(arrays), tuple(others), {"head": ""})


def test_every_number_is_in_its_place(tmp_path):
    arrays = microsoft()
    loaded = load(tmp_path / "w.npz", arrays).backbone
    block, name = loaded["stage3"]["blocks"][2], "layers.2.blocks.2"
    np.testing.assert_array_equal(block["fc1"]["kernel"], arrays[f"{name}.mlp.fc1.weight"].T)
    np.testing.assert_array_equal(block["attention"]["positions"], arrays[f"{name}.attn.relative_position_bias_table"])
    np.testing.assert_array_equal(loaded["stage4"]["norm"]["bias"], arrays["norm.bias"])
    # The second row, first column and third channel of a patch, for the last feature.
    weight = loaded["embedding"]["patches"]["kernel"].reshape(4, 4, 3, 4)[1, 0, 2, 3]
    assert weight == arrays["patch_embed.proj.weight"][3, 2, 1, 0]
    # Of the positions of stage 2 that are merged to one of stage 3, the one below the first; the sixth of 8 channels.
    merge = loaded["stage3"]["merge"]
    assert (
        merge["norm"]["bias"].reshape(2, 2, 8)[1, 0, 5] == arrays["layers.1.downsample.norm.bias"].reshape(4, 8)[1, 5]
    )
    below = merge["reduction"]["kernel"].reshape(2, 2, 8, 16)[1, 0, 5]
    np.testing.assert_array_equal(below, arrays["layers.1.downsample.reduction.weight"].reshape(16, 4, 8)[:, 1, 5])


def test_mmsegmentation_unfolds_what_it_merges():
    """The order of channels, as torch has it."""
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(1, 5, 2, 2)).astype(np.float32)  # channel, row, column
    unfolded = torch.nn.Unfold(2, stride=2)(torch.from_numpy(maps))[0, :, 0].numpy()
    arrays = {name: array for name, array in mmsegmentation().items() if ".0.downsample.norm.weight" in name}
    np.testing.assert_array_equal(unfolded, maps[0].reshape(-1), "channels, then rows, then columns")
    [theirs] = arrays.values()
    by_position = microsoft()["layers.0.downsample.norm.weight"].reshape(2, 2, 4)  # column, row, channel
    np.testing.assert_array_equal(theirs.reshape(4, 2, 2), by_position.transpose(2, 1, 0))


def test_norms_of_all_stages_are_loaded_or_new(tmp_path):
    norms = [np.full(4 * 2**stage, stage + 2, np.float32) for stage in range(3)]
    loaded = load(tmp_path / "w.npz", mmsegmentation(norms), WITH_NORMS)
    assert (loaded.skipped, loaded.new) == ((), {"head": ""})
    assert [loaded.backbone[f"stage{stage}"]["norm"]["scale"][0] for stage in (1, 2, 3)] == [2, 3, 4]
    loaded = load(tmp_path / "w.npz", microsoft(), WITH_NORMS)
    assert loaded.skipped == ("norm.weight", "norm.bias")
    assert list(loaded.new) == [*(f"stage{stage}'s norm" for stage in (1, 2, 3, 4)), "head"]
    for stage in (1, 2, 3, 4):
        norm = loaded.backbone[f"stage{stage}"]["norm"]
        np.testing.assert_array_equal(norm["scale"], np.ones(2 * 2**stage, np.float32))
        np.testing.assert_array_equal(norm["bias"], np.zeros(2 * 2**stage, np.float32))
    assert str(loaded).endswith("stage4's norm new: the file has none, 1 new (head)")


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (replace(CONFIG, dim=8, head_dim=4), "--model.dim 4 --model.head-dim 2"),
        (replace(CONFIG, depths=(2, 2, 6, 2)), "--model.depths 2 1 3 1"),
        (replace(CONFIG, window=7), "--model.window 3"),
        (replace(CONFIG, mlp_ratio=4), "--model.mlp-ratio 2"),
    ],
)
def test_another_size_is_told_with_its_flags(tmp_path, config, flags):
    assert refusal(tmp_path / "w.npz", microsoft(), config) == f"holds another Swin transformer: use {flags}."


def test_the_flags_of_a_network():
    flags = "--model.dim 4 --model.depths 2 1 3 1 --model.head-dim 2 --model.mlp-ratio 2 --model.window 3"
    assert WITH_NORMS.flags() == f"--model.backbone swin {flags}"


TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers.0.blocks.1.mlp.fc1.bias": np.zeros(9)}, "backbone: layers.0.blocks.1.mlp.fc1.bias has shape (9,), n"),
        ({"norm.bias": np.full(32, np.inf)}, "backbone: norm.bias holds values that are not finite."),
        ({"layers.3.blocks.0.attn.q_norm.weight": np.ones(2)}, "is no place for layers.3.blocks.0.attn.q_norm.weight."),
        ({"absolute_pos_embed": np.ones((1, 9, 4))}, "there is no place for absolute_pos_embed."),
        ({"layers.3.downsample.norm.bias": np.ones(128)}, "there is no place for layers.3.downsample.norm.bias."),
        (
            {"patch_embed.proj.weight": np.ones((4, 3, 2, 2))},
            "of patches of 4x4 in RGB: patch_embed.proj.weight has sh",
        ),
        (
            {TABLE: np.ones((24, 2))},
            f"another kind of Swin transformer: here there are a table of the relative positions "
            f"in a square window for heads that divide 4 channels ({TABLE} has shape (24, 2)), and two layers",
        ),
        ({TABLE: np.ones((16, 2))}, "relative_position_bias_table has shape (16, 2))"),
        ({TABLE: np.ones((25, 3))}, "relative_position_bias_table has shape (25, 3))"),
        ({"layers.0.blocks.0.mlp.fc1.weight": np.ones((9, 4))}, "(layers.0.blocks.0.mlp.fc1.weight has shape (9, 4))"),
        ({"teacher.patch_embed.proj.weight": np.ones((4, 3, 4, 4))}, "holds 2 backbones (patch_embed.proj.weight, tea"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_named(tmp_path, change, said):
    assert said in refusal(tmp_path / "w.npz", microsoft() | change)


def test_what_is_missing_is_named(tmp_path):
    file, arrays = tmp_path / "w.npz", microsoft()
    del arrays["layers.1.downsample.norm.bias"]
    assert refusal(file, arrays) == "does not hold this backbone: layers.1.downsample.norm.bias is missing."
    version_two = {name: array for name, array in microsoft().items() if "bias_table" not in name}
    assert "relative_position_bias_table has shape none" in refusal(file, version_two)
    assert refusal(file, {"conv1.weight": np.ones(3)}) == (
        "holds no Swin transformer with the names of Microsoft, timm, transformers or mmsegmentation: among its 1 "
        "entries (conv1.weight, ...) is no patch_embed.proj.weight."
    )
