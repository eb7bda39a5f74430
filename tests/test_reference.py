"""The package equals `reference/numpy_lpcam.py`, the reference's steps in plain NumPy, step by step and as a chain.

The transcription runs in float64 and channel-first, the package in float32 and channel-last; both get the same float32
numbers. Where the package differs on purpose, the test says so in its name or in a comment.
"""

from typing import NamedTuple

import numpy as np
import pytest
from reference import numpy_lpcam as reference

from lpcam_jax import (
    FeatureSample,
    Prototypes,
    cam,
    class_scores,
    confusion_matrix,
    fuse,
    iou,
    kmeans,
    lpcam,
    normalize,
    resize_bilinear,
    resize_nearest,
    seed_mask,
    seed_scores,
    select_prototypes,
    split,
    threshold_sweep,
    without_context,
)
from lpcam_jax.results.counts import THRESHOLDS, SeedScoring
from lpcam_jax.systems.lpcam.maps import on_picture
from lpcam_jax.systems.prototyping.sampling import draw_pictures

pytestmark = pytest.mark.optimized

SCALES = (1.0, 0.5, 1.5, 2.0)
SIZES = [(47, 63), (96, 64), (33, 81)]
D, N = 24, 5
PROTOCOLS = ("voc", "coco")
OUR_BOUNDS = {"voc": {}, "coco": {"context": (0.0, 0.5)}}  # the defaults are VOC's
REFERENCE_BOUNDS = {"voc": reference.VOC_BOUNDS, "coco": reference.COCO_BOUNDS}


def channels_first(x):
    """(..., h, w, c) -> float64 (..., c, h, w)."""
    return np.moveaxis(np.asarray(x, np.float64), -1, -3)


def grids(size):
    """Feature grids of a picture, as ResNet-50 at stride 16 gives them."""
    return [tuple(reference.ceil_div(int(np.round(side * scale)), 16) for side in size) for scale in SCALES]


def random_pairs(rng, size):
    """Non-negative float32 features of a picture and of its mirror image at every scale, a zero feature among them."""
    pairs = [[np.maximum(rng.normal(size=(*grid, D)), 0).astype(np.float32) for _ in "ab"] for grid in grids(size)]
    for straight, mirrored in pairs:
        straight[0, 0] = mirrored[0, -1] = 0
    return pairs


def random_prototypes(rng, k=6):
    """Ragged float32 prototypes; class 1 has no context, class 2 one prototype of each kind."""
    class_mask, context_mask = rng.random((2, N, k)) < 0.6
    class_mask[:, 0], context_mask[1] = True, False
    class_mask[2], context_mask[2] = np.arange(k) == 3, np.arange(k) == 0
    centres = np.maximum(rng.normal(size=(2, N, k, D)), 0).astype(np.float32) * 20
    return Prototypes(centres[0], class_mask, centres[1], context_mask)


def as_lists(prototypes):
    """What the transcription takes: (class prototypes, context prototypes) of every class."""
    each = zip(*(np.asarray(leaf) for leaf in prototypes[:4]), strict=True)
    return [(a[a_mask].astype(float), b[b_mask].astype(float)) for a, a_mask, b, b_mask in each]


def of_reference(pairs):
    return [tuple(channels_first(one) for one in pair) for pair in pairs]


def our_cams(pairs, weights):
    """As in `lpcam_jax.systems.lpcam.maps`: the mirror image's features are mirrored back first."""
    return [np.asarray(cam(a, weights) + cam(b[:, ::-1], weights)) for a, b in pairs]


def our_lpcams(pairs, prototypes):
    return [np.asarray(lpcam(a + b[:, ::-1], prototypes)) for a, b in pairs]


