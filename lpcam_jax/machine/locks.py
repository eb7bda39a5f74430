"""A folder has one writer at a time; the operating system releases the lock when its process ends, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError
from .files import remove_leftovers

NAME = ".lpcam_jax.lock"

# Seconds to keep trying. Not 0, because an attempt can fail just when the last holder deletes the file and releases it.
_TIMEOUT = 0.1


@contextmanager
def in_use(directory: str | Path, program: str, *, flag: str) -> Iterator[None]:
    """Keep other writers out of a folder while the `with` block runs; readers need no lock.

    The lock is held on a file in the folder, so the mere presence of that file, as after a kill, blocks nobody. If it
    was present, the unfinished files of the killed process are deleted too (`remove_leftovers`). Where locking is
    impossible (some network disks, a read-only folder), the block runs without a lock.

    Args:
        directory: The folder; created if missing.
        program: Name of the program that writes there, such as "train.py".
        flag: The command-line flag that chose the folder, for the error message.

    Raises:
        UserError: Another process holds the lock.
    """
    path = Path(directory) / NAME
    left_behind = path.exists()
    lock = FileLock(path, timeout=_TIMEOUT, fallback_to_soft=False, on_acquired=_write_process_number)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{directory} is in use by another {program}{_holder(path)}; wait for it, or choose another {flag}."
        ) from None
    except OSError:  # if the folder is read-only, the first file written into it reports that
        pass
    try:
        if left_behind and lock.is_locked:
            remove_leftovers(path.parent)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                if os.name == "posix":  # on Windows the library deletes the file itself
                    path.unlink()  # before the release: after it, the file may be another process's lock
            with suppress(OSError):
                lock.release()


def _write_process_number(descriptor: int) -> None:
    """Write this process's number into the lock file, for the error message of others."""
    with suppress(OSError):  # such as a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())


def _holder(path: Path) -> str:
    """The process number in the lock file as " (process 123)"; "" if there is none or it cannot be read."""
    try:
        return f" (process {int(path.read_text())})"
    except (OSError, ValueError):  # the holder has just ended or could not write it; Windows locks readers out
        return ""
