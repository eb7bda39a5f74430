"""Rules of `benchmarks.scoring_rules`: one is LPCAM itself, the others are what they say."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lpcam_jax
from benchmarks.scoring_rules import RULES, key_value, mean, share, transport
from lpcam_jax import Prototypes
from lpcam_jax.clustering import unit

RNG = np.random.default_rng(0)
M, D = 20, 8


def unit_vectors(count: int) -> np.ndarray:
    return np.asarray(unit(RNG.normal(size=(count, D)).astype(np.float32)))


FEATURES, OWN, CONTEXT, OTHERS = (unit_vectors(count) for count in (M, 3, 4, 5))
COSINES = FEATURES @ OWN.T, FEATURES @ CONTEXT.T, FEATURES @ np.concatenate([CONTEXT, OTHERS]).T


def test_the_mean_is_lpcam():
    every = [np.ones((1, count), bool) for count in (3, 4)]
    prototypes = Prototypes(OWN[None], every[0], CONTEXT[None], every[1])
    expected = jax.device_get(lpcam_jax.lpcam(FEATURES[None, None], prototypes))[0, 0, :, 0]
    assert_allclose(mean(*COSINES), expected, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_maps_are_never_below_zero_and_need_no_context(name):
    for cosines in (COSINES, (COSINES[0], np.zeros((M, 0)), COSINES[2])):
        found = RULES[name](*cosines)
        assert found.shape == (M,)
        assert np.isfinite(found).all()
        assert found.min() >= 0


def test_a_dull_key_value_is_the_mean_and_shares_add_up():
    exact = [cosines.astype(float) for cosines in COSINES]
    assert_allclose(key_value(*exact, sharpness=1e-4) / 1e-4, mean(*exact), atol=1e-3)
    own, context, _ = COSINES
    for rule in (lambda a, b: share(a, b, b, heat=0.1, background="own"), lambda a, b: transport(a, b, b, heat=0.1)):
        assert_allclose(rule(own, context) + rule(context, own), 1, atol=1e-5)


def test_a_balanced_assignment_uses_every_prototype_alike():
    own = np.zeros((M, 2))
    own[:, 0] = 0.9  # which all positions prefer
    taken = transport(own[:, 1:], own[:, :1], own, heat=0.5, rounds=50)
    assert taken.mean() > 0.45
    assert share(own[:, 1:], own[:, :1], own, heat=0.5, background="own").mean() < 0.2
