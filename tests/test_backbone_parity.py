"""A backbone read from a file is the network that wrote it, in features and gradients; of which: reference/peers.py.

All pictures of a peer are in one batch of ours, padded: one program computes every stage and every gradient.
"""

import copy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_networks import split

torch = pytest.importorskip("torch")

from reference.peers import PEERS, Peer, randomized  # noqa: E402 (they need torch)
from reference.torch_weights import relative_difference, to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)


def read(peer: Peer, network: Any, folder: Path) -> tuple[nnx.GraphDef, dict, dict]:
    """Ours with the values of torch's, by way of a file: graph, parameters and statistics."""
    model = nnx.eval_shape(lambda: peer.config.build(rngs=nnx.Rngs(0)))
    graph, trees = split(model)
    folder.mkdir()
    everything = {"backbone": nnx.to_pure_dict(nnx.state(model)), "head": None}
    loaded = peer.config.load(peer.write(network, folder), everything).backbone
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, everything["backbone"])
    return graph, *(like(tree, loaded) for tree in trees)


def like(tree: Any, values: Any) -> Any:
    """The part of `values` that has the structure of `tree`."""
    return {key: like(branch, values[key]) for key, branch in tree.items()} if isinstance(tree, dict) else values


def images_of(network: Any, peer: Peer) -> list[np.ndarray]:
    """Pictures (1, h, w, 3) at which no ReLU is within rounding of its kink, where gradients jump."""
    distances = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].abs().min().item()))
        for module in network.modules()
        if isinstance(module, torch.nn.ReLU)
    ]

    def of_size(size: tuple[int, int]) -> np.ndarray:
        for seed in range(50):
            image = np.random.default_rng((*size, seed)).normal(size=(1, *size, 3)).astype(np.float32)
            distances.clear()
            if hooks:
                with torch.no_grad():
                    peer.stages(network, to_torch(image))
            if min(distances, default=1) > 3e-6:
                return image
        raise AssertionError("no picture is far from all kinks; take smaller ones")

    images = [of_size(size) for size in peer.sizes]
    for hook in hooks:
        hook.remove()
    return images


def weights_of(shape: tuple[int, ...]) -> np.ndarray:
    """Another one for every output, of which the gradients are compared: their mean."""
    return (np.cos(np.arange(np.prod(shape))).reshape(shape) / np.prod(shape)).astype(np.float32)


def of_torch(network: Any, peer: Peer, images: list[np.ndarray]) -> tuple[list[list[np.ndarray]], Any]:
    """The stages (h, w, d) of every picture; and the network with gradients in place of its parameters."""
    network.zero_grad()
    stages = [[x.permute(0, 2, 3, 1)[0] for x in peer.stages(network, to_torch(image))] for image in images]
    sum((x * torch.from_numpy(weights_of(x.shape))).sum() for of_image in stages for x in of_image).backward()
    gradients = copy.deepcopy(network)
    with torch.no_grad():
        for (name, parameter), original in zip(gradients.named_parameters(), network.parameters(), strict=True):
            parameter.copy_(torch.zeros_like(parameter) if original.grad is None else original.grad)
            if name == peer.positions_of_tokens[0]:
                parameter.view(-1, parameter.shape[-1])[: peer.positions_of_tokens[1]] = 0
    return [[x.detach().numpy() for x in of_image] for of_image in stages], gradients


def ours(
    model: tuple[nnx.GraphDef, dict, dict], images: list[np.ndarray], expected: list[list[np.ndarray]]
) -> tuple[list[np.ndarray], dict]:
    """The stages of all pictures on one canvas, and the gradients of the parameters."""
    graph, parameters, batch_stats = model
    sizes = np.int32([image.shape[1:3] for image in images])
    canvas = np.zeros((len(images), *sizes.max(0), 3), np.float32)
    for place, image in zip(canvas, images, strict=True):
        place[: image.shape[1], : image.shape[2]] = image[0]
    abstract = nnx.eval_shape(lambda: nnx.merge(graph, parameters, batch_stats)(canvas))
    weights = [np.zeros(stage.shape, np.float32) for stage in abstract]
    for index, of_image in enumerate(expected):
        for places, stage in zip(weights, of_image, strict=True):
            places[index, : stage.shape[0], : stage.shape[1]] = weights_of(stage.shape)

    @jax.jit
    def computed(parameters, batch_stats, canvas, sizes, weights):
        def scalar(parameters):
            stages = nnx.merge(graph, parameters, batch_stats)(canvas, sizes)
            return sum((x * weight).sum() for x, weight in zip(stages, weights, strict=True)), stages

        gradients, stages = jax.grad(scalar, has_aux=True)(parameters)
        return stages, gradients

    return jax.device_get(computed(jax.tree.map(jnp.asarray, parameters), batch_stats, canvas, sizes, weights))


@pytest.mark.parametrize("name", PEERS)
def test_features_and_gradients_are_those_of(name, tmp_path):
    peer = PEERS[name]
    network = randomized(peer.make(), gain=peer.gain).double().eval()
    images = images_of(network, peer)
    expected, gradients = of_torch(network, peer, images)
    stages, found = ours(read(peer, network, tmp_path / "weights"), images, expected)
    for index, of_image in enumerate(expected):
        for stage, values in zip(stages, of_image, strict=True):
            assert 0.1 < np.abs(values).max() < 100, "everything matters"
            height, width, _ = values.shape
            assert relative_difference(stage[index, :height, :width], values) < 1e-5
    _, of_parameters, _ = read(peer, gradients, tmp_path / "gradients")
    for (path, values), theirs in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(of_parameters), strict=True
    ):
        assert np.abs(theirs).max() > 0, path
        assert relative_difference(values, theirs) < 1e-4, path
