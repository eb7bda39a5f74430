import numpy as np
import pytest

from lpcam_jax import FeatureSample, split

POSITIONS = 10


def picture(number, d=3):
    """(2, 5, d) features; the first entry of each is unique in the data set."""
    features = np.random.default_rng(number).random((2, 5, d), dtype=np.float32)
    features[..., 0] = POSITIONS * number + np.arange(POSITIONS).reshape(2, 5)
    return features


def sampled(pictures, *, size, seed=0, classes=1, class_index=0, context=False, weights=None):
    sample = FeatureSample(classes, 3, size=size, seed=seed)
    weights = np.ones((2, 5), np.float32) if weights is None else weights
    for number in pictures:
        sample.add(number, picture(number), class_index, weights, context=context)
    return sample


def identities(sample, *, context=False, class_index=0):
    points, weights = sample.points(context=context)
    return sorted(points[class_index, weights[class_index] > 0, 0].astype(int).tolist())


def test_split_above_is_class_below_is_context_and_a_tie_is_neither():
    cam = np.array([[0.0, 0.25, 0.5], [0.75, 0.5, 1.0]], np.float32)
    own, context = split(cam, threshold=0.5)
    np.testing.assert_array_equal(own, [[0, 0, 0], [1, 0, 1]])
    np.testing.assert_array_equal(context, [[1, 1, 0], [0, 0, 0]])


def test_split_default_threshold_is_a_tenth():
    own, context = split(np.array([[0.099, 0.101]], np.float32))
    np.testing.assert_array_equal(own, [[0, 1]])
    np.testing.assert_array_equal(context, [[1, 0]])


def test_fewer_features_than_the_size_are_all_kept_exactly():
    sample = sampled([0, 3], size=64)
    points, weights = sample.points(context=False)
    assert points.shape == (1, 32, 3)  # 20 rows, rounded up to a power of two
    assert weights.sum() == 20
    expected = np.concatenate([picture(0).reshape(-1, 3), picture(3).reshape(-1, 3)])
    kept = points[0, weights[0] > 0]
    np.testing.assert_array_equal(kept[np.argsort(kept[:, 0])], expected)
    np.testing.assert_array_equal(points[0, weights[0] == 0], 0)


def test_only_positions_of_weight_one_are_kept():
    weights = np.zeros((2, 5), np.float32)
    weights[0, 3] = weights[1, 1] = 1
    sample = sampled([2], size=64, weights=weights)
    assert identities(sample) == [23, 26]
    assert sample.seen[0].tolist() == [2, 0]


@pytest.mark.parametrize("size", [1, 7, 16, 20])
def test_the_sample_is_bounded_and_every_row_is_a_row_of_its_picture(size):
    sample = sampled(range(12), size=size)
    points, weights = sample.points(context=False)
    assert points.shape == (1, size, 3)
    assert points.dtype == weights.dtype == np.float32
    np.testing.assert_array_equal(weights, 1)
    assert len(set(identities(sample))) == size
    assert sample.seen[0, 0] == 12 * POSITIONS
    for row in points[0]:
        number, position = divmod(int(row[0]), POSITIONS)
        np.testing.assert_array_equal(row, picture(number).reshape(-1, 3)[position])


def test_every_feature_is_equally_likely_to_stay():
    seeds, pictures, size = 300, 10, 20
    counts = np.zeros(pictures * POSITIONS)
    for seed in range(seeds):
        counts[identities(sampled(range(pictures), size=size, seed=seed))] += 1
    share = size / counts.size
    chi_square = ((counts - seeds * share) ** 2).sum() / (seeds * share * (1 - share))
    assert counts.sum() == seeds * size
    assert 60 < chi_square < 150  # of about 99 degrees of freedom: five sigma is 169


def test_the_order_of_the_pictures_does_not_matter():
    forward, backward = sampled(range(12), size=16), sampled(reversed(range(12)), size=16)
    for one, other in zip(forward.points(context=False), backward.points(context=False), strict=True):
        np.testing.assert_array_equal(one, other)


