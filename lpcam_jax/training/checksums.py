"""Checksums of a checkpoint's files, which find any damage; Orbax's own checks find only some.

    checksums.json    {path within the folder: SHA-256 of the file}

The file is written last, and files that are added to the folder later are ignored.
"""

import hashlib
import json
from pathlib import Path

from ..machine.files import write_atomically

NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files in a folder, at any depth.

    Args:
        folder: A finished checkpoint.

    Raises:
        UserError: The checksums cannot be written.
    """
    write_atomically(folder / NAME, _text(_checksums(folder)))


def find_damage(folder: Path) -> str | None:
    """Compare the files of a folder with its checksums.

    Args:
        folder: A finished checkpoint.

    Returns:
        A description of the first difference. None if there is none, or if the folder has no checksums: a program that
        is killed just before it writes them leaves a complete checkpoint.
    """
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{NAME} cannot be read: {error.strerror}"
    try:
        expected = json.loads(text)
        if not isinstance(expected, dict) or _text(expected) != text:  # other white space is damage too
            raise ValueError
        actual = _checksums(folder)
    except (ValueError, RecursionError):
        return f"{NAME} has been changed"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name in sorted(expected):
        if name not in actual:
            return f"{name}, which {NAME} lists, is missing"
        if actual[name] != expected[name]:
            return f"{name} does not match {NAME}"
    return None


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(checksums: dict[str, str]) -> bytes:
    return json.dumps(checksums, indent=1).encode()
