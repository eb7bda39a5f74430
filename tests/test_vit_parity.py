"""A vision transformer read from a file is the network that wrote it: of an independent torch model, and of timm's."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.backbones.positions import resize_positions

torch = pytest.importorskip("torch")

from reference.torch_vit import CLIP, ViT, randomized, resized  # noqa: E402 (they need torch)
from reference.torch_weights import relative_difference, to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)

# One is the size that the positions are of; the second is a patch; the last are no multiples of it.
SIZES = ((1, 1), (3, 5), (0.4, 1), (7.3, 4.6))


class Origin(NamedTuple):
    """A network as it is published.

    Attributes:
        network: torch's class.
        torch: its options.
        config: ours for it.
    """

    network: type
    torch: dict
    config: ViTConfig


SMALL = {"dim": 24, "depth": 5, "heads": 2, "grid": 4}
OURS = {"dim": 24, "depth": 5, "head_dim": 12, "position_grid": 4}
IN_CLIP = {"pre_norm": True, "activation": "quick_gelu", "norm_epsilon": 1e-5}
ORIGINS = {
    "DeiT": Origin(ViT, {"patch": 16, "resize": "antialiased"}, ViTConfig(**OURS)),
    "DeiT, distilled": Origin(
        ViT, {"patch": 8, "distilled": True, "resize": "antialiased"}, ViTConfig(**OURS, patch=8, tokens=2)
    ),
    "DINOv2": Origin(
        ViT,
        {"patch": 14, "layer_scale": True, "resize": "offset"},
        ViTConfig(**OURS, patch=14, layer_scale=True, position_resize="offset"),
    ),
    "DINOv2 with registers": Origin(
        ViT,
        {"patch": 14, "layer_scale": True, "registers": 4, "resize": "antialiased"},
        ViTConfig(**OURS, patch=14, layer_scale=True, tokens=5),
    ),
    "CLIP": Origin(CLIP, {"patch": 16, "resize": "bicubic"}, ViTConfig(**OURS, **IN_CLIP, position_resize="bicubic")),
}


class Pair(NamedTuple):
    """Torch's network, which computes in float64, and ours with what it wrote into a file."""

    network: "torch.nn.Module"
    graph: nnx.GraphDef
    parameters: dict


def read(state: dict, folder, config: ViTConfig) -> tuple[nnx.GraphDef, dict]:
    """Our network with the values of a state dict, by way of a file."""
    torch.save({name: value.float() for name, value in state.items()}, folder / "weights.pth")
    graph, shapes = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))))
    values = config.load(folder / "weights.pth", {"backbone": nnx.to_pure_dict(shapes), "head": None}).backbone
    assert jax.tree.map(np.shape, values) == jax.tree.map(np.shape, nnx.to_pure_dict(shapes))
    return graph, values


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    @cache
    def of(name: str) -> Pair:
        origin = ORIGINS[name]
        network = randomized(origin.network(**SMALL, **origin.torch)).double().eval()
        return Pair(network, *read(network.state_dict(), tmp_path_factory.mktemp("weights"), origin.config))

    return of


def images_of(name: str, size: tuple[float, float]) -> np.ndarray:
    """Two pictures of as many patches, or parts of them; a grid of the stored positions is (1, 1)."""
    patch = ORIGINS[name].config.patch
    patches = (4, 4) if size == (1, 1) else size
    shape = (2, *(max(round(length * patch), 1) for length in patches), 3)
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@jax.jit
def scalar(stages):
    """Of every output, each with a weight of its own."""
    return sum(
        (stage * jnp.cos(jnp.arange(stage.size, dtype=stage.dtype)).reshape(stage.shape)).mean() for stage in stages
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ORIGINS)
def test_the_stages_are_those_of_torch(pair, name, size):
    one, images = pair(name), images_of(name, size)
    with torch.no_grad():
        expected = [stage.numpy() for stage in one.network(to_torch(images))]
    stages = jax.jit(lambda parameters: nnx.merge(one.graph, parameters)(images))(one.parameters)
    for values, of_torch in zip(stages, expected, strict=True):
        assert 0.5 < np.abs(of_torch).max() < 100
        assert relative_difference(values, of_torch) < 1e-5


