"""Costs on paper are those that one can count by hand."""

import pytest

from benchmarks.chips import CHIPS, KINDS, roofline
from benchmarks.cost import Program, cost_of, programs

pytestmark = pytest.mark.rest


def test_the_roofline_is_the_slower_of_computing_and_moving():
    chip = {"float32": 100.0, "highest": 10.0, "bytes": 2.0}
    assert roofline(1000, 4, chip, "float32") == 10
    assert roofline(1000, 4, chip, "highest") == 100
    assert roofline(1000, 60, chip, "float32") == 30


def test_no_chip_is_slower_in_a_lower_precision_and_every_kind_is_known():
    for name, chip in CHIPS.items():
        assert chip.keys() == {"float32", "bfloat16", "highest", "bytes"}, name
        assert chip["highest"] < chip["float32"] <= chip["bfloat16"], name
    assert set(KINDS.values()) == set(CHIPS)


@pytest.fixture(scope="module")
def kernels() -> dict[str, Program]:
    found = {}
    for program in programs(steps=False):
        if program.name.startswith("maps"):
            break
        found[program.name] = program
    return found


def test_maps_are_one_product_and_lpcam_squares_the_features_besides(kernels):
    for classes in (20, 80):
        plain, ours = (cost_of(kernels[f"{name}, {classes} classes"]) for name in ("plain CAM", "LPCAM"))
        product, features = 2 * 32 * 32 * 2048 * classes, 32 * 32 * 2048
        assert plain.flops == pytest.approx(product, rel=0.01)
        assert ours.flops - plain.flops == pytest.approx(2 * features, rel=0.1)
        assert 4 * features < plain.bytes < 1.2 * 4 * features
        assert plain.peak >= 4 * (features + 32 * 32 * classes)


def test_what_runs_many_times_costs_as_many_times(kernels):
    by_classes = [program for name, program in kernels.items() if name.startswith("k-means")]
    few, many = map(cost_of, by_classes)
    assert (many.flops / few.flops, many.bytes / few.bytes) == (4, 4)
    assert many.peak == few.peak
    # Two assignments, two sums over members: four products of all points with all centres.
    assert few.flops / 20 == pytest.approx(4 * 2 * 8192 * 2048 * 12, rel=0.15)
