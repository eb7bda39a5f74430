"""Files of vision transformers: the names of every code base, and one line about what does not fit."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.machine.errors import UserError

CONFIG = ViTConfig(patch=2, dim=4, depth=5, head_dim=2, mlp_ratio=2, position_grid=3)
NETWORK_OF_HEAD = {"head": np.zeros((4, 2))}


def network(config):
    """What a loader is given: the shapes of the whole classifier."""
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    return {"backbone": nnx.to_pure_dict(nnx.state(model, nnx.Param)), **NETWORK_OF_HEAD}


def in_timm(config=CONFIG, *, registers=0, distilled=False):
    """A state dict with timm's names, every number another."""
    dim, inner, patch = config.dim, config.mlp_ratio * config.dim, config.patch
    singles = 1 + distilled
    shapes = {
        "cls_token": (1, 1, dim),
        **({"dist_token": (1, 1, dim)} if distilled else {}),
        **({"reg_token": (1, registers, dim)} if registers else {}),
        "pos_embed": (1, singles + config.position_grid**2, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    if config.pre_norm:
        del shapes["patch_embed.proj.bias"]
        shapes |= {"norm_pre.weight": (dim,), "norm_pre.bias": (dim,)}
    for number in range(config.depth):
        block = {
            **{f"norm{i}.{kind}": (dim,) for i in (1, 2) for kind in ("weight", "bias")},
            "attn.qkv.weight": (3 * dim, dim),
            "attn.qkv.bias": (3 * dim,),
            "attn.proj.weight": (dim, dim),
            "attn.proj.bias": (dim,),
            "mlp.fc1.weight": (inner, dim),
            "mlp.fc1.bias": (inner,),
            "mlp.fc2.weight": (dim, inner),
            "mlp.fc2.bias": (dim,),
            **({f"ls{i}.gamma": (dim,) for i in (1, 2)} if config.layer_scale else {}),
        }
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def renamed(arrays, names, blocks, in_blocks):
    """Under other names: of entries, of what stands before a block's number, and inside of blocks."""
    others = {}
    for name, array in arrays.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)", name):
            number, module, kind = match.groups()
            others[f"{blocks}.{number}.{in_blocks[module, kind]}"] = array
        else:
            module, dot, kind = name.rpartition(".")
            others[names.get(name) or f"{names[module]}{dot}{kind}"] = array
    return others


def of_modules(modules, scales=None):
    """For `renamed`: the names of weights and biases from those of modules."""
    names = {(ours, kind): f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    return names | {(ours, "gamma"): theirs for ours, theirs in (scales or {}).items()}


def split_in_three(arrays, names):
    """Query, key and value as entries of their own."""
    for name in [name for name in arrays if ".THREE." in name]:
        parts = np.split(arrays.pop(name), 3)
        arrays |= {name.replace("THREE", part): values for part, values in zip(names, parts, strict=True)}
    return arrays


def in_clip(config=CONFIG):
    arrays = in_timm(config)
    arrays["cls_token"], arrays["pos_embed"] = arrays["cls_token"][0, 0], arrays["pos_embed"][0]
    blocks = of_modules({"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc"})
    blocks |= of_modules({"mlp.fc2": "mlp.c_proj"})
    blocks |= {("attn.qkv", "weight"): "attn.in_proj_weight", ("attn.qkv", "bias"): "attn.in_proj_bias"}
    names = {
        "cls_token": "visual.class_embedding",
        "pos_embed": "visual.positional_embedding",
        "patch_embed.proj": "visual.conv1",
        "norm_pre": "visual.ln_pre",
        "norm": "visual.ln_post",
    }
    others = renamed(arrays, names, "visual.transformer.resblocks", blocks)
    text = {"transformer.resblocks.0.ln_1.weight": np.ones(8), "positional_embedding": np.ones((7, 8))}
    return others | text | {"visual.proj": np.ones((4, 2)), "token_embedding.weight": np.ones((9, 8))}


IN_TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}


def in_transformers_vit(config=CONFIG, **options):
    modules = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.qkv": "attention.attention.THREE",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    names = {ours: f"deit.{theirs}" for ours, theirs in IN_TRANSFORMERS.items()}
    arrays = renamed(in_timm(config, **options), names, "deit.encoder.layer", of_modules(modules))
    others = {"classifier.weight": np.ones((3, 4)), "deit.pooler.dense.weight": np.ones((4, 4))}
    return split_in_three(arrays, ("query", "key", "value")) | others


def in_transformers_memory(**options):
    """As its fifth version names a ViT in memory; in files it has the names of before."""
    names = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    arrays = in_transformers_vit(**options)
    for theirs, newer in names.items():
        arrays = {name.replace(theirs, newer): array for name, array in arrays.items()}
    return arrays


def in_transformers_dinov2(config=CONFIG, **options):
    modules = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.qkv": "attention.attention.THREE",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    blocks = of_modules(modules, {"ls1": "layer_scale1.lambda1", "ls2": "layer_scale2.lambda1"})
    arrays = renamed(in_timm(config, **options), IN_TRANSFORMERS, "encoder.layer", blocks)
    return split_in_three(arrays, ("query", "key", "value")) | {"embeddings.mask_token": np.ones((1, 4))}


def in_transformers_clip(config=CONFIG):
    arrays = in_timm(config)
    arrays["cls_token"], arrays["pos_embed"] = arrays["cls_token"][0, 0], arrays["pos_embed"][0]
    modules = {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.THREE",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    names = {
        "cls_token": "vision_model.embeddings.class_embedding",
        "pos_embed": "vision_model.embeddings.position_embedding.weight",
        "patch_embed.proj": "vision_model.embeddings.patch_embedding",
        "norm_pre": "vision_model.pre_layrnorm",
        "norm": "vision_model.post_layernorm",
    }
    arrays = renamed(arrays, names, "vision_model.encoder.layers", of_modules(modules))
    text = {"text_model.embeddings.position_embedding.weight": np.ones((7, 8))}
    text["text_model.encoder.layers.0.layer_norm1.weight"] = np.ones(8)
    return split_in_three(arrays, ("q_proj", "k_proj", "v_proj")) | text


CLIP = replace(CONFIG, pre_norm=True)
DINOV2 = replace(CONFIG, layer_scale=True)
REGISTERS = replace(DINOV2, tokens=5)


def in_dinov2(arrays):
    arrays["register_tokens"] = arrays.pop("reg_token")
    return arrays | {"mask_token": np.ones((1, 4))}


# config -> timm's state dict, and the same under other names.
ORIGINS = {
    "DeiT, DINO": (CONFIG, in_timm(), in_timm() | {"head.weight": np.ones((3, 4))}),
    "of a module": (CONFIG, in_timm(), {f"module.{name}": array for name, array in in_timm().items()}),
    "DINOv2": (REGISTERS, in_timm(DINOV2, registers=4), in_dinov2(in_timm(DINOV2, registers=4))),
    "CLIP": (CLIP, in_timm(CLIP), in_clip(CLIP)),
    "transformers, ViT": (CONFIG, in_timm(), in_transformers_vit()),
    "transformers, DeiT": (
        replace(CONFIG, tokens=2),
        in_timm(distilled=True),
        in_transformers_vit(distilled=True),
    ),
    "transformers, in memory": (CONFIG, in_timm(), in_transformers_memory()),
    "transformers, DINOv2": (DINOV2, in_timm(DINOV2), in_transformers_dinov2(DINOV2)),
    "transformers, DINOv2 with registers": (
        REGISTERS,
        in_timm(DINOV2, registers=4),
        in_transformers_dinov2(DINOV2, registers=4),
    ),
    "transformers, CLIP": (CLIP, in_timm(CLIP), in_transformers_clip(CLIP)),
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
    config, plain, arrays = ORIGINS[origin]
    expected = load(tmp_path / "timm.npz", plain, config)
    found = load(tmp_path / "theirs.npz", arrays, config)
    assert expected.skipped == ()
    assert expected.loaded == len(plain)
    jax.tree.map(np.testing.assert_array_equal, found.network, expected.network)
    # What timm has no name for is not of the backbone, and said to be skipped.
    others = [name for name in arrays if re.search(r"^head|mask|text|token_embedding|visual.proj|^transf|^posi", name)]
    others += [name for name in arrays if re.search("classifier|pooler", name)]
    assert sorted(found.skipped) == sorted(others)
    assert found.loaded == len(arrays) - len(others)
    assert found.new == {"head": ""}


@pytest.mark.parametrize("config", [CONFIG, CLIP, REGISTERS], ids=["DeiT", "CLIP", "DINOv2"])
def test_every_number_is_in_its_place(tmp_path, config):
    arrays = in_timm(config, registers=config.tokens - 1)
    loaded = load(tmp_path / "w.npz", arrays, config).backbone
    shapes = network(config)["backbone"]
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, shapes)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))
    positions = arrays["pos_embed"][0]
    np.testing.assert_array_equal(loaded["embedding"]["positions"], positions[1:].reshape(3, 3, 4))
    np.testing.assert_array_equal(loaded["embedding"]["tokens"][0], arrays["cls_token"][0, 0] + positions[0])
    # The second row, first column and third channel of a patch, for the last feature.
    weight = loaded["embedding"]["patches"]["kernel"].reshape(2, 2, 3, 4)[1, 0, 2, 3]
    assert weight == arrays["patch_embed.proj.weight"][3, 2, 1, 0]
    # Of five blocks, the last stage has two.
    last = loaded["blocks4"]["blocks"][1]
    np.testing.assert_array_equal(last["qkv"]["kernel"], arrays["blocks.4.attn.qkv.weight"].T)
    np.testing.assert_array_equal(last["norm2"]["scale"], arrays["blocks.4.norm2.weight"])
    np.testing.assert_array_equal(loaded["blocks4"]["norm"]["bias"], arrays["norm.bias"])


