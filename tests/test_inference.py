"""Maps of whole data sets: batches, mirror images and devices change the speed and never the numbers."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from four_devices import run_all
from noise import SIZES, Noise, found_in

from lpcam_jax import cam, fuse, lpcam, normalize, without_context
from lpcam_jax.data.resizing import resize_bicubic, scaled_size
from lpcam_jax.inference.forward import Network, mirror
from lpcam_jax.prototypes import Prototypes
from lpcam_jax.results.picture_maps import PictureMaps
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMInference
from lpcam_jax.systems.lpcam.maps import METHODS, features_of_both, map_pictures
from lpcam_jax.training.state import graph_of, initial_state

CLASSES = 3
TWO_SCALES = LPCAMInference(scales=(1.0, 0.5), max_shapes=2)
LABELS = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def network(tiny, mesh) -> Network:
    """A random classifier."""
    config = LPCAMConfig(model=tiny.model, training=tiny.training, seed=5)  # whose blocks do not start as shortcuts
    graph, *_ = graph_of(config, CLASSES)
    state = jax.jit(partial(initial_state, config, CLASSES, optax.identity()))()
    return Network(graph, (state.parameters, state.batch_stats), mesh)


@pytest.fixture(scope="module")
def prototypes(network) -> Prototypes:
    """Random ones."""
    rng, d = np.random.default_rng(0), network.arrays[0]["head"].shape[0]
    centres = rng.gamma(1.0, size=(2, CLASSES, 4, d)).astype(np.float32)
    masks = rng.random((2, CLASSES, 4)) < 0.7
    return Prototypes(centres[0], masks[0], centres[1], masks[1])


@pytest.fixture(scope="module")
def maps_of(network, prototypes):
    """(source, inference) -> PictureMaps by id, and the lines of the pictures that cannot be read."""

    def mapped(source, inference=TWO_SCALES) -> tuple[dict[str, PictureMaps], list[str]]:
        options = {"stride": 16, "inference": inference, "description": None}
        return found_in(map_pictures(network, prototypes, source, **options))

    return mapped


@pytest.fixture(scope="module")
def labelled(maps_of):
    return maps_of(Noise(labels=LABELS))[0]


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].classes, other[name].classes)
        for method in METHODS:
            np.testing.assert_allclose(one[name].maps[method], other[name].maps[method], atol=tolerance, rtol=0)


@pytest.mark.rest
def test_maps_are_those_of_each_picture_alone_without_padding(network, prototypes, labelled, tiny):
    model, mean, std = (
        nnx.merge(network.graph, *network.arrays),
        np.float32(tiny.model.mean),
        np.float32(tiny.model.std),
    )
    features_of = jax.jit(lambda images: model.features(images))
    weights, source = network.arrays[0]["head"], Noise()
    for index in (1, 2, 3):
        image = source[index].image
        at_scales = {method: [] for method in METHODS}
        for scale in TWO_SCALES.scales:
            scaled = (resize_bicubic(image, scaled_size(image.shape[:2], scale)) - mean[None, None]) / std[None, None]
            straight, mirrored = features_of(scaled[None])[0], features_of(scaled[None, :, ::-1])[0, :, ::-1]
            at_scales["cam"].append(cam(straight, weights) + cam(mirrored, weights))
            at_scales["lpcam_f"].append(lpcam(straight + mirrored, without_context(prototypes)))
            at_scales["lpcam"].append(lpcam(straight + mirrored, prototypes))
        classes = np.flatnonzero(LABELS[index])
        np.testing.assert_array_equal(labelled[str(index)].classes, classes)
        for method, maps in at_scales.items():
            # The reference's epsilon: on the sum over two scales of the CAM, and none for LPCAM.
            epsilon = 1e-5 / 2 if method == "cam" else 0
            expected = fuse([np.asarray(one)[..., classes] for one in maps], image.shape[:2])
            expected = normalize(expected, epsilon=epsilon)
            assert expected.max() > 0.5 or index == 3  # of a picture of one position, maps are flat
            np.testing.assert_allclose(labelled[str(index)].maps[method], np.moveaxis(expected, -1, 0), atol=5e-4)


def test_mirror_reverses_the_valid_columns_only():
    x = np.random.default_rng(0).random((3, 2, 5, 2)).astype(np.float32)
    result = mirror(jnp.asarray(x), jnp.array([5, 3, 1]))
    np.testing.assert_array_equal(result[0], x[0, :, ::-1])
    np.testing.assert_array_equal(result[1], np.concatenate([x[1, :, 2::-1], x[1, :, 3:]], axis=1))
    np.testing.assert_array_equal(result[2], x[2])


def test_a_mirrored_picture_swaps_the_features_and_keeps_the_logits(network):
    model = nnx.merge(network.graph, *network.arrays)
    image = Noise()[1].image
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    pictures[0, :37, :50], pictures[1, :37, :50] = image, image[:, ::-1]
    of_both = jax.jit(lambda pictures: features_of_both(model, pictures, jnp.array([[37, 50]] * 2)))
    straight, mirrored, logits = of_both(pictures)
    np.testing.assert_allclose(straight[0, :3, :4], mirrored[1, :3, 3::-1], atol=1e-5)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


@pytest.mark.parametrize("batch_pixels", [1, 40_000])
def test_neither_order_nor_batches_nor_shapes_change_the_maps(maps_of, labelled, batch_pixels):
    order = [3, 5, 0, 1, 4, 2]
    inference = replace(TWO_SCALES, batch_pixels=batch_pixels, max_shapes=1)
    assert_close(maps_of(Noise(order, labels=LABELS[order]), inference)[0], labelled, 1e-5)


def test_labels_decide_the_classes(labelled):
    for index, labels in enumerate(LABELS):
        result = labelled[str(index)]
        np.testing.assert_array_equal(result.classes, np.flatnonzero(labels))
        for maps in result.maps.values():
            assert maps.shape == (int(labels.sum()), *SIZES[index])
            assert maps.dtype == np.float16
            assert ((maps >= 0) & (maps <= 1)).all()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_without_labels_the_predicted_classes_are_mapped_and_at_least_one(maps_of, threshold):
    for result in maps_of(Noise(), replace(TWO_SCALES, probability=threshold))[0].values():
        expected = set(np.flatnonzero(result.probabilities >= threshold)) | {int(result.probabilities.argmax())}
        assert set(result.classes) == expected
        assert result.probabilities.shape == (CLASSES,)


def test_pictures_that_cannot_be_read_are_named_and_the_others_finished(maps_of, labelled):
    found, errors = maps_of(Noise(labels=LABELS, unreadable=[1], bad_header=[4]))
    assert sorted(line.partition(":")[0] for line in errors) == ["1.jpg", "4.jpg"]
    assert_close(found, {name: result for name, result in labelled.items() if name not in ("1", "4")}, 1e-5)


@pytest.mark.rest
def test_four_devices_give_the_numbers_of_one(recipe, tmp_path):
    script, results = Path(__file__).with_name("four_devices.py"), tmp_path / "four.npz"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags}
    command = [sys.executable, script, recipe, tmp_path / "four", results]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    one = run_all(recipe, str(tmp_path / "one"))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    with np.load(results) as four:
        assert (int(one.pop("devices")), int(four["devices"])) == (1, 4)
        for name, expected in one.items():  # not to the bit: each device sums its part of a batch first
            if expected.dtype == bool:
                np.testing.assert_array_equal(four[name], expected, err_msg=name)
            else:
                # Whole runs end with maps, which divide by small numbers; two steps from the same start are closer.
                rtol, atol = (1e-5, 1e-6) if name.startswith("segmentation") else (1e-4, 1e-4)
                if expected.dtype == np.float16:
                    rtol, atol = 0, 6e-4  # a step of it
                np.testing.assert_allclose(four[name], expected, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.rest
def test_the_whole_network_exports_for_every_platform_and_runs_after_a_round_trip(network, prototypes):
    def maps(pictures, sizes):
        model = nnx.merge(network.graph, *network.arrays)
        straight, mirrored, logits = features_of_both(model, pictures, sizes)
        return lpcam(straight + mirrored, prototypes), cam(straight, model.head[...]), logits

    pictures = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    exported = jax.export.export(jax.jit(maps), platforms=("cpu", "cuda", "tpu"))(
        pictures, jax.ShapeDtypeStruct((2, 2), jnp.int32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    restored = jax.export.deserialize(exported.serialize())
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8), np.array([[64, 64], [40, 50]], np.int32)
    for one, other in zip(restored.call(*batch), jax.jit(maps)(*batch), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
