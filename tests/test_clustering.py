from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import adjusted_rand_score

from lpcam_jax import cluster_classes, kmeans, kmeans_plus_plus, unit
from lpcam_jax.systems.prototyping.stage import classes_at_once

UPDATES = ["spherical", "mean"]
N, D, K = 24, 4, 5
both_updates = pytest.mark.parametrize("update", UPDATES)


def unit_rows(x):
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def numpy_kmeans(points, weights, init, *, update, tol, max_iterations=100):
    points, weights, centres = (np.asarray(x, np.float64) for x in (points, weights, init))
    directions = unit_rows(points)
    if update == "spherical":
        centres = unit_rows(centres)
    iterations, shift = 0, np.inf
    while iterations < max_iterations and shift > 0 and shift >= tol:
        iterations += 1
        assignment = (directions @ unit_rows(centres).T).argmax(axis=1)
        moved = np.empty_like(centres)
        for k in range(len(centres)):
            of_k = assignment == k
            assert weights[of_k].sum() > 0, "the transcription knows no empty cluster"
            if update == "spherical":
                moved[k] = unit_rows((weights[of_k, None] * directions[of_k]).sum(axis=0))
            else:
                moved[k] = (weights[of_k, None] * points[of_k]).sum(axis=0) / weights[of_k].sum()
        shift = sum(np.linalg.norm(a - b) for a, b in zip(moved, centres, strict=True)) ** 2
        centres = moved
    cosines = directions @ unit_rows(centres).T
    assignment = cosines.argmax(axis=1)
    means = [np.average(points[assignment == k], axis=0, weights=weights[assignment == k]) for k in range(len(centres))]
    objective = (weights * cosines.max(axis=1)).sum() / weights.sum()
    return unit_rows(centres), np.array(means), assignment, objective, iterations


def random_problem(seed, *, n=60, d=6, k=4, scale=10):
    rng = np.random.default_rng(seed)
    points = (scale * np.abs(rng.normal(size=(n, d)))).astype(np.float32)
    weights = rng.uniform(0.5, 2, n).astype(np.float32)
    return points, weights, points[rng.choice(n, k, replace=False)]