def test_positions_without_those_of_tokens(tmp_path):
    """As timm stores networks with registers."""
    arrays = in_timm(DINOV2, registers=4)
    expected = load(tmp_path / "w.npz", arrays, REGISTERS)
    arrays["cls_token"] = arrays["cls_token"] + arrays["pos_embed"][:, :1]
    arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    found = load(tmp_path / "w.npz", arrays, REGISTERS)
    jax.tree.map(np.testing.assert_array_equal, found.network, expected.network)


def test_safetensors_in_half_precision(tmp_path):
    arrays = {name: array.astype(np.float16) for name, array in in_timm().items()}
    save_file(arrays, tmp_path / "w.safetensors")
    loaded = CONFIG.load(tmp_path / "w.safetensors", network(CONFIG))
    np.testing.assert_array_equal(loaded.backbone["blocks4"]["norm"]["scale"], arrays["norm.weight"].astype("f4"))
    assert str(loaded) == f"{len(arrays)} entries loaded, 0 skipped, 1 new (head)"


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (replace(CONFIG, patch=4), "--model.patch 2"),
        (replace(CONFIG, dim=8, mlp_ratio=1), "--model.dim 4 --model.mlp-ratio 2"),
        (replace(CONFIG, depth=12), "--model.depth 5"),
        (replace(CONFIG, tokens=2), "--model.tokens 1"),
        (replace(CONFIG, position_grid=14), "--model.position-grid 3"),
        (replace(CONFIG, layer_scale=True, pre_norm=True), "--model.no-layer-scale --model.no-pre-norm"),
    ],
)
def test_another_size_is_told_with_its_flags(tmp_path, config, flags):
    assert refusal(tmp_path / "w.npz", in_timm(), config) == f"holds another vision transformer: use {flags}."


