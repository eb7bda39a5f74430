"""Shapes and batches of whole data sets, and what comes of each picture; without any network."""

import math

import jax
import numpy as np
import pytest
from noise import SIZES, Noise

from lpcam_jax.config import Batches
from lpcam_jax.data.records import Record
from lpcam_jax.data.resizing import scaled_size
from lpcam_jax.inference.passes import run_passes
from lpcam_jax.inference.plan import Pass, plan_batches
from lpcam_jax.machine.errors import UserError

BY_INDEX = dict(enumerate(SIZES))
TWO_SCALES = (1.0, 0.5)


def plan(sizes=BY_INDEX, scales=TWO_SCALES, wanted=None, *, among=None, devices=1, **batches):
    """Of passes that are never called."""
    passes = [Pass(scale, print) for scale in scales]
    wanted = sorted(sizes) if wanted is None else wanted
    return plan_batches(sizes, passes, wanted, among=among, batches=Batches(**batches), devices=devices)


@pytest.mark.parametrize("limit", [1, 2, 12])
def test_every_picture_fits_one_of_not_too_many_shapes_at_every_scale(limit):
    made = plan(max_shapes=limit)
    assert 1 <= len({key.bucket for key in made.batch_sizes}) <= limit
    for index, size in BY_INDEX.items():
        for scale, (key, _, _) in zip(TWO_SCALES, made.places[index], strict=True):
            assert all(
                of_picture <= side for of_picture, side in zip(scaled_size(size, scale), key.bucket, strict=True)
            )
            assert made.items[key] > 0
    assert made.items.total() == 2 * len(SIZES)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch_pixels", [1, 40_000, 10**9])
def test_a_batch_fits_the_devices_and_no_larger_one_is_started_than_there_are_pictures(batch_pixels, devices):
    made = plan(max_shapes=3, batch_pixels=batch_pixels, devices=devices)
    for key, size in made.batch_sizes.items():
        on_one = size // devices
        assert size == on_one * devices
        assert on_one == 1 or 2 * on_one * math.prod(key.bucket) <= batch_pixels  # with the mirror images
        assert size < made.items[key] + devices


def test_the_batches_of_a_shape_are_even():
    alike = dict.fromkeys(range(6), (40, 50))
    [bucket] = {key.bucket for key in plan(alike, (1.0,), max_shapes=1).batch_sizes}
    four_fit = 4 * 2 * math.prod(bucket)
    assert list(plan(alike, (1.0,), max_shapes=1, batch_pixels=four_fit).batch_sizes.values()) == [3]
    assert list(plan(alike, (1.0,), max_shapes=1, batch_pixels=four_fit, devices=2).batch_sizes.values()) == [6]


def test_padding_is_the_share_of_pixels_of_no_picture():
    made = plan({0: (40, 50), 1: (40, 50), 2: (30, 20)}, (1.0,), max_shapes=1, batch_pixels=1)
    [key] = made.batch_sizes
    pictures = 2 * 40 * 50 + 30 * 20
    assert made.padding == pytest.approx(1 - pictures / (3 * math.prod(key.bucket)))
    assert str(made) == f"1 shape, {100 * made.padding:.0f} % padding"

    on_two = plan({0: (40, 50)}, (1.0,), max_shapes=1, devices=2)  # the second device has nothing
    assert on_two.padding == pytest.approx(1 - 40 * 50 / (2 * math.prod(key.bucket)))


@pytest.mark.parametrize("wanted", [[1, 5], [3], []])
def test_the_rest_of_a_run_that_was_stopped_has_the_shapes_and_batches_of_the_whole(wanted):
    limits = {"max_shapes": 3, "batch_pixels": 40_000}
    whole, rest = plan(**limits), plan(wanted=wanted, among=range(len(SIZES)), **limits)
    assert rest.batch_sizes == whole.batch_sizes
    assert rest.places == {index: whole.places[index] for index in wanted}
    assert rest.items.total() == 2 * len(wanted)


def test_no_two_items_have_one_slot_and_every_slot_is_in_its_batch():
    made = plan(max_shapes=3, batch_pixels=40_000)
    places = [place for of_picture in made.places.values() for place in of_picture]
    assert len(set(places)) == len(places) == 2 * len(SIZES)
    assert all(0 <= slot < made.batch_sizes[key] for key, _, slot in places)


def test_a_picture_is_computed_in_the_slot_it_always_has(mesh):
    """What is computed of a picture does not depend on which others a stopped run had finished."""
    limits = {"batches": Batches(max_shapes=2, batch_pixels=60_000), "devices": mesh, "description": None}

    def with_slot(pictures, sizes):
        b = len(sizes)
        slots = np.arange(b, dtype=np.int32)
        return {"grid": np.ones((b, 2), np.int32), "slot": slots, "batch": np.full(b, b)}

    everything = range(len(SIZES))
    whole = {index: outputs for index, _, outputs in run_passes([Pass(1.0, with_slot)], Noise(), **limits)}
    rest = run_passes([Pass(1.0, with_slot)], Noise(), only=[1, 4], among=everything, **limits)
    for index, _, outputs in rest:
        assert outputs == whole[index]