def test_offering_a_picture_in_parts_does_not_matter():
    whole, parts = sampled(range(12), size=16), FeatureSample(1, 3, size=16)
    left = np.zeros((2, 5), np.float32)
    left[:, :2] = 1
    for weights in (1 - left, left):
        for number in range(12):
            parts.add(number, picture(number), 0, weights, context=False)
    np.testing.assert_array_equal(whole.points(context=False)[0], parts.points(context=False)[0])
    np.testing.assert_array_equal(whole.seen, parts.seen)


def test_two_halves_of_a_data_set_hold_the_sample_of_the_whole():
    whole = identities(sampled(range(12), size=16))
    halves = identities(sampled(range(6), size=16)) + identities(sampled(range(6, 12), size=16))
    assert set(whole) < set(halves)


@pytest.mark.parametrize("size", [7, 16, 200])
def test_samples_of_other_pictures_united_are_the_sample_of_all(size):
    whole, mine, theirs = (sampled(some, size=size) for some in (range(12), range(0, 12, 2), range(1, 12, 2)))
    mine.unite(0, theirs.part(0, context=False), context=False)
    for one, other in zip(whole.points(context=False), mine.points(context=False), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.positions(context=False), mine.positions(context=False))


def test_same_seed_same_bytes_and_another_seed_another_sample():
    first, again, other = (sampled(range(12), size=16, seed=seed) for seed in (5, 5, 6))
    assert first.points(context=False)[0].tobytes() == again.points(context=False)[0].tobytes()
    assert identities(first) != identities(other)


def test_classes_and_contexts_are_sampled_apart():
    sample = FeatureSample(2, 3, size=16)
    everything = np.ones((2, 5), np.float32)
    for number in range(12):
        for class_index in range(2):
            for context in (False, True):
                sample.add(number, picture(number), class_index, everything, context=context)
    draws = [identities(sample, context=c, class_index=n) for n in range(2) for c in (False, True)]
    assert len({tuple(draw) for draw in draws}) == 4
    assert draws[0] == identities(sampled(range(12), size=16))  # what others hold changes nothing


def test_a_class_without_pictures_is_rows_of_zeros_of_weight_zero():
    sample = sampled([1], size=16, classes=3, class_index=1, context=True)
    points, weights = sample.points(context=True)
    assert points.shape == (3, 16, 3)
    assert weights.sum(axis=1).tolist() == [0, 10, 0]
    np.testing.assert_array_equal(points[[0, 2]], 0)
    nothing, none = sample.points(context=False)
    assert nothing.shape[0] == none.shape[0] == 3
    assert none.sum() == 0


def test_nbytes_is_the_size_of_both_full_arrays():
    sample = sampled(range(4), size=16, classes=2)
    both = [sample.points(context=context)[0] for context in (False, True)]
    assert both[0].shape == (2, 16, 3)
    assert sample.nbytes == 2 * both[0].nbytes


@pytest.mark.parametrize("size", [7, 64, 200])
@pytest.mark.parametrize("order", [range(12), range(11, -1, -1), np.random.default_rng(0).permutation(12).tolist()])
def test_positions_say_where_every_row_comes_from(size, order):
    sample = sampled(order, size=size)
    (points, weights), positions = sample.points(context=False), sample.positions(context=False)
    assert positions.shape == (*weights.shape, 3)
    assert positions.dtype == np.int32
    for point, weight, (number, row, column) in zip(points[0], weights[0], positions[0], strict=True):
        if weight:
            np.testing.assert_array_equal(point, picture(number)[row, column])
        else:
            assert (number, row, column) == (-1, -1, -1)


def test_positions_of_a_picture_that_is_drawn_twice_and_of_a_class_without_any():
    sample = sampled([3, 3], size=64, classes=2, class_index=1, context=True)
    positions = sample.positions(context=True)
    assert (positions[0] == -1).all()
    assert sorted(positions[1, :20].tolist()) == sorted(
        2 * [[3, row, column] for row in range(2) for column in range(5)]
    )
    assert (positions[1, 20:] == -1).all()
    assert (sample.positions(context=False) == -1).all()
