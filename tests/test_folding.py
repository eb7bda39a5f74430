"""What folding leaves alone; that a folded network is the same function, the network contract says."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_networks import Random, network, relative_difference, split

from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.backbones.layers.convolution import Conv
from lpcam_jax.backbones.layers.norms import BatchNorm, Shift


class PreActivation(nnx.Module):
    """A block of ResNet v2: its first norm follows a sum, and no convolution."""

    folds: ClassVar = (("conv1", "bn2"),)

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.bn1, self.conv1 = BatchNorm(width), Conv(width, width, 3, rngs=rngs)
        self.bn2, self.conv2 = BatchNorm(width), Conv(width, width, 3, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = nnx.relu(self.bn1(x, train=train))
        y = nnx.relu(self.bn2.after(self.conv1, y, train=train))
        return self.conv2(y) + x


class TwoBlocks(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.blocks = nnx.List([PreActivation(6, rngs=rngs) for _ in range(2)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_norm_before_a_convolution_is_kept_and_the_one_behind_it_folded():
    net = Random(*split(nnx.eval_shape(lambda: TwoBlocks(rngs=nnx.Rngs(0)))), lambda model, x: model(x))
    folded = fold_batch_norm(net.graph, *net.arrays)
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 6)).astype(np.float32)
    assert relative_difference(net.with_graph(*folded)(x), net(x)) < 1e-5

    for block in nnx.merge(*folded).blocks:
        assert isinstance(block.bn1, BatchNorm)
        assert isinstance(block.bn2, Shift)
    for number, of_block in folded[2]["blocks"].items():
        assert of_block.keys() == {"bn1"}
        jax.tree.map(np.testing.assert_array_equal, of_block, {"bn1": net.batch_stats["blocks"][number]["bn1"]})
        before, after = (parameters["blocks"][number] for parameters in (net.parameters, folded[1]))
        for part in ("bn1", "conv2"):
            jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
        assert (after["conv1"]["kernel"] != before["conv1"]["kernel"]).any()

    graph, *again = fold_batch_norm(*folded)
    assert graph == folded[0]
    jax.tree.map(np.testing.assert_array_equal, again, list(folded[1:]))


def test_a_folded_network_refuses_to_train():
    net = network("classifier")
    graph, *state = fold_batch_norm(net.graph, *net.arrays)
    images = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="cannot be trained"):
        jax.eval_shape(lambda *state: nnx.merge(graph, *state)(images, train=True), *state)
