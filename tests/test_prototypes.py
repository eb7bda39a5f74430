import jax
import jax.numpy as jnp
import numpy as np

from lpcam_jax import class_scores, select_prototypes, unit

HEAD = np.eye(2, dtype=np.float32)  # two classes: the logits of a centre are the centre
NOBODY = np.zeros((2, 1, 2), np.float32)


def centre(p, class_index):
    """A centre that class `class_index` of two scores p; its other logit is 1."""
    own = 1 + np.log(p / (1 - p))
    return [own, 1] if class_index == 0 else [1, own]


def centres(*scores):
    """(2, k, 2): centres of the two classes with the given scores."""
    return np.array([[centre(p, n) for p in of_class] for n, of_class in enumerate(scores)], np.float32)


def test_class_scores_are_a_softmax_over_classes():
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(3, 5, 8)).astype(np.float32), rng.normal(size=(8, 4)).astype(np.float32)
    scores = class_scores(points, weights)
    exponentials = np.exp(points @ weights)
    np.testing.assert_allclose(scores, exponentials / exponentials.sum(axis=-1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-6)
    assert np.ptp(np.asarray(scores).sum(axis=1)) > 0.1  # not over the centres


def test_class_scores_of_large_logits_are_finite():
    np.testing.assert_allclose(class_scores(np.array([[1e4, -1e4]], np.float32), HEAD), [[1, 0]])


def test_class_centres_above_mu_f_are_prototypes():
    class_centres = centres([0.95, 0.85, 0.91], [0.2, 0.99, 0.89])
    chosen = select_prototypes(class_centres, NOBODY, HEAD)
    assert chosen.class_mask.tolist() == [[True, False, True], [False, True, False]]
    np.testing.assert_array_equal(chosen.class_centres, class_centres)
    lower = select_prototypes(class_centres, NOBODY, HEAD, mu_f=0.5)
    assert lower.class_mask.tolist() == [[True, True, True], [False, True, True]]


def test_context_centres_strictly_between_the_bounds_are_prototypes():
    context = centres([0.04, 0.06, 0.5, 0.89, 0.91], [0.001, 0.95, 0.3, 0.04, 0.06])
    chosen = select_prototypes(centres([0.99], [0.99]), context, HEAD)
    assert chosen.context_mask.tolist() == [[False, True, True, True, False], [False, False, True, False, True]]
    np.testing.assert_array_equal(chosen.context_centres, context)
    other = select_prototypes(centres([0.99], [0.99]), context, HEAD, context=(0.0, 0.5))
    assert other.context_mask.tolist() == [[True, True, False, False, False], [True, False, True, True, True]]


def test_a_score_equal_to_a_threshold_does_not_pass():
    half = np.array([[[1, 1], [3, 1]], [[1, 1], [1, 3]]], np.float32)  # equal logits: a score of exactly .5
    assert class_scores(half, HEAD)[0, 0, 0] == 0.5
    assert select_prototypes(half, NOBODY, HEAD, mu_f=0.5).class_mask.tolist() == [[False, True]] * 2
    below = jnp.nextafter(jnp.float32(0.5), jnp.float32(0))
    above = jnp.nextafter(jnp.float32(0.5), jnp.float32(1))
    for bounds, passes in [((0.5, 0.8), False), ((0.2, 0.5), False), ((below, above), True)]:
        assert select_prototypes(half, half, HEAD, context=bounds).context_mask[:, 0].tolist() == [passes] * 2


def test_a_class_of_which_no_centre_passes_keeps_its_best():
    chosen = select_prototypes(centres([0.2, 0.6, 0.4], [0.95, 0.3, 0.92]), NOBODY, HEAD)
    assert chosen.class_mask.tolist() == [[False, True, False], [True, False, True]]


def test_zero_centres_are_never_kept():
    class_centres, context = centres([0.3, 0.2], [0.99, 0.99]), centres([0.5, 0.5], [0.5, 0.5])
    class_centres[:, 0] = context[:, 0] = 0  # a zero centre scores .5: above all others of class 0, and a fine context
    chosen = select_prototypes(class_centres, context, HEAD, mu_f=0.4)
    assert chosen.class_mask.tolist() == [[False, True], [False, True]]
    assert chosen.context_mask.tolist() == [[False, True], [False, True]]


def test_a_class_without_centres_has_no_prototype():
    class_centres = centres([0.3, 0.2], [0.99, 0.99])
    class_centres[0] = 0
    chosen = select_prototypes(class_centres, NOBODY, HEAD)
    assert chosen.class_mask.tolist() == [[False, False], [True, True]]
    assert not chosen.context_mask.any()


def test_a_context_of_which_none_passes_keeps_none():
    chosen = select_prototypes(centres([0.99], [0.99]), centres([0.99, 0.01], [0.5, 0.01]), HEAD)
    assert chosen.context_mask.tolist() == [[False, False], [True, False]]


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
    assert run(0.9).class_mask.tolist() == [[True, False, True], [False, True, False]]
    assert run(0.9).context_mask.tolist() == [[False, True, False], [True, False, True]]


def test_of_a_single_class_the_classifier_says_its_own_probability():
    """A softmax over one class is always 1: all clusters would be kept, and nothing would be context."""
    weights = np.float32([[2.0], [0.0]])
    centres = np.float32([[[3.0, 1.0], [0.5, 1.0], [-3.0, 1.0]]])
    scores = np.asarray(class_scores(centres[0], weights))[:, 0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-6.0, -1.0, 6.0])), atol=1e-6)
    beside_background = np.asarray(class_scores(centres[0], np.pad(weights, [(0, 0), (0, 1)])))[:, 0]
    np.testing.assert_allclose(scores, beside_background, atol=1e-6)
    prototypes = select_prototypes(centres, centres, weights)
    assert prototypes.class_mask.tolist() == [[True, False, False]]
    assert prototypes.context_mask.tolist() == [[False, True, False]]
