"""psa: its labels, losses and walk beside dense ones written in NumPy, and what a user sees of it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.wideresnet import WideResNet38Config
from lpcam_jax.data.augment import color_jitter
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.refine.pictures import background_crfs
from lpcam_jax.refine.similarity import walk_by_similarity
from lpcam_jax.refine.walks import similar_labels
from lpcam_jax.systems.psa.config import PSATraining
from lpcam_jax.systems.psa.labels import ScoredPicture, agreed, labelled_crops, with_background
from lpcam_jax.systems.psa.losses import affinity_loss
from lpcam_jax.systems.psa.network import AffinityNet, build_affinity_net
from lpcam_jax.systems.psa.training import psa_optimizer

RADIUS = 5
DIRECTIONS = [(0, x) for x in range(1, RADIUS)] + [
    (y, x) for y in range(1, RADIUS) for x in range(-RADIUS + 1, RADIUS) if y * y + x * x < RADIUS**2
]


def dense_affinity(features: np.ndarray) -> np.ndarray:
    """The N x N matrix, pair by pair."""
    h, w, _ = features.shape
    matrix = np.eye(h * w)
    for y in range(h):
        for x in range(w):
            for dy, dx in DIRECTIONS:
                v, u = y + dy, x + dx
                if 0 <= v < h and 0 <= u < w:
                    a = np.exp(-np.abs(features[y, x] - features[v, u]).mean())
                    matrix[y * w + x, v * w + u] = matrix[v * w + u, y * w + x] = a
    return matrix


def dense_walk(maps, features, *, beta, squarings):
    """psa's infer_aff.py: the power of the matrix, its columns to 1, squared again and again."""
    h, w, n = maps.shape
    matrix = dense_affinity(features) ** beta
    matrix /= matrix.sum(axis=0, keepdims=True)
    for _ in range(squarings):
        matrix = matrix @ matrix
    return (maps.reshape(-1, n).T @ matrix).T.reshape(h, w, n)


@pytest.fixture(scope="module")
def drawn():
    """Maps (h, w, n) and features (h, w, d), of an odd size."""
    random = np.random.default_rng(0)
    return random.random((13, 11, 3)).astype(np.float32), random.normal(0, 1, (13, 11, 6)).astype(np.float32)


def test_the_walk_is_that_of_the_dense_matrix(drawn):
    found = walk_by_similarity(*drawn, beta=8, steps=64)
    np.testing.assert_allclose(found, dense_walk(*drawn, beta=8, squarings=6), rtol=1e-4, atol=1e-5)


def test_padding_changes_no_walk(drawn):
    maps, features = (np.pad(a, ((0, 3), (0, 6), (0, 0)), constant_values=3) for a in drawn)
    found = walk_by_similarity(maps, features, size=np.array([13, 11], np.int32))[:13, :11]
    np.testing.assert_allclose(found, walk_by_similarity(*drawn), rtol=1e-5, atol=1e-6)


def test_the_loss_is_that_of_all_pairs():
    random = np.random.default_rng(1)
    features = random.normal(0, 1, (2, 12, 16, 6)).astype(np.float32)
    labels = random.choice([0, 1, 2, 255], (2, 12, 16), p=[0.4, 0.2, 0.2, 0.2])
    sums, counts, r = np.zeros(3), np.zeros(3), RADIUS - 1
    for f, label in zip(features, labels, strict=True):
        for y in range(12 - r):
            for x in range(r, 16 - r):
                for dy, dx in DIRECTIONS:
                    here, there = label[y, x], label[y + dy, x + dx]
                    if 255 in (here, there):
                        continue
                    a = np.exp(-np.abs(f[y, x] - f[y + dy, x + dx]).mean())
                    kind = 2 if here != there else int(here > 0)
                    sums[kind] += -np.log(1 + 1e-5 - a if kind == 2 else a + 1e-5)
                    counts[kind] += 1
    background, foreground, different = sums / (counts + 1e-5)
    expected = background / 4 + foreground / 4 + different / 2
    np.testing.assert_allclose(affinity_loss(features, labels, radius=RADIUS), expected, rtol=1e-5)


def test_a_gradient_step_lowers_the_loss():
    random = np.random.default_rng(2)
    features, labels = random.normal(0, 1, (1, 12, 16, 6)), random.integers(0, 2, (1, 12, 16))
    loss = jax.jit(lambda f: affinity_loss(f, labels, radius=3))
    features = jnp.asarray(features, jnp.float32)
    assert loss(features - 10 * jax.grad(loss)(features)) < loss(features)