@pytest.mark.parametrize("name", ORIGINS)
def test_gradients_are_those_of_torch(pair, name, tmp_path):
    one, images = pair(name), images_of(name, SIZES[-1])
    gradient = jax.grad(lambda parameters: scalar(nnx.merge(one.graph, parameters)(images)))
    ours = jax.jit(gradient)(jax.tree.map(jnp.asarray, one.parameters))
    one.network.zero_grad()
    weights = [
        torch.cos(torch.arange(stage.numel()).double()).reshape(stage.shape) for stage in one.network(to_torch(images))
    ]
    sum(
        (stage * weight).mean() for stage, weight in zip(one.network(to_torch(images)), weights, strict=True)
    ).backward()
    gradients = {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in one.network.named_parameters()
    }
    for positions in ("pos_embed", "visual.positional_embedding"):  # a token is stored with its position
        if positions in gradients:
            gradients[positions].view(-1, SMALL["dim"])[: -(SMALL["grid"] ** 2)] = 0
    _, expected = read(gradients, tmp_path, ORIGINS[name].config)
    for (path, values), of_torch in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        assert np.abs(of_torch).max() > 0
        assert relative_difference(values, of_torch) < 1e-4, path


@pytest.mark.parametrize("resize", ["antialiased", "bicubic", "offset"])
def test_positions_are_resized_as_in_torch(resize):
    """Of many grids at once, smaller and larger, on one canvas."""
    positions = np.random.default_rng(0).normal(size=(7, 7, 3)).astype(np.float32)
    sizes = [(7, 7), (1, 1), (2, 31), (7, 8), (13, 7), (40, 3), (6, 6), (28, 37)]
    resize_all = jax.jit(lambda sizes: resize_positions(jnp.asarray(positions), sizes, (40, 40), resize=resize))
    for values, (height, width) in zip(resize_all(jnp.int32(sizes)), sizes, strict=True):
        expected = resized(torch.from_numpy(positions).double().reshape(-1, 3), (height, width), resize)
        expected = expected.numpy().reshape(height, width, 3)
        np.testing.assert_allclose(values[:height, :width], expected, atol=1e-5)
        assert not values[height:].any()
        assert not values[:, width:].any()
        if (height, width) == (7, 7):
            np.testing.assert_allclose(values[:7, :7], positions, atol=1e-6)


class TestTimm:
    """Its own networks, where it is installed."""

    @pytest.mark.parametrize(
        ("options", "config"),
        [
            ({}, ViTConfig(**OURS)),
            ({"init_values": 0.5}, ViTConfig(**OURS, layer_scale=True)),
            (
                {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.5},
                ViTConfig(**OURS, layer_scale=True, tokens=5),
            ),
            ({"pre_norm": True}, ViTConfig(**OURS, pre_norm=True)),
        ],
        ids=["DeiT", "DINOv2", "DINOv2 with registers", "CLIP"],
    )
    def test_its_features(self, options, config, tmp_path):
        vision_transformer = pytest.importorskip("timm.models.vision_transformer")
        network = vision_transformer.VisionTransformer(
            img_size=64, patch_size=16, embed_dim=24, depth=5, num_heads=2, num_classes=3, dynamic_img_size=True,
            dynamic_img_pad=True, **options,
        )  # fmt: skip
        network = randomized(network).eval()
        graph, parameters = read(network.state_dict(), tmp_path, config)
        forward = jax.jit(lambda parameters, images: nnx.merge(graph, parameters)(images))
        for size in ((64, 64), (50, 81), (7, 16)):
            images = np.random.default_rng(size).normal(size=(2, *size, 3)).astype(np.float32)
            with torch.no_grad():
                expected = network.forward_features(to_torch(images).float())[:, config.tokens :].numpy()
            values = np.asarray(forward(parameters, images)[-1])
            assert relative_difference(values.reshape(expected.shape), expected) < 1e-5