def test_passes_share_batches_where_they_share_a_network():
    limits = {"wanted": [0], "batches": Batches(max_shapes=1), "devices": 1}
    same, other = (plan_batches({0: (40, 50)}, [Pass(1.0, print), Pass(1.0, two)], **limits) for two in (print, repr))
    assert (list(same.items.values()), list(other.items.values())) == ([2], [1, 1])


def count_of(batches: list, pictures: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """A network that notes its batches, and gives back the sizes."""
    batches.append((pictures.shape[1:3], len(pictures)))
    return {"grid": np.asarray(sizes), "sizes": np.asarray(sizes), "map": np.asarray(pictures).astype(np.float32)}


@pytest.mark.parametrize("only", [None, [1, 5]])
@pytest.mark.parametrize("limit", [1, 12])
def test_the_batches_of_the_plan_are_computed_and_each_picture_is_cut_out_again(mesh, limit, only):
    batches, wanted = [], range(len(SIZES)) if only is None else only
    limits = {"max_shapes": limit, "batch_pixels": 40_000}
    passes = [Pass(scale, lambda *inputs: count_of(batches, *inputs)) for scale in TWO_SCALES[:1]]
    results = list(run_passes(passes, Noise(), batches=Batches(**limits), devices=mesh, description=None, only=only))
    made = plan(scales=(1.0,), wanted=wanted, devices=mesh.size, **limits)
    expected = {(key.bucket, made.batch_sizes[key]): -(-n // made.batch_sizes[key]) for key, n in made.items.items()}
    assert {batch: batches.count(batch) for batch in batches} == expected
    assert sorted(index for index, *_ in results) == list(wanted)
    for index, record, [outputs] in results:
        assert tuple(outputs["sizes"]) == SIZES[index]
        assert "grid" not in outputs
        np.testing.assert_array_equal(outputs["map"], record.image)


@pytest.mark.parametrize("limit", [1, 2, 12])
def test_no_more_shapes_than_allowed_are_compiled(mesh, limit):
    traced = []

    @jax.jit
    def network(pictures, sizes):
        traced.append(pictures.shape)
        return {"grid": -(-sizes // 16), "sizes": sizes}

    passes = [Pass(scale, network) for scale in TWO_SCALES]
    results = run_passes(passes, Noise(), batches=Batches(max_shapes=limit), devices=mesh, description=None)
    for index, _, outputs in results:
        for one, scale in zip(outputs, TWO_SCALES, strict=True):
            assert tuple(one["sizes"]) == scaled_size(SIZES[index], scale)
    assert len(traced) == len({shape[1:3] for shape in traced}) <= limit


def test_a_picture_that_cannot_be_read_is_its_error_and_all_others_are_there(mesh):
    source = Noise(unreadable=[1], bad_header=[4])
    passes = [Pass(scale, lambda *inputs: count_of([], *inputs)) for scale in TWO_SCALES]
    results = run_passes(passes, source, batches=Batches(max_shapes=2), devices=mesh, description=None)
    found = {index: (record, outputs) for index, record, outputs in results}
    assert sorted(found) == list(range(len(SIZES)))
    for index, name in ((1, "1.jpg: damaged picture"), (4, "4.jpg: the file is empty")):
        error, outputs = found.pop(index)
        assert isinstance(error, UserError)
        assert str(error).startswith(name)
        assert outputs == []
    for record, outputs in found.values():
        assert isinstance(record, Record)
        assert len(outputs) == len(TWO_SCALES)


def test_one_that_is_not_wanted_is_no_error(mesh):
    passes = [Pass(1.0, lambda *inputs: count_of([], *inputs))]
    source = Noise(unreadable=[1], bad_header=[4])
    results = run_passes(passes, source, batches=Batches(), devices=mesh, description=None, only=[0, 2])
    assert sorted(index for index, *_ in results) == [0, 2]


def test_an_extra_input_goes_with_its_picture(mesh):
    def network(pictures, sizes, names):
        return {"grid": np.asarray(sizes), "name": np.asarray(names)}

    results = run_passes(
        [Pass(1.0, network)],
        Noise(),
        batches=Batches(max_shapes=1, batch_pixels=4 * 2 * 96 * 96),
        devices=mesh,
        description=None,
        extra_input=lambda record: np.float32([int(record.id)]),
    )
    assert {index: outputs["name"].tolist() for index, _, [outputs] in results} == {n: [n] for n in range(len(SIZES))}


@pytest.mark.parametrize("limit", [1, 12])
def test_the_progress_bar_says_how_many_shapes_there_are_and_how_much_is_padding(mesh, capsys, limit):
    limits = {"max_shapes": limit, "batch_pixels": 40_000}
    passes = [Pass(scale, lambda *inputs: count_of([], *inputs)) for scale in TWO_SCALES]

    def shown(description: str | None) -> str:
        list(run_passes(passes, Noise(), batches=Batches(**limits), devices=mesh, description=description))
        return capsys.readouterr().err

    [last] = shown("maps").splitlines()[-1:]
    assert "maps: 100%" in last.rpartition("\r")[2]
    assert "shape" in last
    assert "% padding]" in last
    assert shown(None) == ""
