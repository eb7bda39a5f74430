"""Transformers whose blocks are computed again for the gradient: less is stored, and the gradient is the same."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_networks import BACKBONES, CLASSES, backbone, network, padded, relative_difference, split

from lpcam_jax.training.state import graph_of


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_less_is_stored_for_the_same_gradient(name):
    net, inputs = backbone(name), padded(BACKBONES[name].sizes, (64, 64))
    config = replace(BACKBONES[name].config, remat=True)
    graph, (shapes, _) = split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))))
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, net.parameters)

    def loss(graph):
        return lambda parameters: sum((stage**2).sum() for stage in nnx.merge(graph, parameters, {})(*inputs))

    def stored(graph) -> int:
        """Numbers from the forward pass that the backward pass needs."""
        _, backward = jax.eval_shape(lambda parameters: jax.vjp(loss(graph), parameters), net.parameters)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert stored(graph) < 0.5 * stored(net.graph)
    gradients = jax.jit(lambda parameters: [jax.grad(loss(one))(parameters) for one in (net.graph, graph)])
    for expected, values in zip(*map(jax.tree.leaves, gradients(net.parameters)), strict=True):
        assert relative_difference(values, expected) < 1e-5


def test_mctformer_stores_less_for_the_same_gradient_too():
    net, inputs = network("mctformer"), padded(((60, 44),), (64, 64))
    config = replace(net.config, model=replace(net.config.model, remat=True))
    graph = graph_of(config, CLASSES)[0]

    def loss(graph):
        def of_parameters(parameters):
            tokens, patches = nnx.merge(graph, parameters, net.batch_stats)(*inputs)
            return (tokens**2).sum() + (patches**2).sum()

        return of_parameters

    def stored(graph) -> int:
        _, backward = jax.eval_shape(lambda parameters: jax.vjp(loss(graph), parameters), net.parameters)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert stored(graph) < 0.6 * stored(net.graph)
    gradients = jax.jit(lambda parameters: [jax.grad(loss(one))(parameters) for one in (net.graph, graph)])
    expected, values = gradients(net.parameters)
    assert np.abs(expected["backbone"]["embedding"]["tokens"]).max() > 0
    for one, other in zip(*map(jax.tree.leaves, (expected, values)), strict=True):
        assert relative_difference(other, one, floor=1e-6) < 1e-5  # what the loss does not see has 0