# Class activation maps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_cam_at_every_scale_fused_and_normalized(seed, size):
    rng = np.random.default_rng(seed)
    pairs, weights = random_pairs(rng, size), rng.normal(size=(D, N)).astype(np.float32)
    labels = np.array([1, 0, 1, 1, 0])
    ours = our_cams(pairs, weights)
    for one, pair in zip(ours, of_reference(pairs), strict=True):
        np.testing.assert_allclose(
            channels_first(one), reference.scale_cam(pair, weights.T.astype(float)), rtol=1e-5, atol=1e-5
        )
    keys, strided, high = reference.cam(of_reference(pairs), weights.T.astype(float), labels, *size)
    maps = on_picture([one[..., keys] for one in ours], size, stride=16)
    np.testing.assert_allclose(channels_first(maps), high, atol=2e-6)
    at_stride_4 = [resize_bilinear(one[..., keys], strided.shape[1:]) for one in ours]
    np.testing.assert_allclose(channels_first(normalize(sum(at_stride_4))), strided, atol=2e-6)


def test_a_flat_cam_is_zeros_where_the_reference_gives_ones():
    weights = np.ones((D, 1), np.float32)
    pairs = [[np.full((1, 1, D), 2, np.float32)] * 2]
    _, _, high = reference.cam(of_reference(pairs), weights.T, np.ones(1), 16, 16)
    np.testing.assert_allclose(high, 1, atol=1e-6)
    np.testing.assert_array_equal(normalize(fuse(our_cams(pairs, weights), (16, 16))), 0)


# Prototypes


@pytest.mark.parametrize("size", [*SIZES, (250, 171)])
@pytest.mark.parametrize("tau", [0.1, 0.25])
def test_split_on_the_torch_nearest_grid(tau, size):
    rng = np.random.default_rng(3)
    saved = rng.random(size).astype(np.float32)
    saved[rng.random(size) < 0.3] = tau  # ties belong to neither
    grid = grids(size)[0]
    features = rng.random((*grid, D)).astype(np.float32)
    of_class, of_context = reference.split_features(np.moveaxis(features, -1, 0), saved, np.float32(tau))
    masks = split(resize_nearest(saved[..., None], grid)[..., 0], threshold=tau)
    for rows, mask in zip((of_class, of_context), masks, strict=True):
        assert 0 < len(rows) < features.size / D
        np.testing.assert_array_equal(features[np.asarray(mask) > 0], rows)