def test_the_flags_of_a_file_fit(tmp_path):
    said = refusal(tmp_path / "w.npz", in_dinov2(in_timm(DINOV2, registers=4)), ViTConfig())
    flags = "--model.patch 2 --model.dim 4 --model.depth 5 --model.mlp-ratio 2 --model.tokens 5 "
    assert said.endswith(f"use {flags}--model.position-grid 3 --model.layer-scale.")
    assert REGISTERS.flags() == (
        f"--model.backbone vit {flags}--model.position-grid 3 --model.layer-scale --model.no-pre-norm "
        "--model.final-norm"
    )


def without(arrays, *patterns):
    return {name: array for name, array in arrays.items() if not any(re.search(pattern, name) for pattern in patterns)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"blocks.1.mlp.fc1.bias": np.zeros(9)},
            "does not hold this backbone: blocks.1.mlp.fc1.bias has shape (9,), n",
        ),
        ({"norm.bias": np.array([0, np.inf, 0, 0])}, "backbone: norm.bias holds values that are not finite."),
        ({"norm.bias": np.array(["a"] * 4)}, "backbone: norm.bias holds <U1 instead of numbers."),
        ({"blocks.2.attn.q_norm.weight": np.ones(2)}, "there is no place for blocks.2.attn.q_norm.weight."),
        ({"blocks.0.attn.relative_position_bias_table": np.ones(2)}, "blocks.0.attn.relative_position_bias_table."),
        ({"reg_token": np.ones((1, 4, 4))}, "use --model.tokens 5."),
        (
            {"pos_embed": np.ones((1, 8, 4))},
            "positions of a square grid (pos_embed has shape (1, 8, 4)), and two layers",
        ),
        ({"pos_embed": np.ones(40)}, "positions of a square grid (pos_embed has shape (40,)), and two layers"),
        ({"pos_embed": np.ones((1, 4, 10))}, "positions of a square grid (pos_embed has shape (1, 4, 10)), and two"),
        (
            {"patch_embed.proj.weight": np.ones((4, 1, 2, 2))},
            "of square patches in RGB: patch_embed.proj.weight has sha",
        ),
        ({"blocks.0.mlp.fc1.weight": np.ones((11, 4))}, "with a multiple of 4 channels between them"),
        ({"teacher.patch_embed.proj.weight": np.ones((4, 3, 2, 2))}, "holds 2 backbones (patch_embed.proj.weight, tea"),
        ({"conv1.weight": np.ones((4, 3, 2, 2))}, "holds patch_embed.proj.weight and conv1.weight, two names for one"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_named(tmp_path, change, said):
    assert said in refusal(tmp_path / "w.npz", in_timm() | change)


def test_what_is_missing_is_named(tmp_path):
    file = tmp_path / "w.npz"
    said = refusal(file, without(in_timm(), r"blocks\.3\.norm1"))
    assert said == "does not hold this backbone: blocks.3.norm1.weight is missing; blocks.3.norm1.bias is missing."
    assert "pos_embed has shape none" in refusal(file, without(in_timm(), "pos_embed"))
    assert "blocks.0.mlp.fc1.weight has shape none" in refusal(file, without(in_timm(), "mlp"))
    said = refusal(file, {"conv1.0.weight": np.ones(3), "fc.weight": np.ones(2)})
    assert said == (
        "holds no vision transformer with the names of timm, DINOv2, CLIP or transformers: among its 2 entries "
        "(conv1.0.weight, fc.weight, ...) is no patch_embed.proj.weight."
    )


def test_the_last_norm_is_there_or_is_not(tmp_path):
    file, arrays = tmp_path / "w.npz", in_timm()
    assert refusal(file, without(arrays, r"^norm\.")).endswith("use --model.no-final-norm.")
    loaded = load(file, without(arrays, r"^norm\."), replace(CONFIG, final_norm=False))
    assert "norm" not in loaded.backbone["blocks4"]
    assert load(file, arrays, replace(CONFIG, final_norm=False)).skipped == ("norm.weight", "norm.bias")
