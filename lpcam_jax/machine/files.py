"""Atomic file writes, so that a killed run leaves no partial file; JSON, and arrays without pickle."""

import errno
import io
import json
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EEXIST: "a file stands where a folder is needed: move it or choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it or choose another folder",
    errno.EISDIR: "a folder has the name of the file: move it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_TEMPORARY = re.compile(r"\.lpcam_jax\.[0-9a-f]{16}\.tmp")


def write_atomically(path: Path, data: bytes, *, durably: bool = True) -> None:
    """Write a file so that, at any moment, `path` holds either its old content or all of the new.

    Args:
        path: The file; missing folders are created.
        data: The whole new content.
        durably: Whether to wait until it is on the disk. Otherwise it may be empty after a power failure (not after a
            kill): for the many files of a picture, the wait would take longer than the work.

    Raises:
        UserError: The file cannot be written. Nothing is left behind.
    """
    # In the same folder, because a rename needs the same disk; the name is short enough for any file system.
    temporary = path.parent / f".lpcam_jax.{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if durably:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno, "choose another place for the output")
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}; {remedy}") from error


def free_space(folder: Path) -> int | None:
    """Bytes that may still be written into a folder; None: its file system does not say it."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    if not usage.total:  # of some network disks
        return None
    # `free` excludes the blocks that some file systems reserve for root.
    return usage.total - usage.used if hasattr(os, "geteuid") and os.geteuid() == 0 else usage.free


def remove_leftovers(directory: Path) -> None:
    """Delete the temporary files that killed calls of `write_atomically` left in a folder.

    Only safe while holding the folder's lock (`locks`): it would also delete what another process is writing.

    Args:
        directory: The folder, searched at any depth.
    """
    for folder, _, names in os.walk(directory):
        for name in filter(_TEMPORARY.fullmatch, names):
            with suppress(OSError):  # if the folder is read-only, the first file written into it reports that
                os.unlink(os.path.join(folder, name))


def write_json(path: Path, values: Any, *, indent: int | None = 2) -> None:
    """Write JSON values in UTF-8; as safely as `write_atomically`.

    File names that are not UTF-8 reach Python as strings with lone surrogates. They are written as JSON escapes
    ("\\udce9"), which reading turns into the same strings again.

    Args:
        path: The file; missing folders are created.
        values: What `json.dumps` takes.
        indent: Spaces; None: all in one line.

    Raises:
        UserError: The file cannot be written.
    """
    write_atomically(path, json.dumps(values, indent=indent, ensure_ascii=False).encode(errors="backslashreplace"))


def write_arrays(path: Path, /, **arrays: np.ndarray) -> None:
    """Write an npz file without pickles; as safely as `write_atomically`.

    Args:
        path: The file; missing folders are created.
        arrays: The arrays under their names, none of Python objects.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file; nothing is unpickled, and what else is in the archive is left out.

    Args:
        path: The file.
        only: Names of those to read, if they are there; None: all.

    Returns:
        Each array under its name.

    Raises:
        Exception: The file cannot be opened or is damaged; damage can raise nearly anything.
    """
    try:
        return _arrays(path, only)
    except SystemError:  # CPython 3.11's parser, which reads the headers, may stumble in threads: the file is sound
        return _arrays(path, only)


def _arrays(path: Path, only: Sequence[str] | None) -> dict[str, np.ndarray]:
    # Opened here, because NumPy does not close a damaged archive.
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # NumPy would call such a file a pickle
            raise ValueError("not an npz archive, or a truncated one")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            members = {name[:-4]: name for name in archive.zip.namelist() if name.endswith(".npy")}
            arrays = {name: archive[member] for name, member in members.items() if only is None or name in only}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy returns the bytes of what does not begin like one
            raise ValueError(f"{name}.npy is no array")
    return arrays
