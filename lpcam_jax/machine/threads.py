"""Work in threads, as many as there are cores: NumPy, Pillow and JAX release the interpreter's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

S, T = TypeVar("S"), TypeVar("T")

# Each thread holds the arrays of a picture, so more threads than these would cost more memory than they save time.
MOST = 16

# Of Linux containers: microseconds of work in so many microseconds, or "max".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Number of cores that this process may use; in a container, at most its share of the machine's, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # there is none
        return allowed
    return max(min(allowed, -(-quota // period)), 1)


@contextmanager
def pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that ends with the `with` block: after all its work or, if the block is left by an exception,
    after what was begun."""
    threads_of_it = ThreadPoolExecutor(threads)
    try:
        yield threads_of_it
    except BaseException:
        threads_of_it.shutdown(cancel_futures=True)
        raise
    threads_of_it.shutdown()


def map_ahead(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Call a function of each item in threads, a few items ahead of what is asked for.

    Args:
        function: of one item.
        items: the items; a generator is closed at the end in any case.

    Yields:
        The results in the order of the items; the first exception ends the work, once what was begun is done.
    """
    threads = min(cores() + 1, MOST)  # one of them usually waits for a disk
    ahead: deque = deque()
    with closing(items) if hasattr(items, "close") else nullcontext(), pool(threads) as workers:
        for item in items:
            ahead.append(workers.submit(function, item))
            if len(ahead) > threads + 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
