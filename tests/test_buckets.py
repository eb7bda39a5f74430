"""Few shapes that hold every picture."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from lpcam_jax.data.buckets import bucket_of, choose_buckets

Sizes = list[tuple[int, int]]


def area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def work(sizes: Sizes, buckets: Sizes) -> int:
    return sum(area(bucket_of(size, buckets)) for size in sizes)


def random_sizes(seed: int, count: int, *, largest: int, scales: tuple[float, ...] = (1.0,)) -> Sizes:
    drawn = np.random.default_rng(seed).integers(1, largest + 1, (count, 2))
    return [(math.ceil(h * scale), math.ceil(w * scale)) for h, w in drawn for scale in scales]


def photographs(seed: int, count: int, *, scales: tuple[float, ...]) -> Sizes:
    """Half of them in the common sizes of a data set of photographs, of the others one side alone."""
    rng = np.random.default_rng(seed)
    common = [(480, 640), (640, 480), (427, 640), (640, 427), (360, 640), (375, 500), (500, 375)]
    drawn = [common[rng.integers(len(common))] for _ in range(count // 2)]
    for _ in range(count - count // 2):
        sides = (640, int(rng.integers(150, 641)))
        drawn.append(sides if rng.random() < 0.3 else sides[::-1])
    return [(math.ceil(h * scale), math.ceil(w * scale)) for h, w in drawn for scale in scales]


def united(sizes: Sizes, limit: int) -> Sizes:
    """The shapes that are left when all pairs are tried for each union."""
    counts = Counter((-(-h // 32) * 32, -(-w // 32) * 32) for h, w in sizes)
    while len(counts) > limit:
        choices = []
        for a, b in combinations(sorted(counts), 2):
            union = (max(a[0], b[0]), max(a[1], b[1]))
            choices.append((counts[a] * (area(union) - area(a)) + counts[b] * (area(union) - area(b)), a, b, union))
        _, a, b, union = min(choices)
        together = counts.pop(a) + counts.pop(b)
        counts[union] += together
    return sorted(counts, key=area)


@pytest.mark.parametrize("limit", [1, 2, 5, 12, 1000])
def test_few_buckets_hold_every_size(limit):
    sizes = [(int(h), int(w)) for h, w in np.random.default_rng(0).integers(1, 400, (150, 2))]
    buckets = choose_buckets(sizes, limit=limit)
    assert 1 <= len(buckets) <= limit
    assert len(set(buckets)) == len(buckets)
    assert buckets == sorted(buckets, key=area)
    assert all(side % 32 == 0 for shape in buckets for side in shape)
    for height, width in sizes:
        holding = [shape for shape in buckets if shape[0] >= height and shape[1] >= width]
        assert bucket_of((height, width), buckets) in holding
        assert area(bucket_of((height, width), buckets)) == min(map(area, holding))


def test_more_buckets_pad_no_more():
    sizes = [(int(h), int(w)) for h, w in np.random.default_rng(1).integers(1, 300, (60, 2))]
    choices = [choose_buckets(sizes, limit=limit) for limit in (1, 4, 16, 60)]
    pixels = [work(sizes, buckets) for buckets in choices]
    assert pixels == sorted(pixels, reverse=True)
    assert pixels[0] > pixels[-1]


@pytest.mark.parametrize(("size", "bucket"), [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 64), (64, 64))])
def test_a_single_size_is_rounded_up(size, bucket):
    assert choose_buckets([size] * 3, limit=4) == [bucket]


def test_one_bucket_is_the_union():
    assert choose_buckets([(30, 500), (300, 20)], limit=1) == [(320, 512)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({(32, 32): 10, (32, 64): 1, (64, 64): 1}, [(32, 32), (64, 64)]),  # 1 x 2048 pixels added, not 10 x 1024
        ({(32, 32): 1, (32, 64): 10, (64, 64): 1}, [(32, 64), (64, 64)]),  # 1 x 1024 pixels added, not 10 x 2048
        ({(32, 96): 1, (96, 32): 1, (256, 256): 1}, [(96, 96), (256, 256)]),  # the union is a new shape
        # After the first union 2 + 4 pictures are 32 x 64, and 5 x 2048 pixels are cheaper than 6 x 2048.
        ({(32, 32): 2, (32, 64): 4, (64, 64): 5, (64, 96): 1}, [(32, 64), (64, 96)]),
    ],
)
def test_the_cheapest_union_comes_first(counts, expected):
    sizes = [size for size, count in counts.items() for _ in range(count)]
    assert choose_buckets(sizes, limit=2) == expected
    assert choose_buckets(sizes[::-1], limit=2) == expected


@pytest.mark.parametrize("limit", [1, 2, 4, 12])
@pytest.mark.parametrize(
    "sizes",
    [
        *(random_sizes(seed, 60, largest=400) for seed in range(3)),
        random_sizes(3, 25, largest=200, scales=(1.0, 0.5, 1.5, 2.0)),
        photographs(0, 150, scales=(1.0, 0.5)),
    ],
    ids=["odd", "odd-1", "odd-2", "odd-scaled", "photographs"],
)
def test_no_more_work_than_with_unions_of_all_pairs(sizes, limit):
    buckets = choose_buckets(sizes, limit=limit)
    assert len(buckets) <= limit
    assert work(sizes, buckets) <= work(sizes, united(sizes, limit))
    assert choose_buckets(sizes[::-1], limit=limit) == buckets


@pytest.mark.parametrize("sizes", [random_sizes(3, 60, largest=200), photographs(0, 300, scales=(1.0, 0.5, 1.5))])
def test_no_other_side_of_a_single_bucket_saves_any_work(sizes):
    buckets = choose_buckets(sizes, limit=6)
    least = work(sizes, buckets)
    for index, (height, width) in enumerate(buckets):
        for side in range(32, max(map(max, buckets)) + 1, 32):
            for moved in ((side, width), (height, side)):
                others = sorted([*buckets[:index], moved, *buckets[index + 1 :]], key=area)
                if all(any(h <= b[0] and w <= b[1] for b in others) for h, w in sizes):
                    assert work(sizes, others) >= least


def test_a_side_is_moved_when_unions_alone_pad_more():
    """The unions leave 32 and 128 columns: 3 x 2048 + 5 x 8192 pixels, against 5 x 4096 + 3 x 8192."""
    sizes = [(64, 32)] * 3 + [(64, 64)] * 2 + [(64, 96)] * 2 + [(64, 128)]
    assert united(sizes, 2) == [(64, 32), (64, 128)]
    assert choose_buckets(sizes, limit=2) == [(64, 64), (64, 128)]


def test_thousands_of_shapes():
    """To try all pairs for each union would take hours."""
    sizes = [(32 * h, 32 * w) for h, w in random_sizes(0, 4000, largest=90)]
    buckets = choose_buckets(sizes, limit=12)
    assert len(set(sizes)) > 3000
    assert len(buckets) == 12
    assert work(sizes, buckets) < 1.7 * sum(map(area, sizes))


def test_of_no_pictures_no_shapes():
    assert choose_buckets([], limit=3) == []
