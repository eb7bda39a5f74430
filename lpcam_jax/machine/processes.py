"""Several processes of one program: each computes its share of the pictures, the first writes what is common.

A program on one machine is one process, with all its devices, and everything here says so: the share is the whole, and
nothing waits. On several machines the same command runs once on each, with --distributed.
"""

import json
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from .errors import UserError

# Seconds after which a process that is not heard of is taken for dead, and the others end.
_SILENCE = 40
_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join() -> None:
    """Meet the other processes; before anything else is done with JAX.

    Who they are is found on a TPU pod slice and under Slurm or Open MPI; elsewhere three environment variables say it:
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0). After this only the
    first process prints, the others only what they fail of. When one ends before its time, so do the others, at the
    latest after 40 seconds.

    Raises:
        UserError: they cannot be found, or do not come.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM for itself, and train on
    try:
        numbers = {name: int(os.environ[name]) for name in (_COUNT, _INDEX) if name in os.environ}
        jax.distributed.initialize(
            os.environ.get(_ADDRESS),
            num_processes=numbers.get(_COUNT),
            process_id=numbers.get(_INDEX),
            heartbeat_timeout_seconds=_SILENCE,
        )
    except (ValueError, RuntimeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--distributed: the other processes cannot be joined ({first_line}); set {_ADDRESS}=HOST:PORT, "
            f"{_COUNT} and {_INDEX} for each, or leave the flag away to use this machine alone."
        ) from None
    global _are_joined
    _are_joined = True
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


_are_joined = False


def end(line: str, code: int) -> NoReturn:
    """End this process with a line on the real stderr, and the others with it: they would wait for it."""
    if not _are_joined:
        print(line, file=sys.stderr)
        sys.exit(code)
    print(f"{line} (process {jax.process_index()} of {jax.process_count()})", file=sys.__stderr__, flush=True)
    os._exit(code)  # an orderly end would first wait for the others


def is_first() -> bool:
    """Whether this process writes what is common, and speaks."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Whether there are others."""
    return jax.process_count() > 1


def share(indices: Iterable[int]) -> list[int]:
    """Those of the indices that are this process's: every n-th number, whichever others are asked for."""
    return [int(index) for index in indices if index % jax.process_count() == jax.process_index()]


def part() -> tuple[int, int]:
    """(number of this process, how many there are)."""
    return jax.process_index(), jax.process_count()


def only_first(context: AbstractContextManager) -> AbstractContextManager:
    """The context for the first process, none for the others."""
    return context if is_first() else nullcontext()


def gather(array: np.ndarray) -> list[np.ndarray]:
    """The array of every process, in their order; they may differ in their first axis. All go on when all are here.

    Args:
        array: of any type and of at least one axis, the others alike in all processes.

    Returns:
        One array a process.
    """
    if not are_several():
        return [array]
    counts = multihost_utils.process_allgather(np.int32(len(array)))
    # As bytes: on the way JAX would turn float64 into float32.
    padded = np.zeros((counts.max(), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    everyone = multihost_utils.process_allgather(np.frombuffer(padded.tobytes(), np.uint8))
    arrays = (np.frombuffer(one.tobytes(), array.dtype).reshape(padded.shape) for one in everyone)
    return [one[:count] for one, count in zip(arrays, counts, strict=True)]


def gather_values(values: Any) -> list[Any]:
    """Plain JSON values of every process, in their order."""
    if not are_several():
        return [values]
    return [json.loads(one.tobytes()) for one in gather(np.frombuffer(json.dumps(values).encode(), np.uint8))]
