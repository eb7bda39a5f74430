"""Edges of whole pictures: what the network says of each picture alone, whatever its size and batch."""

import jax
import numpy as np
import pytest
from test_inference import SIZES, Noise
from test_irnet import network, outputs_of

from lpcam_jax.config import Batches
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.irn.edges import detect_edges

ORDER = (1, 3)  # of Noise: 37x50, 5x7
ONE_SHAPE = Batches(max_shapes=1)


class Mirrored(Noise):
    def __getitem__(self, index):
        record = super().__getitem__(index)
        return record._replace(image=record.image[:, ::-1])


def edges_of(source, mesh, **options) -> dict[str, np.ndarray]:
    net = network()
    detect = detect_edges(net.graph, inference=ONE_SHAPE, devices=mesh)
    options = {"skipped": [], **options}
    found = [(record.id, edges) for _, record, edges in detect((net.parameters, net.batch_stats), source, **options)]
    assert len(dict(found)) == len(found)
    return dict(found)


def alone(number: int, *, mirrored: bool) -> np.ndarray:
    """Logits of one picture, not padded; those of its mirror image are mirrored back."""
    pixels = Noise((number,))[0].image.astype(np.float32)
    pixels = ((pixels - np.float32([[123.675, 116.28, 103.53]])) / np.float32([[58.395, 57.12, 57.375]]))[None]
    logits, *_ = outputs_of(network(), pixels[:, :, ::-1] if mirrored else pixels)
    return logits[0, :, ::-1] if mirrored else logits[0]


def test_edges_are_those_of_the_picture_alone_and_its_mirror_image(mesh):
    found = edges_of(Noise(ORDER), mesh)
    assert set(found) == {str(number) for number in ORDER}
    for number in ORDER:
        edges, (height, width) = found[str(number)], SIZES[number]
        straight, mirrored = (alone(number, mirrored=mirrored) for mirrored in (False, True))
        assert (edges.shape, edges.dtype) == ((-(-height // 4), -(-width // 4)), np.float32)
        np.testing.assert_allclose(edges, 1 / (1 + np.exp(-(straight + mirrored) / 2)), rtol=0, atol=1e-5)
        assert np.abs(straight - mirrored).max() > 0.1
    assert found["1"].std() > 0.01


def test_edges_of_a_mirror_image_are_the_mirror_image_of_the_edges(mesh):
    straight, mirrored = (edges_of(kind(ORDER), mesh) for kind in (Noise, Mirrored))
    for name, edges in straight.items():
        np.testing.assert_allclose(mirrored[name], edges[:, ::-1], rtol=0, atol=1e-6)


def test_only_some_of_the_pictures_and_none_that_cannot_be_read(mesh):
    skipped = []
    found = edges_of(Noise((5, 3, 1), unreadable=[3]), mesh, only=[1, 2], skipped=skipped)
    assert set(found) == {"1"}
    assert skipped == ["3.jpg: damaged picture; get it again"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_names_the_picture(mesh, value):
    net = network()
    logit = jax.tree.map(lambda leaf: np.full_like(leaf, value), net.parameters["edge"]["logit"])
    state = {**net.parameters, "edge": {**net.parameters["edge"], "logit": logit}}, net.batch_stats
    detect = detect_edges(net.graph, inference=ONE_SHAPE, devices=mesh)
    with pytest.raises(UserError, match=r"^3: the network's output is not finite; .*train again\.$"):
        list(detect(state, Noise((3,)), skipped=[]))
