"""Work in threads, as many as there are cores: NumPy, Pillow and JAX release the interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import TypeVar

S, T = TypeVar("S"), TypeVar("T")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Call a function of each item in threads, a few items ahead of what is asked for.

    Args:
        function: of one item.
        items: the items; a generator is closed at the end in any case.

    Yields:
        The results in the order of the items; the first exception ends the work, once what was begun is done.
    """
    threads = cores() + 1  # one of them usually waits for a disk
    ahead: deque = deque()
    with closing(items) if hasattr(items, "close") else nullcontext(), ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
