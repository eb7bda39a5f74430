"""A tiny network of every system, and a tiny backbone of every kind: what the network contract is tested with.

A new system needs one entry in `SYSTEMS`, a new backbone one in `BACKBONES`; `test_network_contract.py` says so.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lpcam_jax.backbones.config import BackboneConfig, ResNetConfig, ViTConfig
from lpcam_jax.backbones.layers.valid import Sizes, keep_valid
from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.backbones.vgg import VGG16Config
from lpcam_jax.backbones.wideresnet import WideResNet38Config
from lpcam_jax.data.pipeline import Augmentation
from lpcam_jax.inference.forward import Network
from lpcam_jax.machine.devices import mesh
from lpcam_jax.systems.amn.config import AMNConfig, AMNModel, AMNTraining
from lpcam_jax.systems.amn.training import amn_loss, amn_optimizer
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabModel, DeepLabTraining
from lpcam_jax.systems.deeplab.network import DeepLabV2
from lpcam_jax.systems.deeplab.training import deeplab_loss, deeplab_optimizer, masked_crops
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMHead, EDAMTraining
from lpcam_jax.systems.edam.pairs import Pair
from lpcam_jax.systems.edam.training import edam_loss, edam_optimizer, paired_crops
from lpcam_jax.systems.irn.config import IRNConfig, IRNTraining
from lpcam_jax.systems.irn.training import irn_loss, irn_optimizer
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining
from lpcam_jax.systems.lpcam.training import classification_loss, classifier_optimizer, labelled_crops
from lpcam_jax.systems.mctformer.config import MCTformerConfig, MCTformerModel, MCTformerTraining
from lpcam_jax.systems.mctformer.maps import attended_map
from lpcam_jax.systems.mctformer.network import class_logits
from lpcam_jax.systems.mctformer.training import mctformer_loss, mctformer_optimizer, timm_crops
from lpcam_jax.systems.psa import labels
from lpcam_jax.systems.psa.config import PSAConfig, PSATraining
from lpcam_jax.systems.psa.training import psa_loss, psa_optimizer
from lpcam_jax.systems.sure_labels import sure_crops
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetTraining
from lpcam_jax.systems.upernet.training import upernet_loss, upernet_optimizer, varied_crops
from lpcam_jax.training.state import graph_of, network_of
from lpcam_jax.training.step import Loss

CLASSES = 3
LABELS = np.float32([[1, 0, 1], [0, 1, 0], [1, 1, 1]])
"""Of the pictures of a batch, for a network that is told them."""

Arrays = dict[str, jax.Array]


class TinySystem(NamedTuple):
    """A system with a tiny network.

    Attributes:
        config: of the system.
        outputs: (network, images, sizes, labels, dropout key) -> everything that it computes: maps float32
            (b, h, w, d), zero outside the valid region, by name; and values (b, n), if there are any.
        loss: that it is trained with.
        optimizer: that it is trained with, of a network without memory.
        crops: what it is trained on.
        has_dropout: whether the key changes "logits".
    """

    config: Any
    outputs: Callable[[nnx.Module, jax.Array, Sizes, jax.Array, jax.Array | None], Arrays]
    loss: Loss
    optimizer: Callable[[nnx.Module], optax.GradientTransformation]
    crops: Augmentation
    has_dropout: bool = False


RESNET = {"blocks": (1, 1, 1, 1), "width": 4, "stem_width": 8}
ALL_BUT_LAST = ("conv1", "bn1", "layer1", "layer2", "layer3")
VIT = {"dim": 16, "depth": 5, "head_dim": 8, "mlp_ratio": 2, "position_grid": 3}
SWIN = {"dim": 8, "depths": (2, 1, 1, 1), "head_dim": 4, "mlp_ratio": 2, "window": 3}


def _lpcam(model: BackboneConfig, frozen: tuple[str, ...]) -> TinySystem:
    training = LPCAMTraining(crop=32, long_side=(24, 40), batch_norm="train", frozen=frozen)

    def outputs(model, images, sizes, labels, key):
        features = model.features(images, sizes)
        return {"features": features, "logits": model.logits(features, sizes)}

    return TinySystem(
        LPCAMConfig(model=model, training=training),
        outputs,
        classification_loss(train_batch_norm=True),
        lambda network: classifier_optimizer(training, network, steps=9),
        labelled_crops(training),
    )


def _irn() -> TinySystem:
    training = IRNTraining(crop=32, radius=3)

    def outputs(model, images, sizes, labels, key):
        taps = model.taps(images, sizes)
        return {"edges": model.edges(taps)[..., None], "displacements": model.displacements(taps)}

    return TinySystem(
        IRNConfig(model=ResNetConfig(**RESNET), training=training),
        outputs,
        irn_loss(training, classes=CLASSES),
        lambda network: irn_optimizer(training, steps=9),
        sure_crops(training.crop, training.scale_range, grid=8),
    )


def _psa() -> TinySystem:
    training = PSATraining(crop=48, radius=2, frozen=ALL_BUT_LAST)
    crops = labels.labelled_crops(training, stride=8)

    def outputs(model, images, sizes, labels, key):
        return {"features": model.features(images, sizes)}

    def sure_of_the_mask(record, rng):
        scores = np.stack([record.mask == number for number in range(1, CLASSES + 1)]).astype(np.float32)
        return crops(labels.ScoredPicture(record.image, np.stack([scores, scores])), rng)

    return TinySystem(
        PSAConfig(model=ResNetConfig(**RESNET), training=training),
        outputs,
        psa_loss(training),
        lambda network: psa_optimizer(training, network, steps=9),
        sure_of_the_mask,
    )


def _amn() -> TinySystem:
    training = AMNTraining(crop=32, frozen=ALL_BUT_LAST)

    def outputs(model, images, sizes, labels, key):
        return {"logits": model(images, labels, sizes, dropout_key=key)}

    return TinySystem(
        AMNConfig(model=AMNModel(**RESNET, rates=(1, 2, 3, 4)), training=training),
        outputs,
        amn_loss(training),
        lambda network: amn_optimizer(training, network),
        sure_crops(training.crop, training.scale_range, grid=2),
        has_dropout=True,
    )


def _mctformer() -> TinySystem:
    model, training = MCTformerModel(**VIT), MCTformerTraining(crop=32)

    def outputs(model, images, sizes, labels, key):
        seen = model.attended(images, sizes, shares=jnp.float32([0, 0, 1, 1, 1]))
        scores = model.scores(seen.patches, sizes)
        fused = keep_valid(attended_map(seen, jax.nn.relu(scores)), model.grid_sizes(sizes))
        maps = {"patches": seen.patches.astype(jnp.float32), "attention": seen.attention, "scores": scores}
        logits = {"logits": class_logits(seen.tokens), "patch logits": model.patch_logits(scores, sizes)}
        return maps | {"map": fused} | logits

    return TinySystem(
        MCTformerConfig(model=model, training=training),
        outputs,
        mctformer_loss(training),
        lambda network: mctformer_optimizer(training, network, epochs=3, steps_of_epoch=3),
        timm_crops(training, model),
    )


def _edam() -> TinySystem:
    training = EDAMTraining(crop=32, long_side=(24, 40), warm_up=3, batch_norm="train", frozen=ALL_BUT_LAST)
    crops = paired_crops(training)

    def outputs(model, images, sizes, labels, key):
        features = model.features(images, sizes)
        heat = model.heat(features, sizes)
        twice = [leaf if leaf is None else jnp.repeat(leaf, 2, axis=0) for leaf in (features, heat, sizes)]
        logits = model.logits(*twice, dropout_key=key)  # of pictures paired with themselves
        return {"heat": heat, "logits": logits.reshape(len(images), -1)}

    return TinySystem(
        EDAMConfig(model=ResNetConfig(**RESNET, output_stride=8), head=EDAMHead(width=16), training=training),
        outputs,
        edam_loss(training),
        lambda network: edam_optimizer(training, network, steps=9),
        lambda record, rng: crops(Pair(record, record), rng),
        has_dropout=True,
    )


def _deeplab(**model: Any) -> TinySystem:
    training = DeepLabTraining(crop=33, steps=9, batch_norm="train", frozen=ALL_BUT_LAST)

    def outputs(model, images, sizes, labels, key):
        if not isinstance(model, DeepLabV2):
            return {"logits": model(images, sizes, dropout_key=key)}
        *of_scales, best = model.pyramid(images, sizes)
        return {f"logits of scale {number}": logits for number, logits in enumerate(of_scales)} | {"logits": best}

    return TinySystem(
        DeepLabConfig(model=DeepLabModel(**RESNET | model), training=training),
        outputs,
        deeplab_loss(train_backbone=True),
        lambda network: deeplab_optimizer(training, network),
        masked_crops(training),
        has_dropout=model.get("head") == "deeplabv3plus",
    )


def _upernet() -> TinySystem:
    model = SwinConfig(**SWIN | {"depths": (1, 1, 1, 1)}, stage_norms=True)
    training = UperNetTraining(crop=32, fit=(24, 48), steps=9, frozen=("embedding", "stage1", "stage2", "stage3"))

    def outputs(model, images, sizes, labels, key):
        features, grids = model.levels(images, sizes)
        fused = model.head(features, grids, train=False)
        auxiliary = model.auxiliary(features[-2], grids[-2], train=False)
        maps = {"fused": fused.astype(jnp.float32), "auxiliary": auxiliary.astype(jnp.float32)}
        return maps | {"logits": model(images, sizes, key=key)}

    return TinySystem(
        UperNetConfig(model=model, head=UperNetHead(width=8, auxiliary_width=4), training=training),
        outputs,
        upernet_loss(training),
        lambda network: upernet_optimizer(training, network),
        varied_crops(training),
        has_dropout=True,
    )


V3PLUS = {
    "head": "deeplabv3plus",
    "head_width": 8,
    "rates": (1, 2),
    "layout": "torchvision",
    "stem_pool": "symmetric",
    "output_stride": 16,
}
SYSTEMS = {
    "classifier": _lpcam(ResNetConfig(**RESNET), ALL_BUT_LAST),
    "classifier, vit": _lpcam(ViTConfig(**VIT), ("embedding", "blocks1", "blocks2", "blocks3")),
    "classifier, swin": _lpcam(SwinConfig(**SWIN, drop_path=0.5), ("embedding", "stage1", "stage2", "stage3")),
    "irn": _irn(),
    "psa": _psa(),
    "amn": _amn(),
    "mctformer": _mctformer(),
    "edam": _edam(),
    "segmentation": _deeplab(),
    "segmentation, v3plus": _deeplab(**V3PLUS),
    "segmentation, largefov": _deeplab(head="largefov", head_width=8, rates=(1, 2)),
    "upernet": _upernet(),
}
"""By the kind of the system, and what is special."""


class TinyBackbone(NamedTuple):
    """A tiny backbone.

    Attributes:
        config: its description.
        sizes: pictures in one canvas of 64x64 that are the hard ones.
        dilation: see `BackboneConfig.build`.
        positions_are_rounded_up: whether a stage has a position for every started stride.
    """

    config: BackboneConfig
    sizes: tuple[tuple[int, int], ...]
    dilation: str = "reference"
    positions_are_rounded_up: bool = True


CAFFE = ResNetConfig(**RESNET, layout="caffe")
BACKBONES = {
    "resnet": TinyBackbone(ResNetConfig(**RESNET), ((1, 1), (17, 33))),
    "resnet, ceil pool": TinyBackbone(
        ResNetConfig(**RESNET, stem_pool="ceil", output_stride=32),
        ((1, 1), (9, 64)),
        positions_are_rounded_up=False,
    ),
    "resnet, caffe and ceil, output stride 8": TinyBackbone(
        replace(CAFFE, blocks=(1, 1, 1, 2), stem_pool="ceil", output_stride=8),
        ((11, 8), (49, 62)),
        positions_are_rounded_up=False,
    ),
    "resnet, symmetric ceil pool": TinyBackbone(
        ResNetConfig(**RESNET, stem_pool="symmetric_ceil", output_stride=32),
        ((1, 2), (47, 63)),
        positions_are_rounded_up=False,
    ),
    "resnet, atrous": TinyBackbone(
        replace(CAFFE, blocks=(1, 1, 2, 2), stem_pool="symmetric_ceil", output_stride=8),
        ((11, 8), (49, 62)),
        dilation="atrous",
        positions_are_rounded_up=False,
    ),
    "vgg16": TinyBackbone(VGG16Config(width=4), ((1, 1), (47, 33))),
    "vgg16, psa": TinyBackbone(VGG16Config(width=4, layout="psa"), ((1, 2), (33, 47))),
    "wideresnet38": TinyBackbone(WideResNet38Config(width=2), ((1, 1), (33, 47))),
    "vit": TinyBackbone(ViTConfig(**VIT), ((1, 1), (17, 33), (48, 48))),
    "vit, as DINOv2": TinyBackbone(
        ViTConfig(**VIT, patch=14, tokens=5, layer_scale=True, position_resize="offset"), ((2, 14), (29, 57), (42, 42))
    ),
    "vit, as CLIP": TinyBackbone(
        ViTConfig(**VIT, patch=8, pre_norm=True, final_norm=False, activation="quick_gelu", position_resize="bicubic"),
        ((1, 2), (33, 64)),
    ),
    "swin": TinyBackbone(SwinConfig(**SWIN), ((1, 1), (17, 33), (49, 7))),
    "swin, as in UperNet": TinyBackbone(
        SwinConfig(**SWIN | {"depths": (1, 1, 1, 2), "window": 2}, stage_norms=True), ((1, 2), (33, 47), (64, 24))
    ),
}
"""By the kind of the backbone; of its other forms, by what is special."""


class Random:
    """A network of a graph with random arrays, compiled once a shape and kept with the session.

    Attributes:
        graph: what it is.
        parameters, batch_stats: norms shift, scale and turn signs, so that padding which is not masked would be seen.
        function: (network, *inputs) -> outputs.
    """

    def __init__(self, graph: nnx.GraphDef, trees: tuple[Any, Any], function: Callable[..., Any]):
        self.graph, self.function = graph, function
        self.parameters, self.batch_stats = (random_arrays(tree) for tree in trees)
        self.compiled = jax.jit(self.traced)

    def __call__(self, *inputs: Any) -> Any:
        """The outputs, as NumPy arrays."""
        return jax.device_get(self.compiled(*self.arrays, *inputs))

    def traced(self, parameters: Any, batch_stats: Any, *inputs: Any) -> Any:
        """The outputs with these arrays; to be traced."""
        return self.function(nnx.merge(self.graph, parameters, batch_stats), *inputs)

    @property
    def arrays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters and batch statistics."""
        return self.parameters, self.batch_stats

    def with_graph(self, graph: nnx.GraphDef, *arrays: dict[str, Any]) -> "Random":
        """The same function of another network: a folded one, or one of another precision."""
        other = Random(graph, ({}, {}), self.function)
        other.parameters, other.batch_stats = arrays
        return other


