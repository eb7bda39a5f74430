"""Sixty pictures of sixty sizes, four scales, six compilations: the features and maps of each picture alone.

What a picture alone gives is computed here in plain NumPy, on its own size and without any padding to a bucket.
"""

import jax
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view
from reference.numpy_lpcam import scale_cam, scale_lpcam
from tiny_networks import Random, split

from lpcam_jax import Prototypes, cam, lpcam
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.data.records import Record
from lpcam_jax.data.resizing import resize_bicubic, scaled_size
from lpcam_jax.inference.passes import run_passes
from lpcam_jax.inference.plan import Pass
from lpcam_jax.systems.lpcam.config import LPCAMInference
from lpcam_jax.systems.lpcam.maps import features_of_both
from lpcam_jax.systems.lpcam.network import build_classifier

CLASSES = 3
MODEL = ResNetConfig(blocks=(1, 1, 1, 1), width=2, stem_width=4, output_stride=16)
INFERENCE = LPCAMInference(scales=(1.0, 0.5, 1.5, 2.0), max_shapes=6, batch_pixels=400_000)
RANDOM_SIZES = np.exp(np.random.default_rng(0).uniform(0, np.log(70), (54, 2))).astype(int)
SIZES = [(1, 1), (1, 70), (69, 1), (2, 3), (65, 7), (70, 70), *((int(h), int(w)) for h, w in RANDOM_SIZES)]


class Noise:
    """A picture of random pixels of each of the sizes."""

    ids = tuple(map(str, range(len(SIZES))))

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (*SIZES[index], 3), dtype=np.uint8)
        return Record(self.ids[index], image, None, None)

    def size(self, index):
        return SIZES[index]


@pytest.fixture(scope="module")
def classifier() -> Random:
    """Its batch norms shift, so that padding which is not masked would be seen."""
    return Random(*split(nnx.eval_shape(lambda: build_classifier(MODEL, CLASSES))), lambda model: None)


@pytest.fixture(scope="module")
def prototypes(classifier) -> Prototypes:
    """Random ones, all kept."""
    rng = np.random.default_rng(0)
    centres = rng.gamma(1.0, size=(2, CLASSES, 4, len(classifier.parameters["head"]))).astype(np.float32)
    mask = np.ones((CLASSES, 4), bool)
    return Prototypes(centres[0], mask, centres[1], mask)


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """(b, h, w, d), kernel (k, k, d, e), half of k around the picture -> (b, h', w', e)."""
    half = len(kernel) // 2
    x = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2)))


def norm(x: np.ndarray, values: dict, stats: dict) -> np.ndarray:
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * values["scale"] + values["bias"]


def features_alone(images: np.ndarray, parameters: dict, stats: dict) -> np.ndarray:
    """Features of pictures of one size, without padding: uint8 (b, h, w, 3) -> float64 (b, h', w', d)."""
    x = (images - np.float64(MODEL.mean)) / np.float64(MODEL.std)
    values, stats = parameters["backbone"], stats["backbone"]
    x = np.maximum(norm(convolution(x, values["conv1"]["kernel"], 2), values["bn1"], stats["bn1"]), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((4, 5))
    for name, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer4", 1)):
        block, of_block = values[name][0], stats[name][0]
        y = x
        for number, step in ((1, 1), (2, stride), (3, 1)):
            y = convolution(y, block[f"conv{number}"]["kernel"], step)
            y = norm(y, block[f"bn{number}"], of_block[f"bn{number}"])
            y = y if number == 3 else np.maximum(y, 0)
        shortcut = block["downsample"]
        x = norm(convolution(x, shortcut["conv"]["kernel"], stride), shortcut["bn"], of_block["downsample"]["bn"])
        x = np.maximum(x + y, 0)
    return x


def test_every_picture_gets_what_it_gets_alone(classifier, prototypes, mesh):
    parameters, batch_stats = classifier.arrays
    folded_graph, *folded = fold_batch_norm(classifier.graph, parameters, batch_stats)  # as inference has it
    compiled, batches = [], []

    @jax.jit
    def forward(parameters, batch_stats, pictures, sizes):
        compiled.append(pictures.shape)
        model = nnx.merge(folded_graph, parameters, batch_stats)
        straight, mirrored, _ = features_of_both(model, pictures, sizes)
        return {
            "straight": straight,
            "mirrored": mirrored,
            "cam": cam(straight, model.head[...]) + cam(mirrored, model.head[...]),
            "lpcam": lpcam(straight + mirrored, prototypes),
            "grid": model.grid_sizes(sizes),
        }

    def network(pictures, sizes):
        batches.append({tuple(size) for size in np.asarray(sizes).tolist()})
        return forward(*folded, pictures, sizes)

    passes = [Pass(scale, network) for scale in INFERENCE.scales]
    results = list(run_passes(passes, Noise(), batches=INFERENCE, devices=mesh, description=None))
    assert len(compiled) <= INFERENCE.max_shapes
    assert max(map(len, batches)) > 10  # pictures of many sizes at once
    assert sorted(index for index, *_ in results) == list(range(len(SIZES)))

    kept = list(zip(prototypes.class_centres, prototypes.context_centres, strict=True))
    for index, record, outputs in results:
        for scale, found in zip(INFERENCE.scales, outputs, strict=True):
            image = resize_bicubic(record.image, scaled_size(SIZES[index], scale))
            pair = features_alone(np.stack([image, image[:, ::-1]]), parameters, batch_stats)
            channels_first = pair.transpose(0, 3, 1, 2)
            lpcam_maps = [scale_lpcam(channels_first, *of_class) for of_class in kept]
            expected = {
                "straight": pair[0],
                "mirrored": pair[1, :, ::-1],
                "cam": scale_cam(channels_first, parameters["head"].T).transpose(1, 2, 0),
                "lpcam": np.stack(lpcam_maps, axis=-1),
            }
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                assert found[name].shape == values.shape
                tolerance = 1e-4 * values.max()
                np.testing.assert_allclose(
                    found[name], values, rtol=0, atol=tolerance, err_msg=f"{index} {scale} {name}"
                )
