"""Maps of whole data sets: batches, buckets, mirror images and devices change the speed and never the numbers."""

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

from lpcam_jax import cam, fuse, lpcam, normalize, without_context
from lpcam_jax.data.augment import resize_bicubic, scaled_size
from lpcam_jax.data.records import Record
from lpcam_jax.inference.passes import Pass, run_passes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.prototypes import Prototypes
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMInference
from lpcam_jax.systems.lpcam.maps import METHODS, PictureMaps, features_of_both, map_pictures, mirror
from lpcam_jax.training.state import graph_of, initial_state

CLASSES = 3
SIZES = ((96, 64), (37, 50), (64, 90), (5, 7), (33, 33), (80, 17))
TWO_SCALES = LPCAMInference(scales=(1.0, 0.5), max_shapes=2)


class Noise:
    """Pictures of random pixels in many sizes; labels where they are given."""

    has_masks = False
    class_names = tuple("abc")

    def __init__(self, order=(0, 1, 2, 3, 4, 5), *, labels=None, unreadable=(), bad_header=()):
        self.order, self.labels = list(order), labels
        self.unreadable, self.bad_header = unreadable, bad_header
        self.ids = [str(number) for number in self.order]

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        number = self.order[index]
        if number in self.unreadable:
            raise UserError(f"{number}.jpg: damaged picture; get it again")
        image = np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)
        return Record(self.ids[index], image, None if self.labels is None else self.labels[index], None)

    def size(self, index):
        if self.order[index] in self.bad_header:
            raise UserError(f"{self.order[index]}.jpg: the file is empty; take it out")
        return SIZES[self.order[index]]


LABELS = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def network(tiny):
    """A random classifier with random prototypes: its graph, (parameters, statistics), prototypes."""
    config = LPCAMConfig(model=tiny.model, training=tiny.training, seed=5)  # whose blocks do not start as shortcuts
    graph, *_ = graph_of(config, CLASSES)
    state = jax.jit(partial(initial_state, config, CLASSES, optax.identity()))()
    rng, d = np.random.default_rng(0), state.parameters["head"].shape[0]
    centres = rng.gamma(1.0, size=(2, CLASSES, 4, d)).astype(np.float32)
    masks = rng.random((2, CLASSES, 4)) < 0.7
    return graph, (state.parameters, state.batch_stats), Prototypes(centres[0], masks[0], centres[1], masks[1])


def maps_of(network, source, mesh, inference=TWO_SCALES, skipped=None) -> dict[str, PictureMaps]:
    skipped = [] if skipped is None else skipped
    results = map_pictures(*network, source, stride=16, inference=inference, devices=mesh, skipped=skipped)
    found = [(record.id, result) for _, record, result in results]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def labelled(network, mesh):
    return maps_of(network, Noise(labels=LABELS), mesh)


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].classes, other[name].classes)
        for method in METHODS:
            np.testing.assert_allclose(one[name].maps[method], other[name].maps[method], atol=tolerance, rtol=0)


@pytest.mark.slow
def test_maps_are_those_of_each_picture_alone_without_padding(network, labelled, tiny):
    graph, state, prototypes = network
    model, mean, std = nnx.merge(graph, *state), np.float32(tiny.model.mean), np.float32(tiny.model.std)
    features_of = jax.jit(lambda images: model.features(images))
    weights, source = state[0]["head"], Noise()
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
            np.testing.assert_allclose(labelled[str(index)].maps[method], expected, atol=1e-4)


def test_mirror_reverses_the_valid_columns_only():
    x = np.random.default_rng(0).random((3, 2, 5, 2)).astype(np.float32)
    result = mirror(jnp.asarray(x), jnp.array([5, 3, 1]))
    np.testing.assert_array_equal(result[0], x[0, :, ::-1])
    np.testing.assert_array_equal(result[1], np.concatenate([x[1, :, 2::-1], x[1, :, 3:]], axis=1))
    np.testing.assert_array_equal(result[2], x[2])


def test_a_mirrored_picture_swaps_the_features_and_keeps_the_logits(network):
    graph, state, _ = network
    model = nnx.merge(graph, *state)
    image = Noise()[1].image
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    pictures[0, :37, :50], pictures[1, :37, :50] = image, image[:, ::-1]
    of_both = jax.jit(lambda pictures: features_of_both(model, pictures, jnp.array([[37, 50]] * 2)))
    straight, mirrored, logits = of_both(pictures)
    np.testing.assert_allclose(straight[0, :3, :4], mirrored[1, :3, 3::-1], atol=1e-5)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 12])
