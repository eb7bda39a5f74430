"""Whether a folder of pictures and labels is the one it was."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

# Files of labels are read whole, masks among them, which as PNGs are small; of a photograph, the name and the size say
# enough, and a PNG of many bytes is one.
_LABELS = (".csv", ".json", ".xml", ".txt", ".yaml", ".yml", ".names")
_MASK_BYTES = 1 << 17


@lru_cache
def dataset_digest(root: str, workdir: Path) -> str:
    """16 hex digits that tell a data set from what it was before.

    Args:
        root: its folder; "": none.
        workdir: a folder that does not count, if it is within.

    Returns:
        Digest of all names below the folder, of the sizes of all files and of the content of all labels and masks.
        Hidden files, and the `prepared` form of the benchmarks, do not count. It is the same when the folder is moved.
    """
    digest = hashlib.blake2b(digest_size=8)
    workdir = workdir.resolve()
    for folder, folders, names in os.walk(root) if root else ():
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name != "prepared" and Path(folder, name).resolve() != workdir
        )
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or not path.is_file():
                continue
            size, suffix = path.stat().st_size, path.suffix.lower()
            digest.update(f"{path.relative_to(root)}\0{size}\0".encode(errors="surrogateescape"))
            if suffix in _LABELS or (suffix == ".png" and size <= _MASK_BYTES):
                digest.update(path.read_bytes())
    return digest.hexdigest()
