from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import cam, fuse, normalize, resize_bilinear, resize_nearest

SIZES = [((3, 5), (7, 11)), ((4, 4), (8, 16)), ((9, 7), (4, 3)), ((5, 6), (5, 6)), ((1, 3), (4, 1)), ((8, 2), (3, 9))]


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def bilinear_loop(maps, size):
    """(h, w, c) -> (H, W, c), pixel by pixel, half-pixel centres."""
    h, w, c = maps.shape
    out = np.zeros((*size, c))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            above = maps[top, left] * (1 - (x - left)) + maps[top, right] * (x - left)
            below = maps[bottom, left] * (1 - (x - left)) + maps[bottom, right] * (x - left)
            out[i, j] = above * (1 - (y - top)) + below * (y - top)
    return out


def test_cam_exact_small_example():
    features = jnp.array([[[1.0, 2.0], [0.0, -1.0]]])
    weights = jnp.array([[1.0, -1.0, 0.5], [2.0, 0.0, -1.0]])
    np.testing.assert_array_equal(cam(features, weights), [[[5, 0, 0], [0, 0, 1]]])


def test_mean_of_the_weighted_features_is_the_head_on_the_mean_feature():
    features, weights = uniform(2, 5, 7, 16), uniform(16, 3, seed=1)  # not negative: the ReLU does nothing
    head_of_mean = features.mean(axis=(1, 2)) @ weights
    np.testing.assert_allclose(cam(features, weights).mean(axis=(1, 2)), head_of_mean, rtol=1e-5)


def test_cam_matches_a_loop_with_two_batch_dimensions():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 4, 5, 8)).astype(np.float32)
    weights = rng.normal(size=(8, 6)).astype(np.float32)
    result = cam(features, weights)
    assert result.shape == (2, 3, 4, 5, 6)
    for index in np.ndindex(2, 3, 4, 5):
        np.testing.assert_allclose(result[index], np.maximum(weights.T @ features[index], 0), atol=1e-5)


def test_normalize_divides_each_map_by_its_own_maximum():
    maps = uniform(2, 4, 5, 3) * np.array([1, 10, 1000], np.float32)
    expected = np.stack([[m[..., n] / (m[..., n].max() + 1e-5) for n in range(3)] for m in maps])
    np.testing.assert_allclose(normalize(maps), np.moveaxis(expected, 1, -1), rtol=1e-6)
    np.testing.assert_allclose(normalize(maps).max(axis=(1, 2)), 1, atol=1e-4)


def test_normalize_uses_epsilon():
    maps = np.array([0.0, 1.0, 3.0], np.float32).reshape(1, 3, 1)
    np.testing.assert_allclose(normalize(maps, epsilon=1.0).ravel(), [0, 0.25, 0.75])


