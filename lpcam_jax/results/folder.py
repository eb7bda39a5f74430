"""A folder of results of one model and one protocol, written picture by picture and resumable."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ..data.records import Record, RecordSource
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import write_json
from ..machine.threads import map_ahead
from ..report.gallery import layer_file
from .origins import Origins
from .shown import Pages, shown_pictures


class ResultFolder:
    """A folder of results with its protocol.

    Args:
        directory: the folder; created if missing.
        protocol: how the results are made, as plain JSON values; a folder with another protocol is rejected.
        what: the kind of results, for messages.
        flag: the command-line flag that names the folder, for messages.

    Raises:
        UserError: the folder cannot be written, or holds results with another protocol.
    """

    def __init__(self, directory: str | Path, protocol: dict[str, Any], *, what: str, flag: str = "--out"):
        self.directory, self.protocol = Path(directory), protocol
        file = self.directory / "protocol.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            stored = None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); choose another {flag}.") from None
        if stored is not None and stored != json.loads(json.dumps(protocol)):
            raise UserError(
                f"{directory} holds {what} of another model or protocol; choose another {flag} or delete it."
            )
        self.write_json("protocol.json", protocol)

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """Path of a picture's file, whether or not it exists."""
        return self.directory / kind / f"{name}.{suffix}"

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file at the top level of the folder."""
        write_json(self.directory / name, values)


class PictureResults(ResultFolder, ABC):
    """A folder with results of each picture, scored together once all are written."""

    pages: Pages = "sample"
    _origins: Origins | None = None
    _shown: set[str] | None = None

    @abstractmethod
    def marker(self, name: str) -> Path:
        """The file that is written last: where it exists, the picture is done."""

    def shows(self, name: str) -> bool:
        """Whether a picture has overlays and a place in the gallery; all have until `missing` is called."""
        return self._shown is None or name in self._shown

    def is_done(self, name: str) -> bool:
        """Whether all outputs of a picture exist."""
        first_and_last = layer_file(self.directory, "photo", name), self.file("overlays", name, "jpg")
        has_pages = not self.shows(name) or all(file.exists() for file in first_and_last)
        return has_pages and self.marker(name).exists()

    def missing(self, source: RecordSource, inputs: Callable[[str], Path] | None = None) -> list[int]:
        """Which of the pictures that are this process's share are not done, or are done and have changed since.

        Args:
            source: the pictures.
            inputs: name of a picture -> another file that its result is made from; None: there is none.

        Returns:
            Their indices. Those that have changed are not done any more, and a line says how many there are.

        Raises:
            UserError: results are of other pictures of the same names.
        """
        self._origins, self._source, self._inputs = Origins(self.directory), source, inputs
        self._shown = shown_pictures(source.ids, self.pages)
        self._numbers = {name: index for index, name in enumerate(source.ids)}
        self.share = share = processes.share(range(len(source)))
        done = [index for index in share if self.is_done(source.ids[index])]
        changed = self._origins.changed(source, done, inputs)
        for index in changed:
            self.marker(source.ids[index]).unlink(missing_ok=True)
        if changed:
            tqdm.write(f"{len(changed)} of {len(done)} pictures have changed since, and are done again")
        return sorted({*share} - {*done} | {*changed})

    def remove_pages(self) -> None:
        """Remove the pages of an earlier run, which would tell of it, not of this one."""
        for name in ("index.html", "prototypes.html"):
            (self.directory / name).unlink(missing_ok=True)

    def note_origin(self, name: str) -> None:
        """Note what a picture's outputs are made from, before the marker is written; after `missing` was asked."""
        if self._origins is not None:
            self._origins.note(self._source, self._numbers[name], self._inputs)

    def base_metrics(self, source: RecordSource, skipped: Sequence[str]) -> dict[str, Any]:
        """The beginning of metrics.json, once every process has written its share.

        Args:
            source: the pictures.
            skipped: one line for every picture that this process could not read.

        Returns:
            {"pictures", "skipped", "protocol"}.

        Raises:
            UserError: no picture could be read.
        """
        skipped = all_skipped(skipped, source)
        return {"pictures": len(source) - len(skipped), "skipped": skipped, "protocol": self.protocol}


def fingerprint(tree: Any) -> str:
    """First 16 hex digits of the SHA-256 of all leaves of a pytree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def write_all(
    results: Iterator[tuple[int, Record | UserError, Any]], write: Callable[[int, Record, Any], None]
) -> list[str]:
    """Call `write(index, record, result)` in threads as results arrive; the first failure ends the run.

    Args:
        results: (index, record, result); (index, error, anything) for a picture that cannot be read.
        write: writes the outputs of one picture.

    Returns:
        One line for every picture that could not be read.
    """

    def written(item: tuple[int, Record | UserError, Any]) -> str | None:
        index, record, result = item
        if isinstance(record, UserError):
            return str(record)
        write(index, record, result)
        return None

    return [line for line in map_ahead(written, results) if line is not None]


def all_skipped(skipped: Sequence[str], source: RecordSource) -> list[str]:
    """Collect and print the lines about skipped pictures of all processes, once all have finished.

    Raises:
        UserError: every picture was skipped.
    """
    skipped = list(chain(*processes.gather_values(list(skipped))))
    for line in skipped:
        tqdm.write(f"skipped: {line}")
    if len(skipped) == len(source):
        raise UserError(f"none of the {len(source)} pictures could be read; see the lines above.")
    return skipped


def skipped_line(skipped: Sequence[str]) -> Iterator[str]:
    """A line with the number of skipped pictures; nothing if there are none."""
    if skipped:
        yield f"{len(skipped)} pictures were skipped; metrics.json names them."