class TinyNetwork(Random):
    """The network of a tiny system: (images, sizes, labels, dropout key) -> its outputs."""

    def __init__(self, system: TinySystem):
        self.system, self.config = system, system.config
        graph, *trees = graph_of(self.config, CLASSES)
        super().__init__(graph, tuple(trees), system.outputs)

    def __call__(
        self, images: np.ndarray, sizes: np.ndarray | None = None, labels: np.ndarray | None = None, key: Any = None
    ) -> dict[str, np.ndarray]:
        return super().__call__(images, sizes, LABELS[: len(images)] if labels is None else labels, key)

    @cached_property
    def model(self) -> nnx.Module:
        """Without memory: what it says of itself."""
        return network_of(self.config, CLASSES)

    def on_devices(self, **parameters: Any) -> Network:
        """As results are computed with it; some of its parameters may be others."""
        return Network(self.graph, ({**self.parameters, **parameters}, self.batch_stats), mesh())

    def preprocessed(self, image: np.ndarray) -> np.ndarray:
        """A picture uint8 (h, w, 3) as the network takes it, by hand: float32 (1, h, w, 3)."""
        model = self.config.model
        ordered = image if model.channel_order == "rgb" else image[..., ::-1]
        return ((ordered.astype(np.float32) - np.float32([[model.mean]])) / np.float32([[model.std]]))[None]