@pytest.mark.parametrize("level", [0.0, 1e-20, 0.7, 1e6])
@pytest.mark.parametrize("namespace", [np, jnp])
def test_normalize_makes_a_flat_map_zero_and_leaves_its_neighbours(level, namespace):
    maps = uniform(4, 4, 2)
    flat = maps.copy()
    flat[..., 0] = level
    result = np.asarray(normalize(namespace.asarray(flat)))
    np.testing.assert_array_equal(result[..., 0], 0)
    np.testing.assert_allclose(result[..., 1], normalize(maps)[..., 1], rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        normalize,
        lambda maps: resize_bilinear(maps, (7, 9)),
        lambda maps: resize_nearest(maps, (7, 9)),
        lambda maps: fuse([maps, maps[:, ::2]], (21, 30)),
    ],
    ids=["normalize", "resize_bilinear", "resize_nearest", "fuse"],
)
def test_numpy_in_numpy_out_and_jax_in_jax_out_and_both_equal(function):
    maps = uniform(2, 4, 5, 3)
    on_host, on_device, jitted = function(maps), function(jnp.asarray(maps)), jax.jit(function)(maps)
    assert isinstance(on_host, np.ndarray)
    assert isinstance(on_device, jax.Array)
    assert on_host.dtype == on_device.dtype == np.float32
    np.testing.assert_allclose(on_host, on_device, atol=1e-6)
    np.testing.assert_allclose(on_host, jitted, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resize_bilinear_matches_a_loop(source, target):
    maps = uniform(*source, 2)
    np.testing.assert_allclose(resize_bilinear(maps, target), bilinear_loop(maps, target), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resize_bilinear_crop_is_the_top_left_of_the_whole(source, target):
    maps = uniform(2, *source, 3)
    rows, columns = (target[0] + 1) // 2, max(target[1] - 2, 1)
    whole = np.stack([bilinear_loop(m, target) for m in maps])
    cropped = resize_bilinear(maps, target, crop=(rows, columns))
    assert cropped.shape == (2, rows, columns, 3)
    np.testing.assert_allclose(cropped, whole[:, :rows, :columns], atol=1e-6)


def test_resize_matches_torch():
    torch = pytest.importorskip("torch")
    for source, target in SIZES:
        maps = uniform(2, *source, 3)
        channels_first = torch.from_numpy(np.moveaxis(maps, -1, 1).copy())
        interpolate = partial(torch.nn.functional.interpolate, channels_first, size=target)
        bilinear = interpolate(mode="bilinear", align_corners=False).numpy()
        nearest = interpolate(mode="nearest").numpy()
        np.testing.assert_allclose(resize_bilinear(maps, target), np.moveaxis(bilinear, 1, -1), atol=1e-6)
        np.testing.assert_array_equal(resize_nearest(maps, target), np.moveaxis(nearest, 1, -1))


@pytest.mark.parametrize(
    ("source", "target", "rows"),
    [
        (5, 3, [0, 1, 3]),
        (3, 5, [0, 0, 1, 1, 2]),
        (7, 4, [0, 1, 3, 5]),
        (10, 4, [0, 2, 5, 7]),
        (4, 4, [0, 1, 2, 3]),
        (2, 7, [0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_resize_nearest_takes_the_floor_of_i_times_in_over_out(source, target, rows):
    ramp = np.arange(source, dtype=np.int32)
    columns = np.broadcast_to(ramp[None, :, None], (1, source, 1))
    np.testing.assert_array_equal(resize_nearest(columns, (1, target)).ravel(), rows)
    np.testing.assert_array_equal(resize_nearest(columns.transpose(1, 0, 2), (target, 1)).ravel(), rows)


def test_fuse_of_one_scale_resizes_to_whole_positions_and_crops_to_the_picture():
    maps = uniform(3, 2, 4)  # a picture of 37 x 20 has ceil(37 / 16) x ceil(20 / 16) positions
    fused = fuse([maps], (37, 20))
    assert fused.shape == (37, 20, 4)
    np.testing.assert_allclose(fused, bilinear_loop(maps, (48, 32))[:37, :20], atol=1e-6)


def test_fuse_counts_the_stride():
    maps = uniform(3, 2, 1)
    np.testing.assert_allclose(fuse([maps], (9, 7), stride=4), bilinear_loop(maps, (12, 8))[:9, :7], atol=1e-6)


def test_fuse_of_two_scales_is_their_mean_at_the_picture():
    small, large = uniform(2, 3, 1), uniform(4, 6, 1, seed=1)
    expected = (bilinear_loop(small, (32, 48)) + bilinear_loop(large, (32, 48)))[:30, :40] / 2
    np.testing.assert_allclose(fuse([small, large], (30, 40)), expected, atol=1e-6)


def test_fuse_of_two_constant_maps_is_the_mean_of_the_constants():
    ones, fives = np.ones((2, 3, 1), np.float32), np.full((4, 6, 1), 5, np.float32)
    np.testing.assert_allclose(fuse([ones, fives], (30, 40)), np.full((30, 40, 1), 3), rtol=1e-6)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
def test_a_picture_of_whole_numbers_is_resized_as_one_of_floats(xp, dtype):
    picture = (255 * uniform(6, 5, 3)).astype(dtype)
    found = resize_bilinear(xp.asarray(picture), (9, 4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resize_bilinear(picture.astype(np.float32), (9, 4)), rtol=1e-6)
