"""Measures of faithfulness, against classifiers whose answers are known in closed form; and their command."""

import numpy as np
import pytest
from test_commands import assert_one_line_error, picture
from test_evaluate import write_maps
from test_heatmaps import strictly_parsed

from lpcam_jax.data.shapes import Shapes
from lpcam_jax.results.faithfulness import (
    average_drop,
    blurred,
    deletion,
    impute,
    in_batches,
    increase_in_confidence,
    insertion,
    masked_confidence,
    pixel_ranks,
    road,
)
from lpcam_jax.systems.deeplab.config import DeepLabConfig
from lpcam_jax.training.run import Run

H, W = 6, 8
WHITE = np.ones((H, W, 3), np.float32)


def linear(weights):
    """A classifier of one class: the weighted sum of the red channel, weights (H, W)."""
    return lambda pictures: np.einsum("bhw,hw->b", pictures[..., 0], weights)[:, None]


@pytest.fixture
def weights():
    """Positive, different everywhere, summing to 1."""
    values = np.random.default_rng(0).permutation(np.arange(1, H * W + 1)).reshape(H, W).astype(float)
    return values / values.sum()


def test_ranks_go_from_high_to_low_and_ties_in_reading_order():
    assert pixel_ranks(np.array([[0.2, 0.9], [0.9, 0.0]])).tolist() == [[2, 0], [1, 3]]
    assert pixel_ranks(np.zeros((2, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_curves_of_a_linear_classifier_are_sums_of_its_sorted_weights(weights):
    ordered = np.concatenate([[0], np.cumsum(np.sort(weights.reshape(-1))[::-1])])
    into = insertion(linear(weights), WHITE, weights, 0, steps=H * W, baseline=0.0)
    out = deletion(linear(weights), WHITE, weights, 0, steps=H * W)
    np.testing.assert_allclose(into.scores, ordered, atol=1e-6)
    np.testing.assert_allclose(out.scores, 1 - ordered, atol=1e-6)
    np.testing.assert_allclose(into.fractions, np.arange(H * W + 1) / (H * W))
    # Weights 1..n in falling order: the sums are a parabola, and the area under it is known.
    n = H * W
    assert into.auc == pytest.approx((4 * n - 1) / (6 * n), abs=1e-6)
    assert out.auc == pytest.approx(1 - into.auc, abs=1e-6)


def test_no_order_is_better_than_the_weights_own_and_none_worse_than_its_reverse(weights):
    classify, rng = linear(weights), np.random.default_rng(1)
    areas = [insertion(classify, WHITE, m, 0, steps=12, baseline=0.0).auc for m in (weights, -weights)]
    others = [insertion(classify, WHITE, rng.random((H, W)), 0, steps=12, baseline=0.0).auc for _ in range(20)]
    assert areas[1] < min(others) < max(others) < areas[0]


def test_any_map_of_a_constant_classifier_is_worth_the_same(weights):
    def constant(pictures):
        return np.full((len(pictures), 2), 0.25)

    for one in (insertion, deletion):
        assert one(constant, WHITE, weights, 1, steps=5).auc == pytest.approx(0.25)
    assert road(constant, WHITE, weights, 1, fractions=(0.5,)).score == 0


def test_insertion_starts_from_the_blurred_picture_and_ends_at_the_picture(weights):
    picture = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    seen = []
    insertion(lambda pictures: seen.append(pictures) or np.zeros((len(pictures), 1)), picture, weights, 0, steps=4)
    deletion(
        lambda pictures: seen.append(pictures) or np.zeros((len(pictures), 1)),
        picture,
        weights,
        0,
        steps=4,
        baseline=np.float32([1, 2, 3]),
    )
    assert seen[0].shape == seen[1].shape == (5, H, W, 3)
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(seen[0][0], blurred(picture))
    np.testing.assert_array_equal(seen[0][-1], picture)
    np.testing.assert_array_equal(seen[1][0], picture)
    np.testing.assert_array_equal(seen[1][-1], np.broadcast_to(np.float32([1, 2, 3]), (H, W, 3)))
    assert (seen[0][1] != seen[0][0]).any(axis=-1).sum() <= H * W // 4


def test_blurring_is_a_mean_over_eleven_pixels_each_way():
    picture = np.zeros((21, 21, 3), np.float32)
    picture[10, 10] = 1
    result = blurred(picture)[..., 0]
    assert np.argwhere(result > 0).min(axis=0).tolist() == [5, 5]
    assert np.argwhere(result > 0).max(axis=0).tolist() == [15, 15]
    assert result.sum() == pytest.approx(1, abs=1e-5)
    assert result[10, 5] / result[10, 10] == pytest.approx(np.exp(-0.5), abs=1e-5)


def test_confidence_in_what_a_map_leaves(weights):
    half = np.zeros((H, W))
    half[:, : W // 2] = 1
    before, after = masked_confidence(linear(weights), WHITE, half, 0)
    assert before == pytest.approx(1, abs=1e-6)
    assert after == pytest.approx(weights[:, : W // 2].sum(), abs=1e-6)
    assert masked_confidence(linear(weights), WHITE, np.ones((H, W)), 0)[1] == pytest.approx(1, abs=1e-6)
    dimmed = masked_confidence(linear(weights), WHITE, np.full((H, W), 0.25), 0, baseline=0.2)[1]
    assert dimmed == pytest.approx(0.2 + 0.25 * 0.8, abs=1e-6)


def test_average_drop_and_increase_by_hand():
    before, after = [0.8, 0.5, 0.4, 0.0], [0.4, 0.6, 0.4, 0.0]
    assert average_drop(before, after) == pytest.approx(0.5 / 4)
    assert increase_in_confidence(before, after) == 0.25


def test_an_untouched_picture_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    np.testing.assert_array_equal(impute(picture, np.zeros((H, W), bool)), picture)
    with pytest.raises(ValueError, match="nothing to impute from"):
        impute(picture, np.ones((H, W), bool))


def weighted_mean(picture, row, column):
    """Of the neighbours that are in the picture, 1/6 straight and 1/12 across: written as a loop."""
    total, weight = 0.0, 0.0
    for i in (row - 1, row, row + 1):
        for j in (column - 1, column, column + 1):
            if (i, j) != (row, column) and 0 <= i < H and 0 <= j < W:
                own = 1 / 6 if i == row or j == column else 1 / 12
                total, weight = total + own * picture[i, j].astype(float), weight + own
    return total / weight


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_every_imputed_pixel_is_the_weighted_mean_of_its_neighbours(share):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (H, W, 3)).astype(np.uint8)
    removed = pixel_ranks(rng.random((H, W))) < share * H * W
    result = impute(picture, removed, noise=0)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[~removed], picture[~removed])
    for row, column in np.argwhere(removed):
        np.testing.assert_allclose(result[row, column], weighted_mean(result, row, column), atol=1e-3)


def test_a_ramp_is_imputed_exactly_and_the_noise_is_seeded():
    ramp = np.broadcast_to(np.arange(40.0)[None, :, None], (30, 40, 3))
    removed = np.zeros((30, 40), bool)
    removed[5:25, 5:35] = True
    np.testing.assert_allclose(impute(ramp, removed, noise=0), ramp, atol=1e-4)
    noisy = impute(ramp, removed, noise=0.1, seed=3)
    assert (noisy - ramp)[removed].std() == pytest.approx(0.1 * 39, rel=0.1)
    np.testing.assert_array_equal(noisy[~removed], ramp[~removed])
    np.testing.assert_array_equal(noisy, impute(ramp, removed, noise=0.1, seed=3))
    assert (noisy != impute(ramp, removed, noise=0.1, seed=4)).any()


def test_road_is_positive_for_the_right_map_and_negative_for_its_reverse():
    rng = np.random.default_rng(0)
    picture = np.full((20, 20, 3), 0.2)
    picture[6:12, 5:11] = 1.0
    here = np.zeros((20, 20))
    here[6:12, 5:11] = 1

    def bright(pictures):  # how much of the bright square is there
        return (pictures * here[..., None]).sum(axis=(1, 2, 3), keepdims=False)[:, None] / (3 * here.sum())

    right = road(bright, picture, here + 0.01 * rng.random((20, 20)), 0)
    wrong = road(bright, picture, -here + 0.01 * rng.random((20, 20)), 0)
    assert right.score > 0.2
    assert wrong.score == pytest.approx(-right.score, abs=0.05)
    assert right.most_first[0] > right.most_first[2]  # all of the square is gone
    assert right.least_first[0] == pytest.approx(1, abs=0.01)
    assert right.score == pytest.approx(np.mean(right.least_first - right.most_first) / 2)
    assert right.fractions.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("count", [1, 4, 9])
def test_batches_have_one_shape_and_change_nothing(count):
    shapes = []

    def classify(pictures):
        shapes.append(pictures.shape)
        return pictures.sum(axis=(1, 2))

    pictures = np.random.default_rng(0).random((count, 3, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(in_batches(classify, 4)(pictures), pictures.sum(axis=(1, 2)), rtol=1e-6)
    assert set(shapes) == {(4, 3, 5, 3)}


@pytest.fixture
def faithfulness(program, trained, tmp_path):
    """`faithfulness(maps, *words)`: how the command ended; the scores are in tmp_path / "scores"."""
    small = ("--side", 32, "--steps", 7, "--fractions", 0.3, 0.6)

    def run(maps, *words, ckpt=trained):
        words = ("--ckpt", ckpt, "--maps", maps, "--out", tmp_path / "scores", *small, *words)
        return program("lpcam_jax.__main__", "faithfulness", *words)

    return run


def test_the_command_compares_the_methods_with_no_explanation_at_all(faithfulness, mapped, tmp_path, tiny):
    finished = faithfulness(mapped[0], "--limit", 3)
    assert finished.code == 0, finished.err
    result = strictly_parsed(tmp_path / "scores" / "faithfulness.json")
    assert list(result["scores"]) == ["random", "centre", "cam", "lpcam_f", "lpcam"]
    labels = Shapes(tiny.data.scenes, seed=tiny.seed).labels
    assert (result["pictures"], result["pairs"]) == (3, int(labels[:3].sum()))
    for one in result["scores"].values():
        assert all(0 <= one[name] <= 1 for name in ("insertion", "deletion", "average_drop", "increase"))
        assert -0.5 <= one["road"] <= 0.5
    assert result["protocol"]["side"] == 32
    assert result["protocol"]["made_with"]["class_names"] == result["protocol"]["class_names"]
    lines = finished.out.splitlines()
    assert lines[0].split() == ["method", "insertion", "deletion", "avg.", "drop", "increase", "ROAD"]
    assert lines[1].split() == ["better", "higher", "lower", "lower", "higher", "higher"]
    assert [line.split()[0] for line in lines[3:8]] == ["random", "centre", "CAM", "LPCAM-F", "LPCAM"]
    cam = result["scores"]["cam"]
    shown = [f"{100 * cam[name]:.1f}" for name in ("insertion", "deletion", "average_drop", "increase", "road")]
    assert lines[5].split()[1:] == shown
    assert f"classes in 3 of {tiny.data.scenes} pictures" in lines[-1]
    assert "img/s" in finished.err or "s/img" in finished.err


def test_the_command_scores_maps_of_others_and_a_whole_map_loses_nothing(faithfulness, tmp_path):
    whole = np.ones((1, 8, 8), np.float16)
    for name in ("scene_00001", "scene_00004"):
        write_maps(tmp_path / "mine" / f"{name}.npz", classes=np.array([2]), whole=whole, nothing=0 * whole)
    none = np.zeros((0, 8, 8), np.float16)
    write_maps(tmp_path / "mine" / "scene_00000.npz", classes=np.array([], int), whole=none, nothing=none)
    finished = faithfulness(tmp_path / "mine", "--methods", "whole")
    assert finished.code == 0, finished.err
    result = strictly_parsed(tmp_path / "scores" / "faithfulness.json")
    assert list(result["scores"]) == ["random", "centre", "whole"]
    assert (result["pictures"], result["pairs"]) == (3, 2)
    assert result["scores"]["whole"]["average_drop"] == pytest.approx(0, abs=1e-6)
    assert result["scores"]["whole"]["increase"] == 0
    assert result["protocol"]["made_with"] is None


def test_pictures_of_a_folder_are_scored_and_those_that_cannot_be_read_are_named(faithfulness, tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "my" / f"{name}.jpg", seed=1)
        write_maps(tmp_path / "mine" / f"{name}.npz", classes=np.array([2]), cam=np.eye(8, dtype=np.float16)[None])
    (tmp_path / "my" / "b.jpg").write_bytes((tmp_path / "my" / "b.jpg").read_bytes()[:200])
    finished = faithfulness(tmp_path / "mine", "--images", tmp_path / "my")
    assert finished.code == 0, finished.err
    assert "b.jpg: damaged picture" in finished.out
    result = strictly_parsed(tmp_path / "scores" / "faithfulness.json")
    assert (result["pictures"], result["pairs"], len(result["skipped"])) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("--methods", "theirs"), r"has no maps 'theirs'; it has cam, lpcam_f, lpcam"),
        (("--limit", 0), r"--limit is 0; use at least 1"),
        (("--side", 0), r"--side is 0; use at least 1"),
        (("--fractions", 1.0), r"--fractions 1: give some between 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(faithfulness, mapped, words, pattern):
    assert_one_line_error(faithfulness(mapped[0], *words), pattern)


def test_runs_and_folders_that_do_not_fit_are_refused(faithfulness, mapped, tmp_path):
    Run.create(tmp_path / "masks", DeepLabConfig(), ("cat",))
    assert_one_line_error(faithfulness(mapped[0], ckpt=tmp_path / "masks"), r".*not classifier; name another")
    assert_one_line_error(faithfulness(mapped[0] / "seeds"), r"seeds holds masks; name a folder of maps")
    write_maps(tmp_path / "theirs" / "maps" / "scene_00001.npz", classes=np.array([0]), cam=np.zeros((1, 4, 4)))
    (tmp_path / "theirs" / "protocol.json").write_text('{"class_names": ["cat", "dog"]}')
    assert_one_line_error(faithfulness(tmp_path / "theirs"), r"was made for the classes cat, dog, the run has fox, pig")


def test_help_says_what_the_numbers_do_not_say(program):
    finished = program("lpcam_jax.__main__", "faithfulness", "--help")
    assert finished.code == 0
    assert "python -m lpcam_jax faithfulness --ckpt" in finished.out
    assert "does not have to win here" in " ".join(finished.out.split())