def test_labels_are_what_both_crfs_agree_on():
    low = np.array([[0.2, 0.8, 0], [0.6, 0.4, 0], [0.2, 0, 0.8], [0.4, 0.6, 0], [0, 0, 0]])
    high = np.array([[0.1, 0.9, 0], [0.3, 0.7, 0], [0.1, 0, 0.9], [0.8, 0.2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(agreed(low, high), [1, 255, 2, 0, 255])


def test_a_crop_has_the_labels_of_the_scores_averaged_over_its_grid():
    """A picture that is smaller than the crop: outside of it nothing is sure."""
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (40, 48, 3), np.uint8)
    scores = np.zeros((2, 1, 40, 48), np.float32)
    scores[:, :, :, 24:] = 1
    training = PSATraining(crop=64, jitter=(0, 0, 0, 0))
    seen = set()
    for seed in range(8):
        batch = labelled_crops(training, stride=8)(ScoredPicture(image, scores), np.random.default_rng(seed))
        assert batch["box"].tolist() == [0, 0, 64, 64], "around it the network sees black, not the mean colour"
        shown = np.argwhere(batch["image"].any(axis=-1))
        (top, left), (bottom, right) = shown.min(axis=0), 1 + shown.max(axis=0)
        assert batch["mask"].shape == (8, 8)
        np.testing.assert_array_equal(batch["mask"][: top // 8], 255)
        inside = batch["mask"][-(-top // 8) : bottom // 8, -(-left // 8) : right // 8]
        seen |= {*np.unique(inside)}
        picture = batch["image"][top:bottom, left:right]
        assert (picture == image).all() or (picture == image[:, ::-1]).all()
    assert seen == {0, 1}


def test_scores_of_the_two_crfs_differ_by_their_backgrounds():
    scene = Shapes(1)[0]
    maps = np.stack([(scene.mask == n) for n in np.unique(scene.mask) if 0 < n < 255]).astype(np.float32)
    maps = 0.2 + 0.6 * maps
    scores = background_crfs(scene.image, maps, (1, 12))
    assert scores.shape == (2, len(maps) + 1, *scene.mask.shape)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(with_background(scores[:, 1:]), scores, atol=1e-4)
    assert scores[0, 0].mean() > scores[1, 0].mean()


def test_colours_change_and_can_be_left_alone():
    image = np.random.default_rng(4).integers(0, 256, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(color_jitter(np.random.default_rng(0), image, 0, 0, 0, 0), image)
    dark = [color_jitter(np.random.default_rng(seed), image, 0.9, 0, 0, 0).mean() for seed in range(20)]
    assert min(dark) < image.mean() < max(dark)
    grey = np.repeat(image[..., :1], 3, axis=-1)
    turned = color_jitter(np.random.default_rng(1), grey, 0, 0, 0.5, 0.5)
    assert np.ptp(turned.astype(int), axis=-1).max() == 0, "grey has neither hue nor saturation"


def test_masks_stop_where_features_change():
    """Maps that are sure of a corner of two halves fill one of them."""
    features = np.zeros((6, 8, 4), np.float32)
    features[:, 4:] = 9
    maps = np.zeros((1, 47, 61), np.float32)
    maps[0, :24, :16] = 1
    mask = similar_labels(maps, features, stride=8, background=0.1, steps=64)
    assert mask.shape == (47, 61)
    assert (mask[:, :28] == 1).mean() > 0.95
    assert (mask[:, 36:] == 0).all()
    assert similar_labels(maps[:0], features, stride=8, background=0.1).max() == 0


@pytest.mark.parametrize("size", [(3, 500), (41, 41), (1, 1), (500, 3), (33, 64)])
def test_pictures_of_any_size_lie_on_the_grid_of_the_network(size):
    """A picture whose left half belongs together, however few positions it has."""
    grid = tuple(-(-length // 8) for length in size)
    features = np.zeros((*grid, 4), np.float32)
    maps = np.zeros((1, *size), np.float32)
    maps[:, :, : size[1] // 2] = 1
    features[:, grid[1] // 2 :] = 9
    mask = similar_labels(maps, features, stride=8, background=0.3)
    assert mask.shape == size
    if grid[1] > 4:
        columns = np.arange(size[1])
        assert (mask[:, columns < 8 * (grid[1] // 2 - 1)] == 1).all()
        assert (mask[:, columns >= 8 * (grid[1] // 2 + 1)] == 0).all()


def test_the_second_background_must_be_the_smaller_one(program, tiny_runs, tmp_path):
    words = (*tiny_runs.words("psa"), "--labels.low", 12, "--labels.high", 1, "--workdir", tmp_path / "run")
    finished = program(*words)
    assert finished.code == 2
    assert "--labels.low 12 --labels.high 1: the background of the second CRF" in finished.err


@pytest.mark.parametrize(
    "config",
    [
        WideResNet38Config(width=2),
        ResNetConfig(blocks=(1, 1, 1, 1), width=2, stem_width=2),
    ],
    ids=["wideresnet38", "resnet"],
)
def test_padding_changes_no_feature(config):
    model = build_affinity_net(config)
    picture = np.random.default_rng(5).normal(0, 1, (1, 41, 50, 3)).astype(np.float32)
    alone = model.features(picture)
    padded = np.pad(picture, ((0, 0), (0, 23), (0, 14), (0, 0)))
    sizes = jnp.array([[41, 50]], jnp.int32)
    h, w = model.grid_sizes(sizes)[0].tolist()
    found = model.features(padded, sizes)[:, :h, :w]
    assert alone.shape == found.shape == (1, 6, 7, 448)
    np.testing.assert_allclose(found, alone, atol=1e-4 * np.abs(alone).max())


def test_the_network_is_psas():
    """Its head beside one in NumPy."""
    model = build_affinity_net(WideResNet38Config(width=2))
    picture = np.random.default_rng(6).normal(0, 1, (1, 40, 48, 3)).astype(np.float32)
    stages = model.backbone(picture)[-3:]

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    heads = (model.f8_3, model.f8_4, model.f8_5)
    parts = [elu(np.asarray(x) @ np.asarray(conv.kernel[...])[0, 0]) for x, conv in zip(stages, heads, strict=True)]
    expected = elu(np.concatenate(parts, axis=-1) @ np.asarray(model.f9.kernel[...])[0, 0])
    np.testing.assert_allclose(model.features(picture), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert [part.shape[-1] for part in parts] == [64, 128, 256]


def test_the_head_begins_as_psas():
    """Its spread is of the channels that come in, so affinities begin in the middle of their range."""
    model = build_affinity_net(WideResNet38Config(width=8))
    for conv, channels in zip((model.f8_3, model.f8_4, model.f8_5), model.backbone.channels[-3:], strict=True):
        assert np.std(conv.kernel[...]) == pytest.approx((2 / channels) ** 0.5, rel=0.05)
    bound = 4 * (6 / 896) ** 0.5
    assert 0.99 * bound < np.abs(model.f9.kernel[...]).max() <= bound


def test_batch_norms_are_not_trained():
    network = nnx.eval_shape(lambda: build_affinity_net(WideResNet38Config(width=2)))
    parameters = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    training = PSATraining(frozen=("conv1a", "b2"))
    optimizer = psa_optimizer(training, network, steps=10)
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    flat = {tuple(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(updates)}
    moved = {path for path, leaf in flat.items() if np.asarray(leaf).any()}
    frozen = {path for path in flat if path[-1] in ("scale", "bias") or path[1] in ("conv1a", "b2")}
    assert moved == flat.keys() - frozen
    assert {path[-1] for path in moved} == {"kernel"}


@pytest.mark.parametrize("strides", [(8, 16), (4, 16, 8, 8)])
def test_a_backbone_without_such_stages_is_refused(strides):
    backbone = SimpleNamespace(strides=strides, channels=(4,) * len(strides))
    with pytest.raises(UserError, match=f"needs a backbone with three stages.*{strides[0]}, {strides[1]}"):
        AffinityNet(backbone, preprocessing=None, rngs=nnx.Rngs(0))


def test_a_crop_that_does_not_fit_is_refused(program, tiny_runs, tmp_path):
    words = (*tiny_runs.words("psa"), "--training.crop", 60, "--workdir", tmp_path / "run")
    finished = program(*words)
    assert finished.code == 2
    assert "--training.crop 60: the network compares positions" in finished.err


def test_a_grid_that_may_lack_a_position_is_refused(program, tiny_runs, tmp_path):
    words = (*tiny_runs.words("psa"), "--model.stem-pool", "ceil", "--workdir", tmp_path / "run")
    finished = program(*words)
    assert finished.code == 2
    assert "--model.stem-pool ceil: with this pool some grids have a position less" in finished.err
