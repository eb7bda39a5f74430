"""A folder of results: of one model and one protocol, written picture by picture, continued after a stop."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from . import processes
from .data.records import RecordSource
from .errors import UserError
from .files import write_atomically


class ResultFolder:
    """The folder.

    Args:
        directory: made when it is not there.
        protocol: plain JSON values that say how the results are made; a folder with another protocol is refused.
        what: the results, in words.
        flag: of the command line that says where they go.

    Raises:
        UserError: the folder cannot be written, or holds results made otherwise.
    """

    def __init__(self, directory: str | Path, protocol: dict[str, Any], *, what: str, flag: str = "--out"):
        self.directory, self.protocol = Path(directory), protocol
        file = self.directory / "protocol.json"
        text = json.dumps(protocol, indent=2, ensure_ascii=False)
        try:
            before = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            before = None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); choose another {flag}.") from None
        if before is not None and before != text:
            raise UserError(
                f"{directory} holds {what} of another model or protocol; choose another {flag} or delete it."
            )
        write_atomically(file, text.encode())

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """Where a file of a picture is, or would be."""
        return self.directory / kind / f"{name}.{suffix}"

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a file of the folder itself."""
        write_atomically(self.directory / name, json.dumps(values, indent=2, ensure_ascii=False).encode())


def fingerprint(tree: Any) -> str:
    """Sixteen letters that tell arrays from others."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def write_all(results: Iterator[tuple], write: Callable[..., None]) -> None:
    """`write(*result)` in threads as results come; the first failure ends the run."""
    with closing(results), ThreadPoolExecutor(2) as pool:
        pending = []
        for result in results:
            pending.append(pool.submit(write, *result))
            while len(pending) > 8:
                pending.pop(0).result()
        for one in pending:
            one.result()


def all_skipped(skipped: Sequence[str], source: RecordSource) -> list[str]:
    """What every process skipped, once all are done, and printed; UserError when that is all pictures."""
    skipped = list(chain(*processes.gather_values(list(skipped))))
    for line in skipped:
        tqdm.write(f"skipped: {line}")
    if len(skipped) == len(source):
        raise UserError(f"none of the {len(source)} pictures could be read; see the lines above.")
    return skipped


def skipped_line(skipped: Sequence[str]) -> Iterator[str]:
    """How many pictures were left out; no line when there are none."""
    if skipped:
        yield f"{len(skipped)} pictures were skipped; metrics.json names them."
