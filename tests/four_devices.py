"""Two training steps, prototypes and maps of the tiny recipe in one folder, what the devices exchange for the maps, and
two steps of a segmentation network, of UperNet, of IRNet, of AMN, of MCTformer and of EDAM, on all devices there are.

`test_inference.py` calls `run_all` on one device and starts this file on four.
"""

import re
import sys
from dataclasses import replace

import jax
import numpy as np

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.data.records import Subset
from lpcam_jax.data.sources import training_sources
from lpcam_jax.inference.forward import Network, forward
from lpcam_jax.machine import devices
from lpcam_jax.systems.amn.config import AMNConfig, AMNModel, AMNTraining
from lpcam_jax.systems.amn.training import amn_loss, amn_optimizer
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabModel, DeepLabTraining
from lpcam_jax.systems.deeplab.training import deeplab_loss, deeplab_optimizer
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMHead, EDAMTraining
from lpcam_jax.systems.edam.training import edam_loss, edam_optimizer
from lpcam_jax.systems.irn.config import IRNConfig, IRNTraining
from lpcam_jax.systems.irn.training import irn_loss, irn_optimizer
from lpcam_jax.systems.lpcam.clustering_stage import make_prototypes
from lpcam_jax.systems.lpcam.maps import grid_maps, grid_maps_and_guide, map_pictures
from lpcam_jax.systems.lpcam.training import train_classifier
from lpcam_jax.systems.mctformer.config import MCTformerConfig, MCTformerModel, MCTformerTraining
from lpcam_jax.systems.mctformer.training import mctformer_loss, mctformer_optimizer
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetTraining
from lpcam_jax.systems.upernet.training import upernet_loss, upernet_optimizer
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.run import Job, Run
from lpcam_jax.training.state import graph_of, network_of
from lpcam_jax.training.step import make_train_step

CLASSES = 2
SEGMENTATION = DeepLabConfig(
    model=DeepLabModel(blocks=(1, 1, 1, 1), width=4, stem_width=4),
    training=DeepLabTraining(
        steps=2,
        hold=1,
        batch_size=8,
        accumulate=2,
        learning_rate=1e-3,
        batch_norm="train",
        frozen=("conv1", "bn1", "layer1", "layer2", "layer3"),  # half as much to compile
    ),
)

UPERNET = UperNetConfig(
    model=SwinConfig(dim=8, depths=(1, 1, 1, 1), head_dim=4, mlp_ratio=2, window=3, stage_norms=True, drop_path=0.5),
    head=UperNetHead(width=8, auxiliary_width=4),
    training=UperNetTraining(
        steps=2,
        batch_size=8,
        optimizer="sgd",
        learning_rate=1e-3,
        warm_up=0,
        frozen=("embedding", "stage1", "stage2", "stage3"),  # half as much to compile
    ),
)

IRN = IRNConfig(
    model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4),
    training=IRNTraining(batch_size=8, crop=32, radius=3, learning_rate=1e-3),
)

AMN = AMNConfig(
    model=AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=4, rates=(1, 2)),
    training=AMNTraining(
        batch_size=8, crop=32, learning_rate=1e-3, frozen=("conv1", "bn1", "layer1", "layer2", "layer3")
    ),
)

MCTFORMER = MCTformerConfig(
    model=MCTformerModel(patch=8, dim=16, depth=4, head_dim=8, mlp_ratio=2, position_grid=4),
    training=MCTformerTraining(batch_size=8, crop=32, warm_up_rate=1e-3, drop_path=0.5),
)

EDAM = EDAMConfig(
    model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=8),
    head=EDAMHead(width=8),
    training=EDAMTraining(
        batch_size=8,
        crop=32,
        learning_rate=1e-2,
        batch_norm="train",
        frozen=("conv1", "bn1", "layer1", "layer2", "layer3"),
    ),
)


def run_all(recipe: str, workdir: str) -> dict[str, np.ndarray]:
    """Every number of the run, by name."""
    config, mesh = load_recipe(recipe), devices.mesh()
    config = replace(
        config,
        data=replace(config.data, scenes=8, held_out=0.0),
        training=replace(config.training, epochs=2),
        prototypes=replace(config.prototypes, cam_scales=(1.0,)),
        inference=replace(config.inference, scales=(1.0,), max_shapes=1),
    )
    source, validation = training_sources(config, masks=False)
    job = Job(Run.create(workdir, config, source.class_names), mesh)
    state = train_classifier(job, source, validation)
    make_prototypes(job, source)
    prototypes = load_prototypes(job.run)
    made = {name: value for name, value in prototypes._asdict().items() if value is not None}
    numbers = {"head": state.parameters["head"], **made}
    graph, *_ = graph_of(config, len(source.class_names))
    network = Network(graph, devices.replicate((state.parameters, state.batch_stats), mesh), mesh)
    for function in (grid_maps, grid_maps_and_guide):
        numbers[f"exchanges of {function.__name__}"] = exchanges(network, function, prototypes.class_centres[:, 0])
    results = map_pictures(
        network,
        prototypes,
        Subset(source, range(4)),
        stride=config.model.output_stride,
        inference=config.inference,
    )
    for index, _, result in results:
        numbers |= {f"{method} of picture {index}": maps for method, maps in result.maps.items()}
    numbers |= segmentation() | upernet() | irnet() | amn() | mctformer() | edam()
    return {"devices": np.array(mesh.size)} | {name: np.asarray(value) for name, value in numbers.items()}


