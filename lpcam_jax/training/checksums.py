"""Checksums of a folder's files, kept in the folder: its storage notices some damage by itself, these all of it.

    checksums.json    {path within the folder: SHA-256 of the file}

Written when all else is there. Files that are added later do not matter.
"""

import hashlib
import json
from pathlib import Path

from ..machine.files import write_atomically

NAME = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Write the file.

    Args:
        folder: of a finished checkpoint; all files in it count, at any depth.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(folder / NAME, _text(_checksums(folder)))


def find_damage(folder: Path) -> str | None:
    """Read all files that were there when the checksums were written.

    Args:
        folder: of a finished checkpoint.

    Returns:
        What is wrong with the first that is not the same, in words; None: all are, or there are no checksums (a program
        that is killed before it can write them leaves a folder that is complete).
    """
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{NAME} cannot be read: {error.strerror}"
    try:
        expected = json.loads(text)
        if not isinstance(expected, dict) or _text(expected) != text:  # JSON does not mind another white space
            raise ValueError
        found = _checksums(folder)
    except (ValueError, RecursionError):
        return f"{NAME} is not as it was written"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name in sorted(expected):
        if name not in found:
            return f"{name}, which {NAME} names, is missing"
        if found[name] != expected[name]:
            return f"{name} is not what {NAME} says of it"
    return None


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(checksums: dict[str, str]) -> bytes:
    return json.dumps(checksums, indent=1).encode()
