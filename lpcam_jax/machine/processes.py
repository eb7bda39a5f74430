"""Several processes of one program: each computes its share of the pictures, the first writes the common files.

On one machine a program is a single process that uses all devices: its share is everything, and nothing here waits. On
several machines the same command runs once on each, with --distributed.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count
from threading import Thread
from typing import Any, NoReturn

import jax
import numpy as np

from .errors import UserError, first_line
from .padding import power_of_two

# Seconds without a heartbeat after which a process counts as dead and the others end.
_SILENCE = 40

# Seconds that a process waits for another process that is alive but still busy.
_PATIENCE = 24 * 60 * 60

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join() -> None:
    """Connect to the other processes; call it before any other use of JAX.

    On a TPU pod slice and under Slurm or Open MPI the processes are detected; elsewhere three environment variables
    describe them: JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0).
    Where a scheduler starts several processes on a machine, each has one of its GPUs; otherwise it has all of them, or
    those that JAX_LOCAL_DEVICE_IDS names.
    From then on only the first process prints; the others print only the error they end with. If one process dies, the
    others end within 40 seconds.

    Raises:
        UserError: The processes cannot be determined, or do not connect in time.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, and training would go on
    try:
        numbers = {name: int(os.environ[name]) for name in (_COUNT, _INDEX) if name in os.environ}
        jax.distributed.initialize(
            os.environ.get(_ADDRESS),
            num_processes=numbers.get(_COUNT),
            process_id=numbers.get(_INDEX),
            local_device_ids=[] if _has_the_machine() else None,
            heartbeat_timeout_seconds=_SILENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: the other processes cannot be joined ({first_line(error)}); set {_ADDRESS}=HOST:PORT, "
            f"{_COUNT} and {_INDEX} for each, or omit the flag to use this machine alone."
        ) from None
    global _are_joined
    _are_joined = True
    if not is_first():
        nowhere = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (until the end)
        sys.stdout = sys.stderr = nowhere


def _has_the_machine() -> bool:
    """Whether this process is the only one of its program on its machine; JAX would give it the first GPU alone."""
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return False
    # Slurm's is such as 8(x2),4: eight on each of two machines, four on a third.
    of_slurm = re.findall(r"(\d+)(?:\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return {*of_slurm, os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")} == {"1"}


_are_joined = False
_waits = count()


def are_joined() -> bool:
    """Whether this process is one of several started together; asks no device."""
    return _are_joined


def wait() -> None:
    """Wait for the other processes: each returns once all have called this.

    JAX itself waits for 5 minutes at the end of a process, and CPUs for less than an hour in an exchange; but the first
    may write pages for longer, and one machine may be slower than another.

    Raises:
        UserError: Another process has ended, or is not here within a day.
    """
    if not _are_joined:
        return
    from orbax.checkpoint import multihost  # here: few programs need it

    barrier, key = multihost.get_barrier_sync_fn(), f"lpcam_jax {next(_waits)}"
    outcome: Future[None] = Future()

    def meet() -> None:
        try:
            outcome.set_result(barrier(key=key, timeout_ms=1000 * _PATIENCE))
        except BaseException as error:  # passed on
            outcome.set_exception(error)

    # In a thread, because the main one would not hear a signal in it; a daemon, so that it does not keep the program.
    Thread(target=meet, daemon=True).start()
    try:
        while not outcome.done():
            with suppress(TimeoutError):
                outcome.result(timeout=1)
        outcome.result()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"another process has ended, or does not come ({first_line(error)}); its own output says why."
        ) from None


def end(line: str, code: int) -> NoReturn:
    """End this process, and with it the others, which would wait for it.

    Args:
        line: Printed on the real stderr, also by processes whose output is discarded.
        code: The exit code.
    """
    if not _are_joined:
        print(line, file=sys.stderr)
        sys.exit(code)
    with suppress(RuntimeError, AssertionError):  # there may be no devices, which the line says
        line = f"{line} (process {jax.process_index()} of {jax.process_count()})"
    print(line, file=sys.__stderr__, flush=True)
    os._exit(code)  # an orderly exit would first wait for the others


def is_first() -> bool:
    """Whether this is the first process, which writes the common files and prints."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def share(indices: Iterable[int]) -> list[int]:
    """Select this process's share of some indices.

    Args:
        indices: Indices of pictures.

    Returns:
        Those whose remainder modulo the number of processes is this process's number; whether an index belongs to the
        share does not depend on the other indices.
    """
    return [int(index) for index in indices if index % jax.process_count() == jax.process_index()]


def part() -> tuple[int, int]:
    """The number of this process, from 0, and the number of processes."""
    return jax.process_index(), jax.process_count()


def only_first(context: AbstractContextManager) -> AbstractContextManager:
    """The context in the first process, an empty one in the others."""
    return context if is_first() else nullcontext()


def gather(array: np.ndarray) -> list[np.ndarray]:
    """Exchange arrays between all processes; each waits until all have called this.

    Args:
        array: This process's array, of any type. Its first axis may differ between processes, the others may not.

    Returns:
        The arrays of all processes, in the order of their numbers.
    """
    if not are_several():
        return [array]
    wait()
    from jax.experimental import multihost_utils  # here: it takes as long to import as a tenth of JAX

    counts = multihost_utils.process_allgather(np.int32(len(array)))
    row = array.dtype.itemsize * math.prod(array.shape[1:])
    # As bytes, because JAX would convert float64 to float32; a power of two, because it compiles each length.
    own = np.zeros(power_of_two(int(counts.max()) * row), np.uint8)
    own[: len(array) * row] = np.frombuffer(array.tobytes(), np.uint8)
    contents = multihost_utils.process_allgather(own)
    return [
        np.frombuffer(content[: count * row].tobytes(), array.dtype).reshape(count, *array.shape[1:])
        for content, count in zip(contents, counts.tolist(), strict=True)
    ]


def gather_values(values: Any) -> list[Any]:
    """Exchange JSON values between all processes; each waits until all have called this.

    Args:
        values: This process's values.

    Returns:
        The values of all processes, in the order of their numbers.
    """
    if not are_several():
        return [values]
    return [json.loads(text.tobytes()) for text in gather(np.frombuffer(json.dumps(values).encode(), np.uint8))]