def exchanges(network: Network, function, directions) -> int:
    """How often the devices exchange anything while each maps pictures of its own and their mirror images."""
    batch = devices.shard((np.zeros((8, 64, 64, 3), np.uint8), np.full((8, 2), 64, np.int32)), network.devices)
    constants = devices.replicate((np.asarray(directions),), network.devices)
    compiled = forward(network.graph, function).lower(network.arrays, constants, *batch).compile().as_text()
    return len(re.findall("all-reduce|all-gather|all-to-all|collective-permute", compiled))


def segmentation() -> dict[str, np.ndarray]:
    """Losses, parameters and statistics of two steps of DeepLabV2, of pictures with more and less labels."""
    training, batch = SEGMENTATION.training, labelled_batch(33, grid=33)
    loss = deeplab_loss(train_backbone=True)
    optimizer = deeplab_optimizer(training, network_of(SEGMENTATION, CLASSES))
    return two_steps("segmentation", SEGMENTATION, loss, optimizer, batch, accumulate=training.accumulate)


def upernet() -> dict[str, np.ndarray]:
    """The same of UperNet, whose batch norm and dropped channels are of the whole batch."""
    optimizer = upernet_optimizer(UPERNET.training, network_of(UPERNET, CLASSES))
    return two_steps("UperNet", UPERNET, upernet_loss(UPERNET.training), optimizer, labelled_batch(33, grid=33))


def irnet() -> dict[str, np.ndarray]:
    """The same of IRNet; which of the pictures the pairs are in makes no difference."""
    training, batch = IRN.training, labelled_batch(32, grid=8)
    return two_steps("IRNet", IRN, irn_loss(training, classes=CLASSES), irn_optimizer(training, steps=2), batch)


def amn() -> dict[str, np.ndarray]:
    """The same of AMN, whose means are over the pixels of the whole batch."""
    training, batch = AMN.training, labelled_batch(32, grid=2)
    batch["labels"] = np.float32([[1, number % 2] for number in range(8)])
    optimizer = amn_optimizer(training, network_of(AMN, CLASSES))
    return two_steps("AMN", AMN, amn_loss(training), optimizer, batch)


def mctformer() -> dict[str, np.ndarray]:
    """The same of MCTformer, whose noise and skipped blocks are drawn for the whole batch; but for the bias of the
    attention, of which a third has no effect: its gradient is rounding, of which Adam makes a whole step."""
    training, batch = MCTFORMER.training, labelled_batch(32, grid=4)
    batch = {"image": batch["image"], "erased": np.int32([[4, 4, 20, 8 + i] for i in range(8)])}
    batch["labels"] = np.float32([[1, number % 2] for number in range(8)])
    network = network_of(MCTFORMER, CLASSES)
    optimizer = mctformer_optimizer(training, network, epochs=60, steps_of_epoch=1)
    numbers = two_steps("MCTformer", MCTFORMER, mctformer_loss(training), optimizer, batch)
    return {name: values for name, values in numbers.items() if "['qkv']['bias']" not in name}


def edam() -> dict[str, np.ndarray]:
    """The same of EDAM, of eight pairs of pictures."""
    first = second = labelled_batch(32, grid=4)
    batch = {name: np.stack([first[name], second[name][::-1]], axis=1) for name in ("image", "box")}
    batch["labels"] = np.float32([[[1, number % 2], [number % 2, 1]] for number in range(8)])
    optimizer = edam_optimizer(EDAM.training, network_of(EDAM, CLASSES), steps=2)
    return two_steps("EDAM", EDAM, edam_loss(EDAM.training), optimizer, batch)


def labelled_batch(side: int, *, grid: int) -> dict[str, np.ndarray]:
    """Eight pictures of more and less labels, on canvases of this side."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, CLASSES + 1, (8, grid, grid), np.uint8)
    for number, mask in enumerate(masks):
        mask[: grid * number // 8] = 255
    return {
        "image": rng.integers(0, 256, (8, side, side, 3), np.uint8),
        "box": np.int32([[0, 0, side, side - i] for i in range(8)]),
        "mask": masks,
    }


def two_steps(
    name: str, config, loss, optimizer, batch: dict[str, np.ndarray], *, accumulate: int = 1
) -> dict[str, np.ndarray]:
    """Losses of two steps from random parameters and statistics, and what becomes of them."""
    mesh, rng = devices.mesh(), np.random.default_rng(1)
    graph, *trees = graph_of(config, CLASSES)
    step = make_train_step(graph, optimizer, loss, seed=0, accumulate=accumulate)
    parameters, batch_stats = jax.tree.map(  # `initial_state` takes as long to compile as the step
        lambda leaf: rng.normal(0.1, 0.2, leaf.shape).astype(np.float32), trees
    )
    state = TrainState(np.int32(0), parameters, batch_stats, optimizer.init(parameters))
    state = devices.replicate(state, mesh)
    numbers = {}
    for number in (1, 2):
        state, metrics = step(state, devices.shard(batch, mesh))
        numbers[f"{name} loss {number}"] = metrics["loss"]
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.parameters, state.batch_stats)):
        numbers[f"{name} {jax.tree_util.keystr(path)}"] = leaf
    return numbers


if __name__ == "__main__":
    np.savez(sys.argv[3], **run_all(sys.argv[1], sys.argv[2]))