@cache
def network(name: str) -> TinyNetwork:
    """The tiny network of an entry of SYSTEMS."""
    return TinyNetwork(SYSTEMS[name])


@cache
def backbone(name: str, precision: str = "float32") -> Random:
    """The tiny backbone of an entry of BACKBONES: (images, sizes) -> its stages."""
    return Random(*split(backbone_model(name, precision)), lambda model, images, sizes=None: model(images, sizes))


@cache
def backbone_model(name: str, precision: str = "float32") -> nnx.Module:
    """The same without memory: what it says of itself."""
    tiny = BACKBONES[name]
    config = replace(tiny.config, precision=precision)
    return nnx.eval_shape(lambda: config.build(dilation=tiny.dilation, rngs=nnx.Rngs(0)))


def split(model: nnx.Module) -> tuple[nnx.GraphDef, tuple[dict[str, Any], dict[str, Any]]]:
    """Graph, and (parameters, batch statistics) as nested dicts."""
    graph, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, tuple(nnx.to_pure_dict(tree) for tree in trees)


def random_arrays(tree: Any) -> Any:
    """Random values for shapes: kernels that keep the scale, norms that shift, scale and turn signs."""
    rng = np.random.default_rng(0)

    def random(path: tuple, leaf: Any) -> np.ndarray:
        assert leaf.dtype == jnp.float32, "parameters and statistics stay float32"
        name = path[-1].key
        if name in ("kernel", "head"):
            return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:-1]) ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.5, 0.8)
        values = rng.uniform(low, high, leaf.shape)
        return (values * np.where(rng.random(leaf.shape) < 0.2, -1, 1) if name == "scale" else values).astype("f4")

    return jax.tree_util.tree_map_with_path(random, tree)


def shapes_of(tree: Any) -> Any:
    """Shapes and types of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


def image_of(size: tuple[int, int]) -> np.ndarray:
    """A preprocessed picture, float32 (h, w, 3), always the same of a size."""
    return np.random.default_rng(size).normal(size=(*size, 3)).astype(np.float32)


def padded(sizes: tuple[tuple[int, int], ...], bucket: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of many sizes in one batch, zero around them, and their sizes."""
    images = np.zeros((len(sizes), *bucket, 3), np.float32)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:height, :width] = image_of((height, width))
    return images, np.int32(sizes)


def relative_difference(values: np.ndarray, expected: np.ndarray, floor: float = 0.0) -> float:
    """The largest difference over the largest value, which is taken to be at least `floor`."""
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / max(np.abs(expected).max(), floor)
