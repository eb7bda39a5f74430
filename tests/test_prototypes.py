import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax import class_scores, own_scores, select_prototypes, unit

# Four classes, since one or two are scored in another way. The logits of a centre (x, y, 1) are x, y, -99, -99, so the
# first two classes share its probability.
HEAD = np.float32([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -99, -99]])
NOBODY = np.zeros((4, 1, 3), np.float32)


def centre(p, class_index):
    """A centre that class `class_index` of the first two scores p; the other's logit is 1."""
    own = 1 + np.log(p / (1 - p))
    return [own, 1, 1] if class_index == 0 else [1, own, 1]


def centres(*scores):
    """(4, k, 3): centres of the first two classes with the given scores; the others have none."""
    filled = np.array([[centre(p, n) for p in of_class] for n, of_class in enumerate(scores)], np.float32)
    return np.concatenate([filled, np.zeros_like(filled)])


def of_two(mask):
    """The first two classes' part of a mask; the others have nothing selected."""
    assert not mask[2:].any()
    return mask[:2].tolist()


def test_class_scores_are_a_softmax_over_classes():
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(3, 5, 8)).astype(np.float32), rng.normal(size=(8, 4)).astype(np.float32)
    scores = class_scores(points, weights)
    exponentials = np.exp(points @ weights)
    np.testing.assert_allclose(scores, exponentials / exponentials.sum(axis=-1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-6)
    assert np.ptp(np.asarray(scores).sum(axis=1)) > 0.1  # not over the centres


def test_class_scores_of_large_logits_are_finite():
    np.testing.assert_allclose(class_scores(np.array([[1e4, -1e4]], np.float32), np.eye(2)), [[1, 0]])


def test_class_centres_above_mu_f_are_prototypes():
    class_centres = centres([0.95, 0.85, 0.91], [0.2, 0.99, 0.89])
    chosen = select_prototypes(class_centres, NOBODY, HEAD)
    assert of_two(chosen.class_mask) == [[True, False, True], [False, True, False]]
    np.testing.assert_array_equal(chosen.class_centres, class_centres)
    lower = select_prototypes(class_centres, NOBODY, HEAD, mu_f=0.5)
    assert of_two(lower.class_mask) == [[True, True, True], [False, True, True]]


def test_context_centres_strictly_between_the_bounds_are_prototypes():
    context = centres([0.04, 0.06, 0.5, 0.89, 0.91], [0.001, 0.95, 0.3, 0.04, 0.06])
    chosen = select_prototypes(centres([0.99], [0.99]), context, HEAD)
    assert of_two(chosen.context_mask) == [[False, True, True, True, False], [False, False, True, False, True]]
    np.testing.assert_array_equal(chosen.context_centres, context)
    other = select_prototypes(centres([0.99], [0.99]), context, HEAD, context=(0.0, 0.5))
    assert of_two(other.context_mask) == [[True, True, False, False, False], [True, False, True, True, True]]


def test_a_score_equal_to_a_threshold_does_not_pass():
    half = np.zeros((4, 2, 3), np.float32)
    half[:2] = [[[1, 1, 1], [3, 1, 1]], [[1, 1, 1], [1, 3, 1]]]  # equal logits: a score of exactly .5
    assert class_scores(half, HEAD)[0, 0, 0] == 0.5
    assert of_two(select_prototypes(half, NOBODY, HEAD, mu_f=0.5).class_mask) == [[False, True]] * 2
    below = jnp.nextafter(jnp.float32(0.5), jnp.float32(0))
    above = jnp.nextafter(jnp.float32(0.5), jnp.float32(1))
    for bounds, passes in [((0.5, 0.8), False), ((0.2, 0.5), False), ((below, above), True)]:
        assert select_prototypes(half, half, HEAD, context=bounds).context_mask[:2, 0].tolist() == [passes] * 2


def test_a_class_of_which_no_centre_passes_keeps_its_best():
    chosen = select_prototypes(centres([0.2, 0.6, 0.4], [0.95, 0.3, 0.92]), NOBODY, HEAD)
    assert of_two(chosen.class_mask) == [[False, True, False], [True, False, True]]


def test_zero_centres_are_never_kept():
    class_centres, context = centres([0.3, 0.2], [0.99, 0.99]), centres([0.5, 0.5], [0.5, 0.5])
    class_centres[:, 0] = context[:, 0] = 0  # a zero centre scores .25: above all others of class 0, and a fine context
    chosen = select_prototypes(class_centres, context, HEAD, mu_f=0.4)
    assert of_two(chosen.class_mask) == [[False, True], [False, True]]
    assert of_two(chosen.context_mask) == [[False, True], [False, True]]


def test_a_class_without_centres_has_no_prototype():
    class_centres = centres([0.3, 0.2], [0.99, 0.99])
    class_centres[0] = 0
    chosen = select_prototypes(class_centres, NOBODY, HEAD)
    assert of_two(chosen.class_mask) == [[False, False], [True, True]]
    assert not chosen.context_mask.any()


def test_a_context_of_which_none_passes_keeps_none():
    chosen = select_prototypes(centres([0.99], [0.99]), centres([0.99, 0.01], [0.5, 0.01]), HEAD)
    assert of_two(chosen.context_mask) == [[False, False], [True, False]]


def test_unit_length_centres_score_one_in_c_and_only_the_fallback_is_left():
    head = np.eye(20, dtype=np.float32)
    raw = 12 * np.repeat(head[:, None], 3, axis=1)
    raw += np.random.default_rng(0).random(raw.shape, dtype=np.float32)
    assert select_prototypes(raw, raw, head).class_mask.all()
    assert class_scores(unit(raw), head).max() < 0.2
    assert (select_prototypes(unit(raw), raw, head).class_mask.sum(axis=1) == 1).all()


def test_jitted_as_a_whole_and_with_traced_thresholds():
    class_centres = centres([0.95, 0.85, 0.91], [0.2, 0.99, 0.89])
    run = jax.jit(lambda mu: select_prototypes(class_centres, class_centres, HEAD, mu_f=mu, context=(0.1, mu)))
    assert of_two(run(0.9).class_mask) == [[True, False, True], [False, True, False]]
    assert of_two(run(0.9).context_mask) == [[False, True, False], [True, False, True]]


def test_three_classes_and_more_are_scored_by_the_softmax_over_them():
    rng = np.random.default_rng(1)
    points, weights = rng.normal(size=(3, 5, 8)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
    scores = np.asarray(class_scores(points, weights))
    np.testing.assert_array_equal(own_scores(points, -points, weights), [scores[n, :, n] for n in range(3)])


@pytest.mark.parametrize("classes", [1, 2])
def test_of_few_classes_a_centre_is_compared_with_the_best_of_its_class(classes):
    rng = np.random.default_rng(classes)
    of_class, others = (rng.normal(size=(classes, count, 8)).astype(np.float32) for count in (5, 4))
    of_class[0, 3] = 0  # an empty cluster
    weights = rng.normal(size=(8, classes)).astype(np.float32)
    for points in (of_class, others):
        scores = own_scores(points, of_class, weights)
        for n in range(classes):
            expected = np.clip(points[n] @ weights[:, n] / (of_class[n] @ weights[:, n]).max(), 0, 1)
            np.testing.assert_allclose(scores[n], expected, rtol=1e-4, atol=1e-6)


def test_of_a_single_class_half_of_the_best_decides_and_the_background_is_context():
    """A softmax over one class is always 1: all clusters would be kept, and nothing would be context."""
    of_class = np.float32([[[12.0], [6.1], [5.9], [-1.0]]])
    context = np.float32([[[8.0], [1.5], [5.9], [-10.0], [0.0]]])  # the last is an empty cluster
    for scale in (0.1, 1.0, 30.0):  # an unsure classifier and a sure one
        chosen = select_prototypes(scale * of_class, scale * context, np.ones((1, 1), np.float32))
        assert chosen.class_mask.tolist() == [[True, True, False, False]]
        assert chosen.context_mask.tolist() == [[False, True, True, True, False]]


def test_of_a_single_class_that_is_nowhere_the_best_centre_is_kept():
    chosen = select_prototypes(
        np.float32([[[-3.0], [-2.0], [0.0]]]), np.float32([[[-4.0]]]), np.ones((1, 1), np.float32)
    )
    assert chosen.class_mask.any()
    assert not chosen.class_mask[0, 2]
    assert chosen.context_mask.all()


def test_where_every_picture_has_one_of_two_classes_the_background_passes_for_neither():
    """The classifier says "the first, unless it is the second": the background's own logit is the first class's."""
    of_class = np.float32([[[15, -10], [4, -2], [3, -3], [4, -1]], [[-20, 38], [-5, 9], [-3, 6], [-2, 4]]])
    assert (class_scores(of_class[0], np.eye(2))[:, 0] > 0.9).all()  # all of the background, too
    chosen = select_prototypes(of_class, np.zeros((2, 1, 2), np.float32), np.eye(2, dtype=np.float32))
    assert chosen.class_mask.tolist() == [[True, False, False, False]] * 2


def test_centres_of_other_classes_than_the_head_s_are_refused():
    """Class 0 of a part of the classes would be scored as class 0 of all."""
    some = centres([0.95], [0.95])[:2]
    with pytest.raises(ValueError, match=r"centres \(2, 1, 3\) are of 2 classes, the head \(3, 4\) of 4; give the"):
        select_prototypes(some, some, HEAD)
