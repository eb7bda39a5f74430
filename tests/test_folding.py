"""A network whose batch norm is folded computes what it computed before, and trains no more."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.systems.deeplab.config import DeepLabModel
from lpcam_jax.systems.deeplab.network import build_deeplab
from lpcam_jax.systems.lpcam.network import build_classifier

CLASSES = 3
TINY = {"blocks": (1, 1, 1, 2), "width": 4, "stem_width": 8}
BUILDERS = {
    "classifier": partial(build_classifier, ResNetConfig(**TINY), CLASSES),
    "v2": partial(build_deeplab, DeepLabModel(**TINY, head="deeplabv2"), CLASSES),
    "v3plus": partial(
        build_deeplab, DeepLabModel(**TINY, head="deeplabv3plus", head_width=8, output_stride=16), CLASSES
    ),
}


def random_network(name: str) -> tuple[nnx.GraphDef, dict, dict]:
    """A network whose norms scale, shift and turn signs."""
    graph, *trees = nnx.split(nnx.eval_shape(BUILDERS[name]), nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:3]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key == "var" else (-0.5, 0.8)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return graph, *(jax.tree_util.tree_map_with_path(random, nnx.to_pure_dict(tree)) for tree in trees)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_folded_network_is_the_same_function(name):
    network = random_network(name)
    folded = fold_batch_norm(*network)
    assert not jax.tree.leaves(folded[2])
    assert fold_batch_norm(*folded) == folded

    rng = np.random.default_rng(1)
    images, sizes = rng.normal(size=(2, 48, 66, 3)).astype(np.float32), np.int32([[48, 66], [33, 49]])
    images[1, 33:], images[1, :, 49:] = 0, 0

    def outputs(graph, parameters, batch_stats):
        model = nnx.merge(graph, parameters, batch_stats)
        return model.features(images, sizes) if name == "classifier" else model(images, sizes)

    before, after = (jax.jit(partial(outputs, graph))(*trees) for graph, *trees in (network, folded))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * abs(before).max())


def test_a_folded_network_refuses_to_train():
    graph, *state = fold_batch_norm(*random_network("classifier"))
    images = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(ValueError, match="cannot be trained"):
        jax.eval_shape(lambda *state: nnx.merge(graph, *state)(images, train=True), *state)