def test_no_more_shapes_than_allowed_are_compiled(mesh, limit):
    seen, traced = [], []

    @jax.jit
    def network(pictures, sizes):
        traced.append(pictures.shape)
        return {"grid": -(-sizes // 16), "sizes": sizes}

    def counting(pictures, sizes):
        seen.append(pictures.shape[1:3])
        return network(pictures, sizes)

    passes, inference = [Pass(scale, counting) for scale in (1.0, 0.5)], LPCAMInference(max_shapes=limit)
    results = list(run_passes(passes, Noise(), batches=inference, devices=mesh, description="", skipped=[]))
    assert sorted(index for index, *_ in results) == list(range(len(SIZES)))
    assert len(traced) == len(set(seen)) <= limit
    for index, _, outputs in results:
        for one, scale in zip(outputs, (1.0, 0.5), strict=True):
            assert tuple(one["sizes"]) == scaled_size(SIZES[index], scale)


@pytest.mark.parametrize("only", [None, [1, 5]])
@pytest.mark.parametrize("limit", [1, 12])
def test_the_progress_bar_says_how_much_is_padding(mesh, capsys, limit, only):
    computed = {}

    def network(pictures, sizes):
        shape = pictures.shape[1:3]
        computed[shape] = computed.get(shape, 0) + pictures[..., 0].size
        return {"grid": sizes}

    passes, inference = (
        [Pass(scale, network) for scale in (1.0, 0.5)],
        LPCAMInference(max_shapes=limit, batch_pixels=40_000),
    )

    def run(description):
        list(
            run_passes(passes, Noise(), batches=inference, devices=mesh, description=description, skipped=[], only=only)
        )
        return capsys.readouterr().err

    last = run("maps").splitlines()[-1].rpartition("\r")[2]
    pictures = sum(np.prod(scaled_size(SIZES[n], scale)) for n in only or range(6) for scale in (1.0, 0.5))
    padding = 100 * (1 - pictures / sum(computed.values()))
    assert f", {len(computed)} shape{'s' * (len(computed) > 1)}, {padding:.0f} % padding]" in last
    assert run(None) == ""


def test_the_batches_of_a_shape_are_even(mesh):
    batches = []

    def network(pictures, sizes):
        batches.append((len(pictures), int((np.asarray(sizes) > 1).all(axis=1).sum())))
        return {"grid": sizes}

    class Alike(Noise):
        def size(self, index):
            return 40, 50

        def __getitem__(self, index):
            return Record(self.ids[index], np.zeros((40, 50, 3), np.uint8), None, None)

    inference = LPCAMInference(max_shapes=1, batch_pixels=4 * 2 * 64 * 64)  # of six pictures, four fit
    list(run_passes([Pass(1.0, network)], Alike(), batches=inference, devices=mesh, description=None, skipped=[]))
    assert batches == [(3, 3), (3, 3)]


@pytest.mark.parametrize("batch_pixels", [1, 40_000])
def test_neither_order_nor_batches_nor_shapes_change_the_maps(network, labelled, mesh, batch_pixels):
    order = [3, 5, 0, 1, 4, 2]
    inference = replace(TWO_SCALES, batch_pixels=batch_pixels, max_shapes=1)
    assert_close(maps_of(network, Noise(order, labels=LABELS[order]), mesh, inference), labelled, 1e-5)


def test_labels_decide_the_classes(labelled):
    for index, labels in enumerate(LABELS):
        result = labelled[str(index)]
        np.testing.assert_array_equal(result.classes, np.flatnonzero(labels))
        for maps in result.maps.values():
            assert maps.shape == (*SIZES[index], int(labels.sum()))
            assert maps.dtype == np.float32
            assert ((maps >= 0) & (maps <= 1)).all()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_without_labels_the_predicted_classes_are_mapped_and_at_least_one(network, mesh, threshold):
    for result in maps_of(network, Noise(), mesh, replace(TWO_SCALES, probability=threshold)).values():
        expected = set(np.flatnonzero(result.probabilities >= threshold)) | {int(result.probabilities.argmax())}
        assert set(result.classes) == expected
        assert result.probabilities.shape == (CLASSES,)


def test_pictures_that_cannot_be_read_are_named_and_the_others_finished(network, labelled, mesh):
    skipped = []
    found = maps_of(network, Noise(labels=LABELS, unreadable=[1], bad_header=[4]), mesh, skipped=skipped)
    assert sorted(line.partition(":")[0] for line in skipped) == ["1.jpg", "4.jpg"]
    assert_close(found, {name: result for name, result in labelled.items() if name not in ("1", "4")}, 1e-5)


@pytest.mark.slow
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
                np.testing.assert_allclose(four[name], expected, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.slow
def test_the_whole_network_exports_for_every_platform_and_runs_after_a_round_trip(network):
    graph, state, prototypes = network

    def maps(pictures, sizes):
        model = nnx.merge(graph, *state)
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
