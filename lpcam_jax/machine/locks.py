"""One program at a time writes into a folder; the system takes the lock back when the program ends, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError
from .files import remove_leftovers

try:
    import fcntl
except ImportError:  # on Windows: nothing keeps two programs apart there
    fcntl = None

NAME = ".lpcam_jax.lock"


@contextmanager
def in_use(directory: str | Path, program: str, *, flag: str) -> Iterator[None]:
    """Keep other programs that write from a folder while the `with` block lasts; those that only read do not ask.

    The lock is a file in the folder, locked and not merely there: one that a killed program left behind holds nobody
    up, and what else that one left is deleted (`remove_leftovers`). Where no lock can be had (some network disks, a
    folder that cannot be written), the block runs without.

    Args:
        directory: made when it is not there.
        program: what writes there, "train.py".
        flag: by which it was told to.

    Raises:
        UserError: another process is at it.
    """
    path = Path(directory) / NAME
    left_behind = path.exists()
    try:
        descriptor = _take(path)
    except BlockingIOError:
        raise UserError(
            f"{directory} is in use by another {program}{_holder(path)}; wait for it, or choose another {flag}."
        ) from None
    except OSError:  # whoever cannot write there is told so by what is written first
        descriptor = None
    try:
        if left_behind and descriptor is not None:
            remove_leftovers(path.parent)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink()  # while it is locked: afterwards it may be another's
            os.close(descriptor)


def _take(path: Path) -> int | None:
    """The descriptor of the file, locked; None where the system has no such locks. BlockingIOError: another has it."""
    if fcntl is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have deleted it since it was opened, and a lock on a deleted file keeps nobody out.
            if _is_at(path, descriptor):
                with suppress(OSError):  # of a full disk
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at the path."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Which process wrote its number into the file, in words."""
    try:
        return f" (process {int(path.read_text())})"
    except (OSError, ValueError):  # it has just ended, or could not write
        return ""
