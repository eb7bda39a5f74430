"""What GPUs and TPUs are slow at: many numbers added to one place, and single numbers fetched from many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from lpcam_jax.clustering import kmeans
from lpcam_jax.refine.crf import CRFS, bilateral_lattice
from lpcam_jax.refine.permutohedral import lattice_rows
from lpcam_jax.systems.amn.activation import balanced_loss
from lpcam_jax.systems.lpcam.teaching import blank_lesson, teaching_loss
from lpcam_jax.systems.segmentation.losses import cross_entropy, full_size_loss

LOGITS, LABELS = jnp.zeros((2, 5, 7, 4)), np.full((2, 5, 7), 255)


def equations(function, *arguments):
    """Every equation of a function, those within loops and branches included."""
    open_ones = [jax.make_jaxpr(function)(*arguments).jaxpr]
    while open_ones:
        for equation in open_ones.pop().eqns:
            yield equation
            values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: isinstance(leaf, Jaxpr))
            open_ones += [getattr(value, "jaxpr", value) for value in values if isinstance(value, ClosedJaxpr | Jaxpr)]


@pytest.mark.parametrize("loss", [cross_entropy, full_size_loss, balanced_loss])
def test_the_loss_of_a_pixel_and_its_gradient_are_found_by_comparing(loss):
    names = {equation.primitive.name for equation in equations(jax.value_and_grad(loss), LOGITS, LABELS)}
    assert "exp" in names
    assert not {name for name in names if name.startswith(("gather", "scatter"))}


def test_kmeans_adds_up_its_clusters_by_products():
    equations_of_it = equations(kmeans, jnp.ones((20, 3)), jnp.ones(20), jnp.ones((4, 3)))
    names = {equation.primitive.name for equation in equations_of_it}
    assert {"while", "dot_general"} <= names
    assert "scatter-add" not in names


def test_the_padding_of_a_picture_is_not_added_to_one_corner_of_the_lattice():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    lattice = bilateral_lattice(image, CRFS["irn"], np.int32([9, 13]))
    rows = lattice_rows(lattice, lattice.capacities[-1])
    padding = np.ones((16, 24), bool)
    padding[:9, :13] = False
    for of_kind, weights in zip(np.asarray(rows.of_points), np.asarray(rows.weights), strict=True):
        assert (weights.reshape(16, 24)[padding] == 0).all()
        assert np.bincount(of_kind.reshape(16, 24)[padding]).max() == 1


def test_directions_are_taught_in_full_precision():
    lesson = blank_lesson([(32, 48)], [1.0, 0.5], stride=16, classes=2, dimension=4)
    products = [
        equation.params["precision"]
        for equation in equations(jax.grad(teaching_loss), jnp.ones((2, 4)), lesson)
        if equation.primitive.name == "dot_general"
    ]
    assert len(products) >= 6
    assert {precision and precision[0] for precision in products} == {jax.lax.Precision.HIGHEST}
