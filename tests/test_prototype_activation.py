import jax
import numpy as np
import pytest

from lpcam_jax import (
    FeatureSample,
    Prototypes,
    cam,
    cluster_classes,
    directions,
    lpcam,
    normalize,
    select_prototypes,
    similarity_maps,
    split,
    without_context,
)

C, K, D = 3, 4, 6


def ragged_prototypes(seed=0):
    """Class 0 has 3 and 2 prototypes, class 1 one and no context, class 2 all of both."""
    rng = np.random.default_rng(seed)
    class_mask = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]], bool)
    context_mask = np.array([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    class_centres = rng.normal(size=(C, K, D)) * rng.uniform(0.1, 10, (C, K, 1))
    context_centres = rng.normal(size=(C, 5, D))
    return Prototypes(class_centres.astype(np.float32), class_mask, context_centres.astype(np.float32), context_mask)


def features(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=(*shape, D)).astype(np.float32)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def lpcam_loop(field, prototypes):
    """Eq. 5 and 6, position by position, class by class, prototype by prototype."""
    out = np.zeros((*field.shape[:-1], C))
    for index in np.ndindex(field.shape[:-1]):
        for n in range(C):
            terms = []
            for centres, mask in (prototypes[:2], prototypes[2:4]):
                cosines = [cosine(field[index], c) for c, keep in zip(centres[n], mask[n], strict=True) if keep]
                terms.append(sum(cosines) / len(cosines) if cosines else 0)
            out[(*index, n)] = max(terms[0] - terms[1], 0)
    return out


def masked_mean(maps, mask):
    return (np.asarray(maps) * mask).sum(axis=-1) / np.maximum(mask.sum(axis=-1), 1)


def test_collapsed_form_equals_one_einsum_over_prototypes_equals_the_loop():
    field, prototypes = features(2, 5, 4), ragged_prototypes()
    expected = lpcam_loop(field, prototypes)
    of_class = masked_mean(similarity_maps(field, prototypes.class_centres), prototypes.class_mask)
    of_context = masked_mean(similarity_maps(field, prototypes.context_centres), prototypes.context_mask)
    np.testing.assert_allclose(np.maximum(of_class - of_context, 0), expected, atol=1e-6)
    np.testing.assert_allclose(lpcam(field, prototypes), expected, atol=1e-6)
    np.testing.assert_allclose(lpcam(field, directions(prototypes)), expected, atol=1e-6)
    assert (expected > 0).any(axis=(0, 1, 2)).all()
    assert (expected == 0).any(axis=(0, 1, 2)).all()


def test_similarity_maps_are_cosines():
    field, prototypes = features(2, 3, 2), ragged_prototypes()
    maps = similarity_maps(field, prototypes.class_centres)
    assert maps.shape == (2, 3, 2, C, K)
    for b, y, x, n, k in np.ndindex(maps.shape):
        np.testing.assert_allclose(maps[b, y, x, n, k], cosine(field[b, y, x], prototypes[0][n, k]), atol=1e-6)


def test_directions_small_example():
    class_centres = np.array([[[3, 0], [0, 5]], [[2, 0], [0, 7]]], np.float32)
    context_centres = np.array([[[0, -2]], [[9, 9]]], np.float32)
    class_mask, context_mask = np.array([[True, True], [True, False]]), np.array([[True], [False]])
    prototypes = Prototypes(class_centres, class_mask, context_centres, context_mask)
    np.testing.assert_allclose(directions(prototypes), [[0.5, 1.5], [1, 0]], rtol=1e-6)


def test_directions_are_no_longer_than_two():
    lengths = np.linalg.norm(directions(ragged_prototypes()), axis=1)
    assert (lengths > 0.1).all()
    assert (lengths <= 2).all()
    opposite = Prototypes(*(np.ones((1, 1, 2), np.float32), np.ones((1, 1), bool)) * 2)
    opposite = opposite._replace(context_centres=-opposite.context_centres)
    np.testing.assert_allclose(np.linalg.norm(directions(opposite)), 2, rtol=1e-6)


def test_blind_to_the_length_of_every_feature_and_every_prototype():
    rng = np.random.default_rng(2)
    field, prototypes = features(5, 4), ragged_prototypes()
    scaled = prototypes._replace(
        class_centres=prototypes.class_centres * rng.uniform(0.01, 100, (C, K, 1)).astype(np.float32),
        context_centres=prototypes.context_centres * rng.uniform(0.01, 100, (C, 5, 1)).astype(np.float32),
    )
    longer = field * rng.uniform(0.01, 100, (5, 4, 1)).astype(np.float32)
    expected = lpcam_loop(field, prototypes)
    np.testing.assert_allclose(lpcam(longer, prototypes), expected, atol=1e-6)
    np.testing.assert_allclose(lpcam(field, scaled), expected, atol=1e-6)
    assert np.abs(lpcam(-field, prototypes) - expected).max() > 0.1


def test_a_masked_prototype_more_changes_nothing():
    field, prototypes = features(5, 4), ragged_prototypes()
    extra = np.full((C, 2, D), 100, np.float32)
    hidden = np.zeros((C, 2), bool)
    longer = Prototypes(
        np.concatenate([prototypes.class_centres, extra], axis=1),
        np.concatenate([prototypes.class_mask, hidden], axis=1),
        np.concatenate([prototypes.context_centres, -extra], axis=1),
        np.concatenate([prototypes.context_mask, hidden], axis=1),
    )
    np.testing.assert_allclose(lpcam(field, longer), lpcam_loop(field, prototypes), atol=1e-6)
    shown = longer._replace(class_mask=np.ones_like(longer.class_mask))
    assert np.abs(lpcam(field, shown) - lpcam(field, longer)).max() > 0.1


def test_without_context_is_the_class_term():
    field, prototypes = features(5, 4), ragged_prototypes()
    of_class = masked_mean(similarity_maps(field, prototypes.class_centres), prototypes.class_mask)
    np.testing.assert_allclose(lpcam(field, without_context(prototypes)), np.maximum(of_class, 0), atol=1e-6)
    with_context = lpcam(field, prototypes)
    assert np.abs(with_context[..., 0] - np.maximum(of_class[..., 0], 0)).max() > 0.1
    np.testing.assert_allclose(with_context[..., 1], np.maximum(of_class[..., 1], 0), atol=1e-6)  # it has none
    np.testing.assert_array_equal(without_context(prototypes).class_mask, prototypes.class_mask)


def test_a_zero_feature_gives_zero_beside_one_that_does_not():
    field, prototypes = features(5, 4), ragged_prototypes()
    expected = lpcam_loop(field, prototypes)
    field[2, 1] = 0
    expected[2, 1] = 0
    np.testing.assert_allclose(lpcam(field, prototypes), expected, atol=1e-6)
    np.testing.assert_array_equal(similarity_maps(field, prototypes.class_centres)[2, 1], 0)


def test_a_class_without_prototypes_gives_zeros_not_nan():
    field, prototypes = features(5, 4), ragged_prototypes()
    expected = lpcam_loop(field, prototypes)
    class_mask, context_mask = prototypes.class_mask.copy(), prototypes.context_mask.copy()
    class_mask[0] = context_mask[0] = False
    class_centres = prototypes.class_centres.copy()
    class_centres[0] = 0
    maps = lpcam(field, Prototypes(class_centres, class_mask, prototypes.context_centres, context_mask))
    np.testing.assert_array_equal(maps[..., 0], 0)
    np.testing.assert_allclose(maps[..., 1:], expected[..., 1:], atol=1e-6)


def test_eager_equals_jitted():
    field, prototypes = features(5, 4), ragged_prototypes()
    with jax.disable_jit():
        eager = lpcam(jax.numpy.asarray(field), jax.tree.map(jax.numpy.asarray, prototypes))
    np.testing.assert_allclose(lpcam(field, prototypes), eager, atol=1e-6)
    np.testing.assert_allclose(eager, lpcam_loop(field, prototypes), atol=1e-6)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_leading_dimensions(batch):
    field, prototypes = features(*batch, 3, 2), ragged_prototypes()
    maps = lpcam(field, prototypes)
    assert maps.shape == (*batch, 3, 2, C)
    np.testing.assert_allclose(maps, lpcam_loop(field, prototypes), atol=1e-6)
    assert similarity_maps(field, prototypes.class_centres).shape == (*batch, 3, 2, C, K)


# An object of two parts on a context that comes with it. Of each class the classifier's weights point at the head
# (logit 12 a unit of feature), hardly at the body (4), and not at the grass (0).
HEAD, BODY, GRASS, SIZE = (slice(1, 4), slice(4, 7)), (slice(4, 10), slice(2, 10)), slice(10, 12), 12
PARTS = 4  # feature dimensions: head 0, body 0, head 1, body 1, then grass and sky of either class


def planted_weights():
    weights = np.zeros((2 * PARTS, 3), np.float32)  # the third class is in no picture
    weights[[0, 1], 0] = weights[[2, 3], 1] = 12, 4
    return weights


def planted_picture(class_index, rng):
    """Non-negative features (12, 12, 8) of one object, parts of lengths .85 to 1.15 with noise."""
    field = np.zeros((SIZE, SIZE, 2 * PARTS))
    field[..., PARTS + 2 * class_index] = 1
    field[GRASS, :, PARTS + 2 * class_index] = 0
    field[GRASS, :, PARTS + 2 * class_index + 1] = 1
    for part, where in ((0, HEAD), (1, BODY)):
        field[where] = 0
        field[(*where, 2 * class_index + part)] = 1
    field = field * rng.uniform(0.85, 1.15, (SIZE, SIZE, 1)) + rng.uniform(0, 0.01, field.shape)
    return field.astype(np.float32)


@pytest.mark.parametrize("update", ["spherical", "mean"])
def test_a_planted_object_lpcam_covers_head_and_body_where_cam_covers_the_head(update):
    rng = np.random.default_rng(0)
    weights = planted_weights()
    pictures = [(number, number % 2, planted_picture(number % 2, rng)) for number in range(6)]
    sample = FeatureSample(3, 2 * PARTS, size=256)
    for number, n, field in pictures:
        own, context = split(normalize(cam(field, weights))[..., n])
        sample.add(number, field, n, own, context=False)
        sample.add(number, field, n, context, context=True)

    key = jax.random.key(0)
    of_class, of_context = (
        cluster_classes(key, *sample.points(context=context), k=2, update=update, restarts=4)
        for context in (False, True)
    )
    prototypes = select_prototypes(of_class.means, of_context.means, weights)
    assert prototypes.class_mask[:2].all()
    assert prototypes.context_mask[:2].all()

    head, whole = np.zeros((2, SIZE, SIZE), bool)
    head[HEAD] = whole[HEAD] = whole[BODY] = True
    for _, n, field in pictures:
        by_cam = normalize(cam(field, weights))[..., n] > 0.5
        by_lpcam = normalize(lpcam(field, prototypes))[..., n] > 0.5
        np.testing.assert_array_equal(by_cam, head)
        np.testing.assert_array_equal(by_lpcam, whole)
