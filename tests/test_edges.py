"""Edges of whole pictures: what the network says of each picture alone, whatever its size and batch."""

import jax
import numpy as np
import pytest
from noise import SIZES, Mirrored, Noise, found_in
from tiny_networks import network

from lpcam_jax.config import Batches
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.irn.edges import detect_edges

ORDER = (1, 3)  # of Noise: 37x50, 5x7
ONE_SHAPE = Batches(max_shapes=1)


def edges_of(source, on_devices=None, **options) -> tuple[dict[str, np.ndarray], list[str]]:
    on_devices = on_devices or network("irn").on_devices()
    return found_in(detect_edges(on_devices, source, batches=ONE_SHAPE, description=None, **options))


def alone(number: int, *, mirrored: bool) -> np.ndarray:
    """Logits of one picture, not padded; those of its mirror image are mirrored back."""
    image = network("irn").preprocessed(Noise((number,))[0].image)
    logits = network("irn")(image[:, :, ::-1] if mirrored else image)["edges"][0, ..., 0]
    return logits[:, ::-1] if mirrored else logits


def test_edges_are_those_of_the_picture_alone_and_its_mirror_image():
    found, _ = edges_of(Noise(ORDER))
    assert set(found) == {str(number) for number in ORDER}
    for number in ORDER:
        edges, (height, width) = found[str(number)], SIZES[number]
        straight, mirrored = (alone(number, mirrored=mirrored) for mirrored in (False, True))
        assert (edges.shape, edges.dtype) == ((-(-height // 4), -(-width // 4)), np.float32)
        np.testing.assert_allclose(edges, 1 / (1 + np.exp(-(straight + mirrored) / 2)), rtol=0, atol=1e-5)
        assert np.abs(straight - mirrored).max() > 0.1
    assert found["1"].std() > 0.01


def test_edges_of_a_mirror_image_are_the_mirror_image_of_the_edges():
    (straight, _), (mirrored, _) = (edges_of(kind(ORDER)) for kind in (Noise, Mirrored))
    for name, edges in straight.items():
        np.testing.assert_allclose(mirrored[name], edges[:, ::-1], rtol=0, atol=1e-6)


def test_only_some_of_the_pictures_and_none_that_cannot_be_read():
    found, errors = edges_of(Noise((5, 3, 1), unreadable=[3]), only=[1, 2])
    assert set(found) == {"1"}
    assert errors == ["3.jpg: damaged picture; get it again"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_names_the_picture(value):
    edge = network("irn").parameters["edge"]
    broken = {**edge, "logit": jax.tree.map(lambda leaf: np.full_like(leaf, value), edge["logit"])}
    with pytest.raises(UserError, match=r"^3: the network's output is not finite; .*train again\.$"):
        edges_of(Noise((3,)), network("irn").on_devices(edge=broken))
