"""The classifier: what its logits are, and what it is before training."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.systems.lpcam.network import build_classifier

TINY = ResNetConfig(blocks=(1, 1, 1, 1), width=2, stem_width=4)
CLASSES = 3


@cache
def initial(head_init: str, seed: int, attempt: int = 0) -> tuple[np.ndarray, ...]:
    """The head and the last kernel of the backbone, compiled anew for each attempt."""

    def build():
        model = build_classifier(TINY, CLASSES, head_init=head_init, seed=seed)
        return model.head[...], model.backbone.layer4[0].conv3.kernel[...]

    return jax.device_get(jax.jit(build)())


@cache
def outputs(*, with_sizes: bool) -> tuple[np.ndarray, ...]:
    """Features, logits of a call, valid grid, head of a random classifier, for three pictures."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build_classifier(TINY, CLASSES)))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), state)
    sizes = np.int32([[40, 70], [64, 96], [9, 17]]) if with_sizes else None
    boxes = np.int32([[0, 0, 64, 96]] * 3) if sizes is None else np.concatenate([0 * sizes, sizes], axis=1)
    pictures = rng.integers(0, 256, (3, 64, 96, 3), np.uint8)

    @jax.jit
    def run(state):
        model = nnx.merge(graph, state)
        images = model.preprocessing(pictures, boxes)
        return model.features(images, sizes), model(images, sizes), model.grid_sizes(sizes), model.head[...]

    return jax.device_get(run(state))


@pytest.mark.parametrize("with_sizes", [False, True])
def test_logits_are_the_mean_of_the_head_at_every_valid_position(with_sizes):
    features, logits, grids, head = outputs(with_sizes=with_sizes)
    assert features.shape == (3, 4, 6, 64)
    assert logits.shape == (3, CLASSES)
    assert logits.dtype == np.float32
    expected_grids = [[3, 5], [4, 6], [1, 2]] if with_sizes else [[4, 6]] * 3
    if with_sizes:
        assert grids.tolist() == expected_grids
    for feature, (rows, columns), logit in zip(features, expected_grids, logits, strict=True):
        maps = feature[:rows, :columns].astype(np.float64) @ head
        np.testing.assert_allclose(logit, maps.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("mean", "std", "ulps"),
    [
        ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 0),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 2),  # XLA may multiply by the reciprocal
    ],
)
def test_preprocessing_is_exact_inside_the_box_and_zero_outside(order, mean, std, ulps):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), np.uint8)
    x = np.asarray(Preprocessing(order, mean, std)(pictures, np.int32([[1, 2, 5, 9], [0, 0, 7, 1]])))
    ordered = pictures if order == "rgb" else pictures[..., ::-1]
    expected = (ordered.astype(np.float32) - np.float32(mean)) / np.float32(std)
    inside = np.zeros((2, 7, 9, 1), bool)
    inside[0, 1:5, 2:9] = inside[1, :, :1] = True
    assert x.dtype == np.float32
    np.testing.assert_array_max_ulp(x, np.where(inside, expected, np.float32(0)), maxulp=ulps)


def test_the_mean_colour_becomes_zero():
    colours = np.full((1, 2, 2, 3), (30, 20, 10), np.uint8)
    box = np.int32([[0, 0, 2, 2]])
    assert not Preprocessing("rgb", (30.0, 20.0, 10.0))(colours, box).any()
    assert not Preprocessing("bgr", (10.0, 20.0, 30.0))(colours, box).any()
    assert Preprocessing("bgr", (30.0, 20.0, 10.0))(colours, box).any()


def test_zero_head_is_zero_and_random_head_is_within_its_bound():
    zero, kernel = initial("zero", 5)
    assert zero.shape == (64, CLASSES)
    assert not zero.any()
    assert kernel.std() > 0
    head, _ = initial("random", 5)
    assert 0.9 * 64**-0.5 < np.abs(head).max() <= 64**-0.5


def test_same_seed_same_bytes():
    first, again, other = initial("random", 5), initial("random", 5, attempt=1), initial("random", 6)
    assert [leaf.tobytes() for leaf in first] == [leaf.tobytes() for leaf in again]
    assert not any(np.array_equal(*leaves) for leaves in zip(first, other, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_is_what_its_config_says(precision):
    config = ResNetConfig(
        blocks=(1, 2, 1, 1), width=4, stem_width=8, precision=precision, channel_order="bgr", mean=(1, 2, 3)
    )
    model = nnx.eval_shape(lambda: build_classifier(config, CLASSES))
    assert model.head.shape == (128, CLASSES)
    assert [len(getattr(model.backbone, f"layer{i}")) for i in (1, 2, 3, 4)] == [1, 2, 1, 1]
    assert model.backbone.conv1.kernel.shape == (7, 7, 3, 8)
    assert model.backbone.conv1.dtype == jnp.dtype(precision)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    assert model.preprocessing == Preprocessing("bgr", (1, 2, 3), config.std)
