"""Work in threads, a few items ahead."""

import threading
from itertools import count

import pytest

from lpcam_jax.machine import threads
from lpcam_jax.machine.threads import cores, map_ahead


def test_results_are_in_the_order_of_the_items_whatever_is_done_first():
    later = threading.Event()

    def double(item: int) -> int:
        if item == 0:
            later.wait(60)
        else:
            later.set()
        return 2 * item

    assert list(map_ahead(double, range(40))) == [2 * item for item in range(40)]


def test_only_a_few_items_are_taken_ahead():
    items = count()
    results = map_ahead(lambda item: item, items)
    assert next(results) == 0
    assert next(items) < 50
    results.close()


def test_a_failure_ends_the_work_and_closes_what_gives_the_items():
    closed, begun = [], []

    def items():
        try:
            yield from count()
        finally:
            closed.append(True)

    def fail(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError(item)
        return item

    results = map_ahead(fail, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert closed == [True]
    assert len(begun) < 50


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("1000 100000", 1), ("", 8)])
def test_a_container_has_the_cores_it_may_use(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    assert cores() == expected
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "none")
    assert cores() == 8
