"""Few shapes that hold every picture."""

import numpy as np
import pytest

from lpcam_jax.data.buckets import bucket_of, choose_buckets


def area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


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
    work = [sum(area(bucket_of(size, buckets)) for size in sizes) for buckets in choices]
    assert work == sorted(work, reverse=True)
    assert work[0] > work[-1]


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
