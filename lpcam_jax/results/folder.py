"""A folder of results of one model and one protocol, written picture by picture and resumable."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ..data.findings import shown
from ..data.records import Record, RecordSource, origin_of
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import write_json
from ..machine.threads import map_ahead
from ..report.gallery import layer_file
from ..report.names import counted
from .origins import Inputs, Origins
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
        self.directory, self.protocol, self._flag = Path(directory), protocol, flag
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
        self._is_new = stored is None
        self._begin()

    def _begin(self) -> None:
        """Write the protocol, in the first process, before any process writes results."""
        if processes.is_first():
            self.write_json("protocol.json", self.protocol)
        processes.wait()

    def file(self, kind: str, name: str, suffix: str) -> Path:
        """Path of a picture's file, whether or not it exists."""
        return self.directory / kind / f"{name}.{suffix}"

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file at the top level of the folder."""
        write_json(self.directory / name, values)


class PictureResults(ResultFolder, ABC):
    """A folder with results of each picture, scored together once all are written.

    Its protocol is written when `missing` is asked: until then nobody knows whose the files are that the folder holds.
    """

    pages: Pages = "sample"
    _origins: Origins | None = None
    _shown: set[str] | None = None

    @abstractmethod
    def marker(self, name: str) -> Path:
        """The file that is written last."""

    def outputs(self, name: str) -> list[Path]:
        """The files of a picture that others use, the marker among them: where they are written, it is done."""
        return [self.marker(name)]

    def _begin(self) -> None:
        """Nothing yet."""

    def shows(self, name: str) -> bool:
        """Whether a picture has overlays and a place in the gallery; all have until `missing` is called."""
        return self._shown is None or name in self._shown

    def is_done(self, name: str) -> bool:
        """Whether all outputs of a picture are written."""
        first_and_last = [layer_file(self.directory, "photo", name), self.file("overlays", name, "jpg")]
        pages = first_and_last if self.shows(name) else []
        return all(is_written(file) for file in (*pages, *self.outputs(name)))

    def missing(self, source: RecordSource, inputs: Inputs | None = None) -> list[int]:
        """Which of the pictures that are this process's share are not done, or are done and have changed since.

        Args:
            source: the pictures.
            inputs: name of a picture -> other files that its result is made from; None: there are none.

        Returns:
            Their indices. Those that have changed are not done any more, and a line says how many there are.

        Raises:
            UserError: results are of other pictures of the same names; or they are files that somebody else made.
        """
        if self._is_new and processes.is_first():
            self._expect_free(source)
        super()._begin()
        self._origins, self._source, self._inputs = Origins(self.directory), source, inputs
        self._shown = shown_pictures(source.ids, self.pages)
        self._numbers = {name: index for index, name in enumerate(source.ids)}
        self.share = share = processes.share(range(len(source)))
        # Whatever lacks only a page may be of another picture, too.
        made = [index for index in share if is_written(self.marker(source.ids[index]))]
        changed = self._origins.changed(source, made, inputs)
        for index in changed:
            self._remove_marker(source, index)
        if changed:
            tqdm.write(f"{len(changed)} of {len(made)} pictures have changed since, and are done again")
        return [index for index in share if not self.is_done(source.ids[index])]

    def _expect_free(self, source: RecordSource) -> None:
        """UserError where a folder without a protocol holds what would count as results, such as the pictures."""
        if not any(self.directory.glob("[!.]*")):  # as most: the disk need not be asked for every picture
            return
        for name in source.ids:
            for file in filter(os.path.lexists, self.outputs(name)):
                raise self._not_ours(file)

    def _remove_marker(self, source: RecordSource, index: int) -> None:
        """The picture is not done any more; UserError where its marker is a file that it is made from."""
        marker = self.marker(source.ids[index])
        if any(file.exists() and marker.samefile(file) for file in origin_of(source, index).files):
            raise self._not_ours(marker)
        marker.unlink(missing_ok=True)

    def _not_ours(self, file: Path) -> UserError:
        name = file.relative_to(self.directory)
        return UserError(
            f"{shown(self.directory)} holds files that are not of this program ({shown(name)} is one); choose another "
            f"{self._flag}."
        )

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


def is_written(file: Path) -> bool:
    """Whether a file is there and not empty, as those may be after a power failure that were not written durably."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


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
        was = "was" if len(skipped) == 1 else "were"
        yield f"{counted(len(skipped), 'picture')} {was} skipped; metrics.json says why."


def sample_line(shown: int, pictures: int) -> Iterator[str]:
    """A line that the page has not all pictures; nothing if it has."""
    if shown < pictures:
        yield f"{shown} of {pictures} pictures are shown, a sample; --pages all shows all."
