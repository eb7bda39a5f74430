from collections import Counter
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax.machine.devices import portable
from lpcam_jax.refine.paths import affinity, reach, search_paths, window

PATHS = search_paths(5)


def one_by_one(edges, paths, cotangents):
    """The affinities and the gradient of (affinities * cotangents).sum(), path by path, in NumPy."""
    h, w = edges.shape
    r = reach(paths)
    rows, columns = np.mgrid[: h - r, r : w - r]
    planes, gradient = [], np.zeros((h, w))
    for (_, cells), cotangent in zip(paths, cotangents, strict=True):
        y, x = np.array(cells).T[..., None, None]
        first = edges[rows + y, columns + x].argmax(axis=0)
        strongest = rows + y[first, 0, 0], columns + x[first, 0, 0]
        planes.append(1 - edges[strongest])
        np.subtract.at(gradient, strongest, cotangent)
    return np.stack(planes), gradient


def pull(edges, cotangents, paths):
    """The affinities, and the gradient of (affinities * cotangents).sum()."""
    planes, pulled = jax.vjp(lambda edges: affinity(edges, paths), edges)
    return planes, *pulled(cotangents)


def test_radius_5_has_34_directions_and_radius_10_has_152():
    assert Counter(len(path.cells) for path in PATHS) == {2: 2, 3: 2, 4: 4, 5: 2, 6: 4, 7: 2, 8: 8, 10: 6, 11: 4}
    ten = search_paths(10)
    assert len(ten) == 152
    assert {len(path.cells) for path in ten} <= set(range(2, 23))
    assert (len(ten[0].cells), len(ten[-1].cells)) == (2, 22)


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_every_pair_of_pixels_within_the_radius_has_one_direction(radius):
    directions = [path.direction for path in search_paths(radius)]
    around = range(-radius, radius + 1)
    near = {(y, x) for y in around for x in around if 0 < y * y + x * x < radius * radius}
    assert len(set(directions)) == len(directions)
    assert set(directions) | {(-y, -x) for y, x in directions} == near
    assert reach(search_paths(radius)) == radius - 1


@pytest.mark.parametrize("radius", [5, 10])
def test_a_path_leads_from_its_destination_back_to_its_source(radius):
    paths = search_paths(radius)
    for direction, cells in paths:
        distances = [abs(y) + abs(x) for y, x in cells]
        assert cells[0] == direction
        assert cells[-1] == (0, 0)
        assert distances == sorted(distances, reverse=True)
        assert len(set(cells)) == len(cells)
    lengths = [len(path.cells) for path in paths]
    assert lengths == sorted(lengths)


def test_exact_paths():
    cells = {path.direction: path.cells for path in PATHS}
    assert cells[0, 3] == ((0, 3), (0, 2), (0, 1), (0, 0))
    assert cells[2, 2] == ((2, 2), (1, 2), (2, 1), (1, 1), (0, 1), (1, 0), (0, 0))
    assert cells[1, -2] == ((1, -2), (0, -2), (1, -1), (0, -1), (1, 0), (0, 0))


def test_directions_are_in_the_reference_s_order():
    assert [path.direction for path in PATHS[:8]] == [
        (0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (1, -1), (1, 1), (3, 0),
    ]  # fmt: skip


def test_affinity_exact_small_example():
    # Of radius 2 the only source is the middle of the first row, with a partner at its right and three below.
    paths, edges = search_paths(2), jnp.array([[0.0, 0.25, 0.5], [0.0, 0.75, 1.0]])
    assert [path.direction for path in paths] == [(0, 1), (1, 0), (1, -1), (1, 1)]
    assert affinity(edges, paths).reshape(-1).tolist() == [0.5, 0.25, 0.25, 0.0]


def test_an_edge_between_two_regions_separates_them_and_no_others():
    edges = jnp.zeros((12, 16)).at[:, 8].set(1)  # a wall, one pixel wide
    planes = affinity(edges, PATHS)
    columns = jnp.broadcast_to(jnp.arange(16), (12, 16))
    source = window(columns, (0, 0), 4)
    for (direction, cells), plane in zip(PATHS, planes, strict=True):
        partner = window(columns, direction, 4)
        # A path never leaves the box of its ends, and crosses all its columns.
        low, high = jnp.minimum(source, partner), jnp.maximum(source, partner)
        assert (plane == jnp.where((low <= 8) & (high >= 8), 0, 1)).all(), (direction, cells)


@pytest.mark.parametrize(
    ("radius", "form"),  # cell by cell; all cells of a path at once
    [(5, nullcontext), (10, nullcontext), (5, portable)],
)
def test_affinities_and_their_gradient_are_those_of_every_path_by_itself(radius, form):
    rng, paths = np.random.default_rng(radius), search_paths(radius)
    edges = rng.integers(0, 50, (24, 30)).astype(np.float32) / 64  # some are equal
    shape = jax.eval_shape(lambda edges: affinity(edges, paths), edges).shape
    cotangents = rng.integers(-8, 9, shape).astype(np.float32)
    with form():
        planes, pulled = jax.jit(lambda edges, cotangents: pull(edges, cotangents, paths))(edges, cotangents)
    expected, gradient = one_by_one(edges, paths, cotangents)
    assert planes.shape == (len(paths), 24 - radius + 1, 30 - 2 * radius + 2)
    np.testing.assert_array_equal(planes, expected)
    np.testing.assert_array_equal(pulled, gradient)


def test_the_gradient_goes_to_the_first_of_equal_cells():
    edges = jnp.full((5, 9), 0.5)
    gradient = jax.grad(lambda edges: affinity(edges, PATHS).sum())(edges)
    expected = np.zeros((5, 9))
    for direction, _ in PATHS:  # the only source is at (0, 4); the first cell of a path is the destination
        expected[direction[0], 4 + direction[1]] -= 1
    np.testing.assert_array_equal(gradient, expected)


def test_leading_dimensions_are_kept_and_vmap_agrees():
    edges = jnp.asarray(np.random.default_rng(0).random((2, 3, 8, 12)), jnp.float32)
    planes = affinity(edges, PATHS)
    assert planes.shape == (34, 2, 3, 4, 4)
    mapped = jax.vmap(jax.vmap(lambda edges: affinity(edges, PATHS), out_axes=1), out_axes=1)(edges)
    np.testing.assert_array_equal(planes, mapped)
    gradient = jax.grad(lambda edges: affinity(edges, PATHS).sum())(edges)
    first = jax.grad(lambda edges: affinity(edges, PATHS).sum())(edges[1, 2])
    np.testing.assert_allclose(gradient[1, 2], first, atol=1e-6)


def test_no_more_is_held_than_the_planes():
    edges = jax.ShapeDtypeStruct((4, 64, 64), jnp.float32)
    paths = search_paths(10)

    def value_and_gradient(edges, weights):
        return jax.value_and_grad(lambda edges: (affinity(edges, paths) * weights).sum())(edges)

    weights = jax.eval_shape(lambda edges: affinity(edges, paths), edges)
    memory = jax.jit(value_and_gradient).lower(edges, weights).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.5 * 4 * weights.size


def test_affinity_lowers_for_every_platform():
    shape = jax.ShapeDtypeStruct((2, 12, 16), jnp.float32)
    gradient = jax.jit(jax.grad(lambda edges: affinity(edges, PATHS).sum()))
    exported = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"))(shape)
    assert exported.platforms == ("cpu", "cuda", "tpu")
