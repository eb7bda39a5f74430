"""UperNet beside that of transformers, read from the file that it writes: logits, and ten steps of training."""

import copy
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_backbone_parity import like
from tiny_networks import split

torch = pytest.importorskip("torch")

from reference import torch_upernet  # noqa: E402 (they need torch)
from reference.peers import SWIN, package, randomized  # noqa: E402
from reference.torch_weights import relative_difference, to_torch  # noqa: E402
from test_deeplab_parity import batch_of, normalized  # noqa: E402

from lpcam_jax.backbones.swin import SwinConfig  # noqa: E402
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetTraining  # noqa: E402
from lpcam_jax.systems.upernet.network import UperNet, build_upernet  # noqa: E402
from lpcam_jax.systems.upernet.training import upernet_loss, upernet_optimizer  # noqa: E402
from lpcam_jax.systems.upernet.weights import load_upernet  # noqa: E402
from lpcam_jax.training.checkpoints import TrainState  # noqa: E402
from lpcam_jax.training.step import make_train_step  # noqa: E402

pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)  # as in test_torch_parity.py

CLASSES = 5
SIZES = ((48, 96), (37, 50), (96, 41))
CONFIG = UperNetConfig(
    model=SwinConfig(**SWIN, window=3, stage_norms=True), head=UperNetHead(width=12, auxiliary_width=6)
)


def of_transformers() -> Any:
    transformers = package("transformers")
    backbone = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=SWIN["dim"],
        depths=list(SWIN["depths"]),
        num_heads=[2, 4, 8, 16],
        window_size=3,
        mlp_ratio=2,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=CONFIG.head.width,
        auxiliary_in_channels=4 * SWIN["dim"],
        auxiliary_channels=CONFIG.head.auxiliary_width,
        num_labels=CLASSES,
    )
    return randomized(transformers.UperNetForSemanticSegmentation(config), gain=1.0).double().eval()


class Pair(NamedTuple):
    """Our network in pure dicts and that of transformers, in float64, with the same weights."""

    graph: nnx.GraphDef
    parameters: dict[str, Any]
    batch_stats: dict[str, Any]
    network: "torch.nn.Module"


def read(network: Any, folder: Path) -> tuple[nnx.GraphDef, dict, dict]:
    """Ours with the values of a network's, by way of its file."""
    network.save_pretrained(folder)
    graph, trees = split(nnx.eval_shape(partial(build_upernet, CONFIG, CLASSES)))
    everything = nnx.to_pure_dict(nnx.state(nnx.eval_shape(partial(build_upernet, CONFIG, CLASSES))))
    loaded = load_upernet(with_weights(folder / "model.safetensors"), everything)
    assert not loaded.new
    unused = r"\.(num_batches_tracked|relative_position_index|layernorm\.(weight|bias))$"
    assert all(re.search(unused, name) for name in loaded.skipped)
    assert jax.tree.map(np.shape, loaded.network) == jax.tree.map(np.shape, everything)
    return graph, *(jax.tree.map(jnp.asarray, like(tree, loaded.network)) for tree in trees)


def with_weights(path: Path) -> UperNetConfig:
    return replace(CONFIG, model=replace(CONFIG.model, weights=str(path)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    network = of_transformers()
    return Pair(*read(network, tmp_path_factory.mktemp("upernet")), network)


def test_logits_of_padded_pictures_are_those_of_each_alone(pair):
    images = [np.random.default_rng(size).normal(size=(1, *size, 3)).astype(np.float32) for size in SIZES]
    canvas = np.zeros((len(SIZES), 96, 96, 3), np.float32)
    for place, image in zip(canvas, images, strict=True):
        place[: image.shape[1], : image.shape[2]] = image[0]

    @jax.jit
    def logits(parameters, batch_stats, canvas, sizes):
        return nnx.merge(pair.graph, parameters, batch_stats)(canvas, sizes)

    found = jax.device_get(logits(pair.parameters, pair.batch_stats, canvas, np.int32(SIZES)))
    for values, image in zip(found, images, strict=True):
        with torch.no_grad():
            expected = pair.network.decode_head(pair.network.backbone(to_torch(image)).feature_maps)
        expected = expected[0].permute(1, 2, 0).numpy()
        assert 0.1 < np.abs(expected).max() < 100
        assert relative_difference(values[: expected.shape[0], : expected.shape[1]], expected) < 1e-5


STEPS = 10


def test_ten_steps_of_training_of_the_heads(pair, monkeypatch, tmp_path):
    monkeypatch.setattr(UperNet, "dropout", 0.0)  # torch's would drop others
    training = UperNetTraining(
        steps=STEPS, warm_up=3, learning_rate=3e-3, weight_decay=0.5, frozen=("all",)
    )  # with a decay that is seen in ten steps
    batch = batch_of(6, 48, 56)
    optimizer = upernet_optimizer(training, nnx.merge(pair.graph, pair.parameters, pair.batch_stats))
    parameters, batch_stats = jax.tree.map(jnp.array, (pair.parameters, pair.batch_stats))  # a step consumes its state
    state, losses = TrainState(jnp.int32(0), parameters, batch_stats, jax.jit(optimizer.init)(parameters)), []
    step = make_train_step(pair.graph, optimizer, upernet_loss(training), seed=0)
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))

    network = copy.deepcopy(pair.network)
    network.decode_head.train()
    network.auxiliary_head.train()
    expected_losses = torch_upernet.train(
        network,
        to_torch(normalized(batch)),
        torch.from_numpy(batch["mask"].astype(np.int64)),
        parameters=[(name, p) for name, p in network.named_parameters() if not name.startswith("backbone")],
        steps=STEPS,
        initial=training.learning_rate,
        decay=training.weight_decay,
        warm_up=training.warm_up,
    )
    expected_losses = list(expected_losses)
    assert expected_losses[-1] < 0.9 * expected_losses[0]
    assert relative_difference(losses, expected_losses) < 1e-5
    _, *expected = read(network, tmp_path)
    for tree, theirs in zip((state.parameters, state.batch_stats), expected, strict=True):
        for (path, values), other in zip(
            jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(theirs), strict=True
        ):
            assert relative_difference(values, other) < 5e-4, jax.tree_util.keystr(path)