def blobs(seed=0, *, k=4, each=15, d=6, noise=0.05):
    """Points about k axes, of lengths from 1 to 3, and the axis of each."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), each)
    points = np.eye(k, d)[truth] + noise * rng.normal(size=(k * each, d))
    return (points * rng.uniform(1, 3, (k * each, 1))).astype(np.float32), truth


def degenerate(kind, rng):
    """points (N, D), weights (N,), init (K, D)."""
    points = rng.normal(size=(N, D))
    weights = rng.random(N)
    init = points[rng.choice(N, K, replace=False)]
    match kind:
        case "duplicates":
            points = points[rng.integers(0, 3, N)]
            init = points[:K]
        case "all zeros":
            points = np.zeros_like(points)
        case "zeros all over":
            points, init = np.zeros_like(points), np.zeros_like(init)
        case "fewer points than clusters":
            weights[3:] = 0
        case "one point":
            weights[1:] = 0
        case "all points equal":
            points = np.tile(points[:1], (N, 1))
            init = points[:K]
        case "no weight":
            weights[:] = 0
        case "antipodal":
            points[N // 2 :] = -points[: N // 2]
            weights[:] = 1
            init = np.tile(init[:1], (K, 1))
        case "on a line":
            points = rng.choice([-1, 1], (N, 1)) * points[:1]
        case "huge":
            points, init = points * 1e15, init * 1e15
        case "tiny":
            points, init = points * 1e-15, init * 1e-15
        case "beyond float32 squares":
            points, init = points * 1e25, init * 1e25
        case "below float32 squares":
            points, init = points * 1e-30, init * 1e-30
        case "mixed scales":
            points = points * 10.0 ** rng.integers(-9, 9, (N, 1))
        case "zero centres":
            init = np.zeros_like(init)
        case "equal centres":
            init = np.tile(init[:1], (K, 1))
    return tuple(x.astype(np.float32) for x in (points, weights, init))


KINDS = [
    "random",
    "duplicates",
    "all zeros",
    "zeros all over",
    "fewer points than clusters",
    "one point",
    "all points equal",
    "no weight",
    "antipodal",
    "on a line",
    "huge",
    "tiny",
    "beyond float32 squares",
    "below float32 squares",
    "mixed scales",
    "zero centres",
    "equal centres",
]


@both_updates
def test_always_ends_within_the_cap_with_finite_results(update):
    rng = np.random.default_rng(0)
    problems = [degenerate(kind, rng) for kind in KINDS for _ in range(12)]  # 204
    for points, weights, init in problems:
        result = kmeans(points, weights, init, update=update, tol=0.0, max_iterations=40)
        for leaf in result:
            assert np.isfinite(leaf).all()
        assert 1 <= result.iterations <= 40
        assert -1.00001 <= result.objective <= 1.00001
        assert ((result.assignment >= 0) & (result.assignment < K)).all()
        lengths = np.linalg.norm(result.directions, axis=1)
        assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()
        square = (points.astype(np.float64) ** 2).sum(axis=1)
        exists = weights[(square > 1e-35) & (square < 1e38)]  # a length beyond is as good as none
        np.testing.assert_allclose(result.counts.sum(), exists.sum(), rtol=1e-5)


@both_updates
@pytest.mark.parametrize(("n", "k"), [(1, 4), (3, 5)])
def test_as_many_clusters_as_points_or_more_puts_a_direction_on_every_point(update, n, k):
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    result = kmeans(points, np.ones(n, np.float32), np.resize(points[:1], (k, 3)), update=update)
    np.testing.assert_allclose(result.objective, 1, atol=1e-5)
    assert len(set(np.asarray(result.assignment).tolist())) == n
    np.testing.assert_allclose(result.means[result.assignment], points, rtol=1e-5)


def test_spherical_objective_never_falls_over_the_iterations():
    rng = np.random.default_rng(1)
    problems = [
        degenerate(kind, rng) for kind in ("random", "duplicates", "zero centres", "antipodal") for _ in range(8)
    ]
    points, weights, init = (np.stack(x) for x in zip(*problems, strict=True))
    objectives = []
    for iterations in (1, 2, 4):
        run = jax.vmap(lambda p, w, i, cap=iterations: kmeans(p, w, i, tol=0.0, max_iterations=cap).objective)
        objectives.append(np.asarray(run(points, weights, init)))
    steps = np.diff(objectives, axis=0)
    assert steps.min() > -1e-5
    assert (steps.sum(axis=0) > 1e-3).sum() > 8  # and it does rise: more than one iteration was needed


def test_spherical_default_tolerance_stops_at_a_fixed_point():
    points, weights, init = random_problem(0)
    result = kmeans(points, weights, init)
    assert 1 < result.iterations < 100
    for k in range(len(init)):
        of_k = np.asarray(result.assignment) == k
        expected = unit_rows((weights[of_k, None] * unit_rows(points[of_k])).sum(axis=0))
        np.testing.assert_allclose(result.directions[k], expected, atol=2e-3)


@pytest.mark.optimized
@pytest.mark.parametrize(("update", "tol"), [("spherical", 1e-6), ("spherical", 0.0), ("mean", 5.0), ("mean", 1e-3)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_numpy_transcription(update, tol, seed):
    points, weights, init = random_problem(seed)
    ours = kmeans(points, weights, init, update=update, tol=tol)
    directions, means, assignment, objective, iterations = numpy_kmeans(points, weights, init, update=update, tol=tol)
    assert ours.iterations == iterations > 1
    np.testing.assert_array_equal(ours.assignment, assignment)
    np.testing.assert_allclose(ours.directions, directions, atol=1e-5)
    np.testing.assert_allclose(ours.means, means, rtol=1e-4)
    np.testing.assert_allclose(ours.objective, objective, rtol=1e-5)


@pytest.mark.parametrize(("update", "tol", "loose"), [("spherical", 1e-6, 1e-4), ("mean", 5.0, 500.0)])
def test_default_tolerances(update, tol, loose):
    points, weights, init = random_problem(3, n=2000)  # so many that the last steps are small
    default, explicit = (kmeans(points, weights, init, update=update, **options) for options in ({}, {"tol": tol}))
    looser = kmeans(points, weights, init, update=update, tol=loose)
    assert looser.iterations < default.iterations == explicit.iterations


def test_updates_differ_where_lengths_do():
    points = np.array([[10.0, 0.0], [0.0, 1.0]], np.float32)
    init = np.array([[1.0, 1.0]], np.float32)
    ones = np.ones(2, np.float32)
    spherical, mean = (kmeans(points, ones, init, update=update) for update in UPDATES)
    np.testing.assert_allclose(spherical.directions, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(mean.directions, unit_rows(np.array([[10.0, 1.0]])), rtol=1e-6)
    np.testing.assert_allclose(spherical.means, [[5, 0.5]])
    np.testing.assert_allclose(mean.means, [[5, 0.5]])


@both_updates
def test_same_partition_as_sklearn_on_well_separated_unit_points(update):
    points, truth = blobs()
    points = unit_rows(points)
    init = kmeans_plus_plus(jax.random.key(0), points, np.ones(len(points), np.float32), k=4)
    ours = kmeans(points, np.ones(len(points), np.float32), init, update=update)
    theirs = SklearnKMeans(4, n_init=3, random_state=0).fit_predict(points)
    assert adjusted_rand_score(theirs, np.asarray(ours.assignment)) == 1
    assert adjusted_rand_score(truth, np.asarray(ours.assignment)) == 1


@both_updates
def test_points_of_weight_zero_change_nothing(update):
    points, weights, init = random_problem(0)
    ghosts = -1000 * np.random.default_rng(9).random((20, points.shape[1])).astype(np.float32)
    without = kmeans(points, weights, init, update=update)
    haunted = kmeans(np.concatenate([points, ghosts]), np.concatenate([weights, np.zeros(20)]), init, update=update)
    assert haunted.iterations == without.iterations
    np.testing.assert_array_equal(haunted.assignment[: len(points)], without.assignment)
    for field in ("directions", "means", "counts", "objective"):
        np.testing.assert_allclose(getattr(haunted, field), getattr(without, field), rtol=1e-5, atol=1e-6)


@both_updates
def test_points_of_length_zero_change_nothing_and_count_nothing(update):
    points, weights, init = random_problem(0)
    padded = np.concatenate([points, np.zeros((20, points.shape[1]), np.float32)])
    without = kmeans(points, weights, init, update=update)
    result = kmeans(padded, np.concatenate([weights, np.full(20, 7, np.float32)]), init, update=update)
    for field in ("directions", "means", "counts", "objective"):
        np.testing.assert_allclose(getattr(result, field), getattr(without, field), rtol=1e-5, atol=1e-6)


@both_updates
def test_weight_two_is_the_point_twice(update):
    points, _, init = random_problem(1)
    doubled = np.arange(len(points)) % 3 == 0
    weighted = kmeans(points, (1 + doubled).astype(np.float32), init, update=update)
    twice = np.concatenate([points, points[doubled]])
    repeated = kmeans(twice, np.ones(len(twice), np.float32), init, update=update)
    plain = kmeans(points, np.ones(len(points), np.float32), init, update=update)
    np.testing.assert_array_equal(weighted.assignment, repeated.assignment[: len(points)])
    for field in ("directions", "means", "counts", "objective"):
        np.testing.assert_allclose(getattr(weighted, field), getattr(repeated, field), rtol=1e-5, atol=1e-6)
    assert np.abs(weighted.directions - plain.directions).max() > 1e-3


def test_spherical_is_blind_to_the_lengths_of_the_points_and_mean_is_not():
    points, weights, init = random_problem(2)
    lengths = np.random.default_rng(3).uniform(0.01, 100, (len(points), 1)).astype(np.float32)
    plain, scaled = kmeans(points, weights, init), kmeans(points * lengths, weights, init)
    np.testing.assert_array_equal(scaled.assignment, plain.assignment)
    np.testing.assert_allclose(scaled.directions, plain.directions, atol=1e-5)
    one, other = (kmeans(p, weights, init, update="mean", tol=0.0).directions for p in (points, points * lengths))
    assert np.abs(one - other).max() > 0.01


@both_updates
def test_an_empty_cluster_takes_the_worst_served_point(update):
    degrees = np.deg2rad([0, 10, 90])
    points = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    centres = np.deg2rad([40, 250])  # nobody is nearest to the second; 90 degrees is furthest from the first
    init = np.stack([np.cos(centres), np.sin(centres)], axis=1).astype(np.float32)
    result = kmeans(points, np.ones(3, np.float32), init, update=update, max_iterations=1)
    np.testing.assert_allclose(result.directions[1], [0, 1], atol=1e-6)
    np.testing.assert_allclose(result.directions[0], [np.cos(np.deg2rad(5)), np.sin(np.deg2rad(5))], atol=1e-6)
    assert result.assignment.tolist() == [0, 0, 1]
    assert result.counts.tolist() == [2, 1]


def test_the_worst_served_point_of_weight_zero_is_not_taken():
    degrees = np.deg2rad([0, 10, 60, 90])
    points = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    init = np.array([[1.0, 0.1], [-1.0, -1.0]], np.float32)
    result = kmeans(points, np.array([1, 1, 1, 0], np.float32), init, max_iterations=1)
    np.testing.assert_allclose(result.directions[1], points[2], atol=1e-6)


def test_two_empty_clusters_take_the_two_worst_served_points():
    points = np.array([[1, 0, 0], [1, 0.1, 0], [1, 0, 1], [1, 3, 0]], np.float32)
    init = np.array([[1, 0, 0], [-1, -1, 0], [-1, 0, -1]], np.float32)
    result = kmeans(points, np.ones(4, np.float32), init, max_iterations=1)
    np.testing.assert_allclose(result.directions[1:], unit_rows(points)[[3, 2]], atol=1e-6)


@both_updates
def test_duplicates_leave_spare_clusters_empty_with_mean_zero(update):
    points = np.repeat(np.array([[2.0, 0.0], [0.0, 4.0]], np.float32), 3, axis=0)
    init = np.array([[1, 0], [0, 1], [1, 1], [-1, 0]], np.float32)
    result = kmeans(points, np.ones(6, np.float32), init, update=update)
    assert result.counts.tolist() == [3, 3, 0, 0]
    np.testing.assert_array_equal(result.means, [[2, 0], [0, 4], [0, 0], [0, 0]])
    np.testing.assert_allclose(result.directions[3], [-1, 0])


@both_updates
def test_means_are_the_plain_averages_of_the_members(update):
    points, _, init = random_problem(4)
    result = kmeans(points, np.ones(len(points), np.float32), init, update=update)
    assignment = np.asarray(result.assignment)
    for k in range(len(init)):
        np.testing.assert_allclose(result.means[k], points[assignment == k].mean(axis=0), rtol=1e-5)
        assert result.counts[k] == (assignment == k).sum()


@both_updates
def test_eager_equals_jitted(update):
    points, weights, init = random_problem(5)
    jitted = kmeans(points, weights, init, update=update, max_iterations=3)
    with jax.disable_jit():
        eager = kmeans(jnp.asarray(points), jnp.asarray(weights), jnp.asarray(init), update=update, max_iterations=3)
    for one, other in zip(jitted, eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert jitted.iterations > 1


@pytest.mark.optimized
@both_updates
def test_all_classes_at_once_equal_one_by_one(update):
    problems = [random_problem(seed) for seed in range(3)]
    points, weights = (np.stack(x) for x in zip(*(p[:2] for p in problems), strict=True))
    weights[1, 20:] = 0  # classes need not be of one size
    together = cluster_classes(jax.random.key(7), points, weights, k=4, update=update)
    keys = jax.random.split(jax.random.key(7), 3)
    last_two = cluster_classes(keys[1:], points[1:], weights[1:], k=4, update=update)
    for one, other in zip(together, last_two, strict=True):
        np.testing.assert_allclose(one[1:], other, rtol=1e-4, atol=1e-5)
    for index, key in enumerate(keys):
        init = kmeans_plus_plus(jax.random.split(key, 1)[0], points[index], weights[index], k=4)
        alone = kmeans(points[index], weights[index], init, update=update)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[index], other, rtol=1e-4, atol=1e-5)


def test_the_best_of_the_restarts_is_kept():
    points, weights, _ = random_problem(6)
    key, restarts = jax.random.key(0), 6
    best = cluster_classes(key, points[None], weights[None], k=4, restarts=restarts)
    inits = [
        kmeans_plus_plus(one, points, weights, k=4) for one in jax.random.split(jax.random.split(key, 1)[0], restarts)
    ]
    starts = [kmeans(points, weights, init) for init in inits]
    objectives = np.array([start.objective for start in starts])
    assert np.ptp(objectives) > 1e-4  # the starts do differ
    np.testing.assert_allclose(best.objective[0], objectives.max(), rtol=1e-6)
    np.testing.assert_allclose(best.means[0], starts[objectives.argmax()].means, rtol=1e-4)


def test_a_class_without_points_gives_zeros_beside_those_with():
    points, truth = blobs()
    three = np.stack([points, np.zeros_like(points), -points])
    weights = np.ones((3, len(points)), np.float32)
    weights[1] = 0
    result = cluster_classes(jax.random.key(0), three, weights, k=4, update="spherical")
    assert all(np.isfinite(leaf).all() for leaf in result)
    np.testing.assert_array_equal(result.means[1], 0)
    np.testing.assert_array_equal(result.counts[1], 0)
    for index in (0, 2):
        assert adjusted_rand_score(truth, np.asarray(result.assignment[index])) == 1


def test_same_key_same_bytes_and_another_key_another_start():
    points, weights, _ = (np.stack(x) for x in zip(*map(random_problem, (0, 1, 8)), strict=True))
    first, again, other = (
        cluster_classes(jax.random.key(seed), points, weights, k=4, update="spherical") for seed in (0, 0, 1)
    )
    for one, two in zip(first, again, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
    assert np.abs(first.directions - other.directions).max() > 1e-3


def test_plus_plus_picks_points_of_positive_weight_distinct_while_possible():
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    points = np.concatenate([rows, rows, rows, np.zeros((2, 3), np.float32)])  # every direction three times
    weights = np.array([1, 1, 1, 1, 0, 0] * 3 + [1, 1], np.float32)  # two of the six directions do not exist
    keys = jax.random.split(jax.random.key(0), 50)
    picked = jax.vmap(lambda key: kmeans_plus_plus(key, points, weights, k=4))(keys)
    for centres in np.asarray(picked):
        assert sorted(map(tuple, centres)) == sorted(map(tuple, rows[:4]))
    orders = {centres.tobytes() for centres in np.asarray(picked)}
    assert len(orders) > 10


def test_plus_plus_falls_back_to_repeats_when_there_are_too_few_points():
    points = np.array([[3, 0], [0, 2], [5, 5]], np.float32)
    centres = kmeans_plus_plus(jax.random.key(0), points, np.array([1, 1, 0], np.float32), k=5)
    assert {tuple(row) for row in np.asarray(centres).tolist()} == {(3, 0), (0, 2)}


def test_plus_plus_of_no_point_is_zeros():
    points = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(kmeans_plus_plus(jax.random.key(0), points, np.zeros(4, np.float32), k=3), 0)


def test_plus_plus_of_many_points_looks_at_some_of_those_that_exist():
    points, weights, _ = random_problem(3, n=600)
    weights[300:] = 0
    keys = jax.random.split(jax.random.key(0), 40)
    chosen = np.concatenate([kmeans_plus_plus(key, points, weights, k=4, candidates=64) for key in keys])
    rows = (chosen[:, None] == points[None]).all(axis=2).argmax(axis=1)
    assert (rows < 300).all()
    assert len(set(rows)) > 100  # of 160: others each time
    few = kmeans_plus_plus(keys[0], points, weights, k=4, candidates=4)
    assert len(np.unique(few, axis=0)) == 4  # all four candidates, each once


def test_plus_plus_draws_the_first_by_weight_and_the_next_by_weight_and_distance():
    points = np.array([[1, 0, 0], [0, 2, 0], [0.8, 0.6, 0], [0, 0, 3]], np.float32)
    weights = np.array([1, 2, 3, 4], np.float32)
    keys = jax.random.split(jax.random.key(1), 4000)
    picked = np.asarray(jax.vmap(lambda key: kmeans_plus_plus(key, points, weights, k=2))(keys))
    index = (picked[:, :, None, :] == points).all(axis=-1).argmax(axis=-1)
    np.testing.assert_allclose(np.bincount(index[:, 0], minlength=4) / 4000, weights / 10, atol=0.03)
    after_first = index[index[:, 0] == 2, 1]  # cosines to (.8, .6, 0): .8, .6, 1, 0
    expected = weights * [0.2, 0.4, 0, 1]
    np.testing.assert_allclose(np.bincount(after_first, minlength=4) / len(after_first), expected / 5, atol=0.05)


def test_unit_has_length_one_or_zero_and_the_direction_of_its_argument():
    vectors = np.array([[[3.0, 4.0], [0.0, 0.0]], [[-1e-12, 0.0], [0.0, 1e12]]], np.float32)
    np.testing.assert_allclose(unit(vectors), [[[0.6, 0.8], [0, 0]], [[-1, 0], [0, 1]]], rtol=1e-6)


def test_whole_numbers_have_a_direction_in_float32():
    np.testing.assert_allclose(unit(jnp.array([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_points_of_double_precision_may_have_weights_of_single():
    points = np.random.default_rng(0).normal(size=(50, 4))
    with jax.enable_x64(True):
        start = kmeans_plus_plus(jax.random.key(0), points, np.ones(50, np.float32), k=3)
        found = kmeans(points, np.ones(50, np.float32), start)
        assert found.directions.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1, rtol=1e-9)


def test_an_unknown_update_is_an_error_that_names_the_known():
    points, weights, init = random_problem(0)
    expected = r"'typo'.*'spherical' or 'mean'"
    with pytest.raises(ValueError, match=expected):
        kmeans(points, weights, init, update="typo")
    with pytest.raises(ValueError, match=expected):
        cluster_classes(jax.random.key(0), points[None], weights[None], update="typo")


@pytest.mark.parametrize(
    ("devices", "classes", "expected"),
    [(1, 20, 16), (8, 20, 24), (8, 80, 80), (64, 80, 128), (8, 1000, 128), (8, 3, 8)],
)
def test_accelerators_share_the_classes_and_none_is_padded_beyond(monkeypatch, devices, classes, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert classes_at_once(SimpleNamespace(size=devices), 8192 * 2048 * 4, classes) == expected


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@both_updates
def test_features_of_half_precision_are_clustered_as_in_float32(dtype, update):
    """Thousands of members have a sum, and a count, that half precision cannot hold."""
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(0, 0.1, (1, 4000, 6)) + 3 * np.eye(6)[np.arange(4000) % 2], dtype)
    weights = jnp.ones(points.shape[:2], dtype)
    found = cluster_classes(jax.random.key(0), points, weights, k=2, update=update)
    expected = cluster_classes(
        jax.random.key(0), *(x.astype(jnp.float32) for x in (points, weights)), k=2, update=update
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.counts.tolist() == [[2000, 2000]]


def test_long_vectors_of_half_precision_have_a_direction():
    long = jnp.full((2, 2048), 6, jnp.float16)
    np.testing.assert_allclose(unit(long), 2048**-0.5, rtol=1e-3)
    assert unit(long).dtype == jnp.float16


def test_keys_of_either_kind_draw_the_same():
    points, weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 20, 3)), jnp.float32), jnp.ones((2, 20))
    old, new = (cluster_classes(key, points, weights, k=3) for key in (jax.random.PRNGKey(1), jax.random.key(1)))
    np.testing.assert_array_equal(old.means, new.means)