def noisy_clusters(rng, n, k, *, length, noise=0.4):
    """Float32 features around k directions, of lengths between half and one and a half times `length`."""
    directions = np.maximum(rng.normal(size=(k, D)), 0)
    points = np.maximum(directions[rng.integers(k, size=n)] + noise * rng.normal(size=(n, D)), 0)
    points *= length * rng.uniform(0.5, 1.5, (n, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)


@pytest.mark.parametrize("length", [1, 8, 32])
@pytest.mark.parametrize("seed", range(4))
def test_kmeans_follows_the_reference_update_by_update(seed, length):
    rng = np.random.default_rng(seed)
    points = noisy_clusters(rng, 300, 6, length=length)
    start = points[rng.choice(len(points), 6, replace=False)]
    centres, _, iterations = reference.cluster(points.astype(float), start.astype(float))
    ours = kmeans(points, np.ones(300, np.float32), start, update="mean")
    assert ours.iterations == iterations
    np.testing.assert_allclose(ours.directions, centres / np.linalg.norm(centres, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_at_a_fixed_point_has_the_centres_and_the_assignment_of_the_reference(seed):
    rng = np.random.default_rng(seed)
    points = noisy_clusters(rng, 300, 6, length=3000)  # so long that 5 is nothing: it goes on until nothing changes
    start = points[rng.choice(len(points), 6, replace=False)]
    centres, assignment, iterations = reference.cluster(points.astype(float), start.astype(float))
    ours = kmeans(points, np.ones(300, np.float32), start, update="mean")
    assert ours.iterations == iterations > 2
    np.testing.assert_allclose(ours.means, centres, rtol=1e-5, atol=1e-6 * 3000)
    np.testing.assert_array_equal(ours.assignment, assignment)


def test_a_kmeans_that_stopped_early_has_the_centres_of_its_last_update():
    """Not the means of the points that are nearest to them: those would be one update further."""
    rng = np.random.default_rng(0)
    points = noisy_clusters(rng, 300, 6, length=8)
    start = points[rng.choice(len(points), 6, replace=False)]
    centres, _, iterations = reference.cluster(points.astype(float), start.astype(float))
    further, _, _ = reference.cluster(points.astype(float), centres, tol=np.inf)
    ours = kmeans(points, np.ones(300, np.float32), start, update="mean")
    assert 1e-3 < np.linalg.norm(further - centres) / np.linalg.norm(centres) < 0.1
    assert ours.iterations == iterations
    np.testing.assert_allclose(ours.means, centres, rtol=1e-5, atol=1e-5)


def test_pictures_are_drawn_class_by_class_with_replacement_and_count_as_often_as_drawn():
    rng = np.random.default_rng(1)
    labels = (rng.random((30, N)) < 0.3).astype(int)
    # The rule is the reference's, the random numbers are ours: another generator for each class.
    generators = (np.random.default_rng([7, n]) for n in range(N))
    expected = reference.draw_pictures(labels, 40, lambda having, count: next(generators).choice(having, count))
    drawn = draw_pictures(labels, 40, seed=7)
    np.testing.assert_array_equal(drawn.T, [np.bincount(one, minlength=30) for one in expected])
    assert (drawn.sum(axis=0) == 40).all()

    features = [noisy_clusters(rng, 9, 3, length=3000) for _ in range(30)]
    repeated = np.concatenate([features[index] for index in expected[0]])
    start = repeated[[0, 100, 300]]
    centres, _, iterations = reference.cluster(repeated.astype(float), start.astype(float))
    weights = np.repeat(drawn[:, 0], 9).astype(np.float32)
    ours = kmeans(np.concatenate(features), weights, start, update="mean")
    assert ours.iterations == iterations
    np.testing.assert_allclose(ours.means, centres, rtol=1e-5, atol=1e-6 * 3000)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_a_softmax_over_classes(seed):
    rng = np.random.default_rng(seed)
    centres = 30 * rng.random((N, 7, D)).astype(np.float32)
    weights = rng.normal(size=(D, N)).astype(np.float32) * 0.1
    ours = np.asarray(class_scores(centres, weights))
    for n in range(N):
        np.testing.assert_allclose(ours[n], reference.scores(centres[n].astype(float), weights.T.astype(float)), 1e-4)


@pytest.mark.parametrize("length", [0.5, 2, 5])  # at 8 some score < 1e-38, which JAX rounds to 0, and COCO has 0 < p
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(3))
def test_selection_on_the_bounds_of_both_data_sets(seed, protocol, length):
    rng = np.random.default_rng(seed)
    centres = (length * rng.random((2, N, 12, D))).astype(np.float32)
    weights = rng.normal(size=(D, N)).astype(np.float32)
    ours = select_prototypes(*centres, weights, **OUR_BOUNDS[protocol])
    for n, (of_class, of_context) in enumerate(as_lists(ours)):
        rows, head = centres[:, n].astype(float), weights.T.astype(float)
        expected = reference.select(*rows, head, n, REFERENCE_BOUNDS[protocol])
        np.testing.assert_array_equal(of_context, expected[1])
        np.testing.assert_array_equal(of_class, expected[0])


# Four classes, since one or two are scored in another way; the logits of a centre (x, y, 1) are x, y, -99, -99.
OTHERS_APART = np.float32([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -99, -99]])


def test_selection_falls_back_and_context_may_be_empty():
    weights = OTHERS_APART
    class_centres = np.zeros((4, 2, 3), np.float32)
    class_centres[:2] = [[[1, 0, 1], [2, 0, 1]], [[0, 9, 1], [0, 1, 1]]]  # class 0 scores .73 and .88
    context_centres = np.zeros_like(class_centres)
    context_centres[:2] = [[[9, 0, 1], [0, 9, 1]], [[0, 0.5, 1], [0, 9, 1]]]
    ours = as_lists(select_prototypes(class_centres, context_centres, weights))[:2]
    for n in range(2):
        expected = reference.select(class_centres[n], context_centres[n], weights.T, n, reference.VOC_BOUNDS)
        for kept, of_reference in zip(ours[n], expected, strict=True):
            np.testing.assert_array_equal(kept, of_reference)
    assert [len(one) for pair in ours for one in pair] == [1, 0, 1, 1]
    # On VOC the reference has no fallback and ends in an error; ours falls back on every data set.
    without = reference.select(class_centres[0], context_centres[0], weights.T, 0, reference.VOC_BOUNDS, fallback=False)
    assert len(without[0]) == 0


@pytest.mark.parametrize("other", [1, 30, 200], ids=["all score .5", "all score 1e-13", "all score 0"])
def test_the_fallback_keeps_all_centres_within_1e_6_of_the_best(other):
    weights = OTHERS_APART
    centres = np.zeros((4, 3, 3), np.float32)
    centres[:2] = [[[1, other, 1]] * 3, [[0, 9, 1]] * 3]
    kept, _ = reference.select(centres[0], centres[0], weights.T, 0, reference.COCO_BOUNDS)
    ours = as_lists(select_prototypes(centres, centres, weights))
    np.testing.assert_array_equal(ours[0][0], kept)
    assert len(kept) == 3


# LPCAM


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_context", [True, False], ids=["lpcam", "lpcam_f"])
def test_lpcam_at_every_scale_fused_and_normalized(with_context, size):
    rng = np.random.default_rng(size[0])
    pairs, prototypes, labels = random_pairs(rng, size), random_prototypes(rng), np.array([1, 1, 1, 0, 1])
    chosen = prototypes if with_context else without_context(prototypes)
    ours = our_lpcams(pairs, chosen)
    # Class 1 has no context: the reference leaves out the ReLU. As features are >= 0, ours changes nothing there.
    for one, pair in zip(ours, of_reference(pairs), strict=True):
        for n, of_class in enumerate(as_lists(chosen)):
            np.testing.assert_allclose(one[..., n], reference.scale_lpcam(pair, *of_class), atol=1e-6)

    lists = as_lists(prototypes)
    keys, strided, high = reference.lpcam(
        of_reference(pairs), lists, labels, *size, combine="mean", with_context=with_context
    )
    _, _, summed = reference.lpcam(of_reference(pairs), lists, labels, *size, combine="sum", with_context=with_context)
    np.testing.assert_allclose(summed, high, atol=1e-12)
    maps = on_picture([one[..., keys] for one in ours], size, stride=16, epsilon=0)
    np.testing.assert_allclose(channels_first(maps), high, atol=2e-6)
    at_stride_4 = sum(resize_bilinear(one[..., keys], strided[0].shape) for one in ours)
    np.testing.assert_allclose(channels_first(normalize(at_stride_4, epsilon=0)), strided, atol=2e-6)


def test_a_map_that_is_zero_everywhere_is_zeros_where_the_reference_has_nan():
    rng = np.random.default_rng(0)
    pairs, same = random_pairs(rng, (47, 63)), rng.random((1, 1, D)).astype(np.float32)
    prototypes = Prototypes(same, np.ones((1, 1), bool), same, np.ones((1, 1), bool))
    with np.errstate(invalid="ignore"):
        _, _, high = reference.lpcam(of_reference(pairs), as_lists(prototypes), np.ones(1), 47, 63)
    assert np.isnan(high).all()
    ours = normalize(fuse(our_lpcams(pairs, prototypes), (47, 63)))
    np.testing.assert_array_equal(ours, 0)
    np.testing.assert_array_equal(seed_mask(ours, np.ones(1)), 0)


# Seeds and their scores


@pytest.mark.parametrize("seed", range(3))
def test_seeds_with_ties(seed):
    rng = np.random.default_rng(seed)
    labels = np.array([0, 1, 1, 0, 1])
    maps = rng.integers(0, 9, (40, 31, N)).astype(np.float32) / 8  # ties of classes and with the threshold in plenty
    keys = np.flatnonzero(labels)
    for threshold in (0.25, 0.3, 0.5):
        expected = reference.seed(keys, np.moveaxis(maps[..., keys], -1, 0), threshold)
        np.testing.assert_array_equal(seed_mask(maps, labels, background=threshold), expected)
    np.testing.assert_array_equal(seed_mask(maps, np.zeros(N)), 0)


def random_truth(rng, mask):
    """The mask with a third of its pixels wrong, and some of 255."""
    truth = np.where(rng.random(mask.shape) < 0.3, rng.integers(0, N, mask.shape), mask)
    return np.where(rng.random(mask.shape) < 0.1, 255, truth).astype(np.uint8)


def test_the_sweep_is_the_seed_mask_at_every_threshold():
    rng = np.random.default_rng(0)
    maps = (rng.integers(0, 101, (N, 50, 41)) / 100).astype(np.float32) ** 2
    truth = random_truth(rng, maps.argmax(axis=0) + 1)
    truth[truth == N] = 0
    winners, heights = maps.argmax(axis=0) + 1, maps.max(axis=0)
    ours = threshold_sweep(truth.ravel(), winners.ravel(), heights.ravel(), THRESHOLDS, num_classes=N + 1)
    for index, threshold in enumerate(THRESHOLDS):
        mask = reference.seed(np.arange(N), maps, threshold)
        np.testing.assert_array_equal(ours[index], reference.confusion([mask], [truth], N + 1))


def assert_scores(ours, expected, rtol=1e-5):
    """`ours` is a SeedScores."""
    for name in ("miou", "fp", "fn"):
        np.testing.assert_allclose(getattr(ours, name), expected[name], rtol)
    for name in ("precision", "recall"):  # the mean over background and foreground classes
        np.testing.assert_allclose(getattr(ours, name), np.nanmean(expected[name]), rtol)


@pytest.mark.parametrize("seed", range(3))
def test_confusion_iou_and_scores(seed):
    rng = np.random.default_rng(seed)
    # Class 6 occurs in neither, class 5 in the masks only, class 4 in the truth only.
    masks = [rng.choice([0, 1, 2, 3, 5], (20, 30)) for _ in range(3)]
    truths = [random_truth(rng, np.where(mask == 5, 1, mask)) for mask in masks]
    expected = reference.confusion(masks, truths, 7)
    ours = sum(np.asarray(confusion_matrix(t, m, num_classes=7), float) for t, m in zip(truths, masks, strict=True))
    np.testing.assert_array_equal(ours, expected)
    report = reference.seed_report(expected)
    assert np.isnan(report["iou"]).tolist() == [False] * 6 + [True]
    np.testing.assert_allclose(iou(ours), report["iou"], 1e-6)
    assert_scores(seed_scores(ours), report)


def test_the_report_over_pictures_is_that_of_every_mask_at_every_threshold():
    rng = np.random.default_rng(4)
    scoring, pictures = SeedScoring(N), []
    for size, keys in [((37, 41), [0, 3]), ((20, 55), [2]), ((16, 16), []), ((49, 30), [0, 1, 2])]:
        maps = rng.random((*size, len(keys))).astype(np.float32) ** 2
        truth = random_truth(rng, reference.seed(keys, np.moveaxis(maps, -1, 0), 0.4))
        scoring.add(maps, np.array(keys, int), truth)
        pictures.append((keys, np.moveaxis(maps, -1, 0), truth))

    def expected(threshold):
        masks = [reference.seed(keys, maps, threshold) for keys, maps, _ in pictures]
        return reference.seed_report(reference.confusion(masks, [truth for *_, truth in pictures], N + 1))

    report, curve = scoring.report(), [expected(threshold)["miou"] for threshold in THRESHOLDS]
    np.testing.assert_allclose(report["curve"]["threshold"], np.arange(100) / 100, rtol=1e-6)
    np.testing.assert_allclose(report["curve"]["miou"], curve, rtol=1e-5)
    assert report["fixed"]["threshold"] == 0.3
    np.testing.assert_allclose(report["best"]["miou"], max(curve), rtol=1e-5)
    for one in (report["best"], report["fixed"]):
        scores = expected(np.float32(one["threshold"]))
        np.testing.assert_allclose([np.nan if v is None else v for v in one["iou"]], scores["iou"], rtol=1e-5)
        for name in ("miou", "fp", "fn", "precision", "recall"):
            np.testing.assert_allclose(one[name], np.nanmean(scores[name]), rtol=1e-5)


# All of it


CLASSES, PARTS, TEXTURES, CLUSTERS = 3, 2, 3, 3
PLANTED_SIZES = [(143, 190), (201, 129), (176, 160)]
LENGTH = 3000.0  # so long that the tolerance of the k-means never stops it before a fixed point


class Picture(NamedTuple):
    size: tuple[int, int]
    labels: np.ndarray
    truth: np.ndarray
    pairs: list


def planted_pictures(rng, count=12):
    """Pictures as features: one or two objects of two parts each on a ground of two textures, and their truth.

    Returns:
        pictures, and a head (d, c) that sees the first part of a class well, the second less, and a little of the
        texture that goes with the class.
    """
    directions = np.maximum(rng.normal(size=(CLASSES * PARTS + TEXTURES, D)), 0) + 0.05
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wanted = np.full((len(directions), CLASSES), -6.0)
    for n in range(CLASSES):
        wanted[2 * n, n], wanted[2 * n + 1, n] = 9, 5
        wanted[CLASSES * PARTS + n] = -1 + 1.5 * (np.arange(CLASSES) == n)
    weights = np.linalg.lstsq(directions, wanted, rcond=None)[0] / LENGTH

    pictures = []
    for number in range(count):
        height, width = size = PLANTED_SIZES[number % 3]
        scene = np.full(size, CLASSES * PARTS + number % TEXTURES)
        scene[: height // 3] = CLASSES * PARTS + (number // 3) % TEXTURES
        truth = np.zeros(size, np.uint8)
        chosen = {number % CLASSES, *(rng.integers(CLASSES, size=number % 2))}
        for place, n in enumerate(sorted(chosen)):
            top, left = height // 4, place * width // 2 + 2
            bottom, right, middle = top + height // 2, left + width // 3, left + width // 8
            scene[top:bottom, left:middle], scene[top:bottom, middle:right] = 2 * n, 2 * n + 1
            truth[top:bottom, left:right] = n + 1
            truth[bottom : bottom + 2, left:right] = 255
        pairs = []
        for grid in grids(size):
            rows, columns = (((np.arange(g) + 0.5) * side / g).astype(int) for g, side in zip(grid, size, strict=True))
            ids = scene[rows][:, columns]
            pairs.append([planted_features(rng, directions[one]) for one in (ids, ids[:, ::-1])])
        pictures.append(Picture(size, np.isin(np.arange(CLASSES), list(chosen)), truth, pairs))
    return pictures, weights.astype(np.float32)


def planted_features(rng, directions):
    noisy = np.maximum(directions + 0.05 * rng.normal(size=directions.shape), 0)
    return (LENGTH * rng.uniform(0.6, 1.4, (*directions.shape[:-1], 1)) * noisy).astype(np.float32)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_features_to_miou(protocol):
    """Twelve pictures through every step. CAM to 1e-5 of its maximum, the same features, the same number of updates,
    centres and prototypes to 1e-5, LPCAM to 5e-6 of its maximum, the same seeds at every pixel, mIoU to 1e-6."""
    rng = np.random.default_rng(0)
    pictures, head = planted_pictures(rng)
    tau = {"voc": 0.1, "coco": 0.25}[protocol]
    labels = np.array([picture.labels for picture in pictures])
    used = [list(np.flatnonzero(labels[:, n])) for n in range(CLASSES)]
    if protocol == "coco":
        used = reference.draw_pictures(labels, 10, rng.choice)

    # CAM, then the features of every class and every context
    sample = FeatureSample(CLASSES, D)
    rows = [([], []) for _ in range(CLASSES)]
    for n, drawn in enumerate(used):
        for index in drawn:
            size, _, _, pairs = pictures[index]
            keys, _, high = reference.cam(of_reference(pairs), head.T.astype(float), labels[index], *size)
            saved = high[list(keys).index(n)]
            features = pairs[0][0]
            on_grid = reference.resize_nearest(saved, *features.shape[:2])
            assert abs(on_grid - tau).min() > 1e-5, "so near tau that float32 could decide otherwise"
            for both, one in zip(rows[n], reference.split_features(channels_first(features), saved, tau), strict=True):
                both.append(one)

            ours = normalize(fuse([one[..., n : n + 1] for one in our_cams(pairs, head)], size))
            np.testing.assert_allclose(ours[..., 0], saved, atol=1e-5)
            chosen = split(resize_nearest(ours, features.shape[:2])[..., 0], threshold=tau)
            for context in (False, True):
                sample.add(index, features, n, np.asarray(chosen[context]), context=context)

    # clusters and prototypes
    centres, means = [], []
    for context in (False, True):
        points, point_weights = sample.points(context=context)
        of_set = []
        for n in range(CLASSES):
            mine = np.concatenate(rows[n][context])
            assert point_weights[n].sum() == len(mine) > 30
            start = mine[rng.choice(len(mine), CLUSTERS, replace=False)]
            expected, _, iterations = reference.cluster(mine, start)
            ours = kmeans(points[n], point_weights[n], start.astype(np.float32), update="mean")
            assert ours.iterations == iterations
            np.testing.assert_allclose(ours.means, expected, rtol=1e-5, atol=1e-6 * LENGTH)
            centres.append(expected)
            of_set.append(np.asarray(ours.means))
        means.append(np.stack(of_set))
    prototypes = select_prototypes(*means, head, **OUR_BOUNDS[protocol])
    expected = [
        reference.select(centres[n], centres[CLASSES + n], head.T.astype(float), n, REFERENCE_BOUNDS[protocol])
        for n in range(CLASSES)
    ]
    for ours, of_class in zip(as_lists(prototypes), expected, strict=True):
        assert all(len(one) for one in of_class)
        for one, other in zip(ours, of_class, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * LENGTH)

    # maps, seeds and their scores
    scoring, masks, matrix = SeedScoring(CLASSES), [], 0
    for size, present, truth, pairs in pictures:
        combine = "sum" if protocol == "coco" else "mean"
        keys, _, high = reference.lpcam(of_reference(pairs), expected, present, *size, combine=combine)
        masks.append(reference.seed(keys, np.array(high), 0.3))

        maps = on_picture([one[..., keys] for one in our_lpcams(pairs, prototypes)], size, stride=16, epsilon=0)
        np.testing.assert_allclose(channels_first(maps), high, atol=5e-6)
        full = np.zeros((*size, CLASSES), np.float32)
        full[..., keys] = maps
        mask = seed_mask(full, present)
        np.testing.assert_array_equal(mask, masks[-1])
        matrix = matrix + np.asarray(confusion_matrix(truth, mask, num_classes=CLASSES + 1), float)
        scoring.add(maps, keys, truth)
    report = reference.seed_report(reference.confusion(masks, [picture.truth for picture in pictures], CLASSES + 1))
    assert 0.5 < report["miou"] < 1
    assert_scores(seed_scores(matrix), report, rtol=1e-6)
    np.testing.assert_allclose(scoring.report()["fixed"]["miou"], report["miou"], atol=1e-6)
