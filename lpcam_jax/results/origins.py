"""Which picture, which labels and which other files each result was made from: results of others are made again.

    origins.N.jsonl    one JSON array a line, written by process N as pictures are done; a picture's newest line counts

A line holds the picture's place (its path, or its data set), a stamp of its files (sizes and times of change, and the
labels), a digest of their content, and when it was written. Where the stamp is the same, nothing is read.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ..data.records import Origin, RecordSource, origin_of
from ..machine import processes
from ..machine.errors import UserError
from ..machine.threads import map_ahead

Inputs = Callable[[str], Sequence[Path]]
"""Name of a picture -> the files beside it that its result is made from."""


class Traced(NamedTuple):
    """What is known of the picture behind a result.

    Attributes:
        place: where the picture was.
        stamp: of its files and labels, by sizes and times.
        digest: of their content.
        noted: when this was noted, nanoseconds since 1970. (Folders of before do not say it.)
    """

    place: str
    stamp: str
    digest: str
    noted: int = 0


class Origins:
    """The origins of a folder's results.

    Args:
        directory: the folder of the results.
    """

    def __init__(self, directory: Path):
        self._file, self._lock = directory / f"origins.{processes.part()[0]}.jsonl", Lock()
        self._known: dict[str, Traced] = {}
        # A kill may have cut the last line short.
        is_whole = not self._file.exists() or self._file.read_bytes()[-1:] in (b"", b"\n")
        self._start = b"" if is_whole else b"\n"
        for file in sorted(directory.glob("origins.*.jsonl")):
            for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                try:
                    name, *values = json.loads(line)
                    traced = Traced(*values)
                    # The file of a process that there is no more may hold what is older.
                    if name not in self._known or traced.noted >= self._known[name].noted:
                        self._known[name] = traced
                except (ValueError, TypeError):  # a line cut short by a kill
                    continue

    def changed(self, source: RecordSource, indices: Sequence[int], inputs: Inputs | None = None) -> list[int]:
        """Which results are of something else than the source's picture of that name, as it is now.

        Args:
            source: the pictures.
            indices: those that have results.
            inputs: name of a picture -> other files that its result is made from; None: there are none.

        Returns:
            Those whose picture, labels or other file have changed; those of a folder without origins count as they are.

        Raises:
            UserError: a result is of another picture, somewhere else, of the same name.
        """
        if not self._known:
            return []

        def has_changed(index: int) -> bool:
            name = source.ids[index]
            before, origin = self._known.get(name), _with_input(origin_of(source, index), name, inputs)
            if before is None:
                return True
            stamp = _stamp(origin)
            if before.stamp == stamp:
                return False
            if before.digest == _digest(origin):  # files that were copied, which are not read again next time
                self._write(name, before._replace(place=origin.place, stamp=stamp))
                return False
            if before.place != origin.place:
                raise UserError(
                    f"{self._file.parent} holds results of {before.place}, not of {origin.place}, another picture of "
                    "that name; choose another folder, or delete this one."
                )
            return True

        return [index for index, has in zip(indices, map_ahead(has_changed, indices), strict=True) if has]

    def knows(self, source: RecordSource, index: int, inputs: Inputs | None = None) -> bool:
        """Whether a result is of the source's picture of that name, as it is now; arguments as of `note`."""
        name = source.ids[index]
        before, origin = self._known.get(name), _with_input(origin_of(source, index), name, inputs)
        return before is not None and (before.stamp == _stamp(origin) or before.digest == _digest(origin))

    def note(self, source: RecordSource, index: int, inputs: Inputs | None = None) -> None:
        """Note what a result is made from, before its last file is written.

        Args:
            source: the pictures.
            index: of the picture.
            inputs: as for `changed`.

        Raises:
            UserError: the file cannot be written.
        """
        name = source.ids[index]
        origin = _with_input(origin_of(source, index), name, inputs)
        traced = Traced(origin.place, _stamp(origin), _digest(origin))
        if name not in self._known or self._known[name]._replace(noted=0) != traced:
            self._write(name, traced)

    def _write(self, name: str, traced: Traced) -> None:
        traced = traced._replace(noted=time.time_ns())
        line = json.dumps([name, *traced]).encode() + b"\n"
        try:
            with self._lock, self._file.open("ab") as file:
                file.write(self._start + line)
                self._start = b""
        except OSError as error:
            raise UserError(f"cannot write {self._file} ({error.strerror}); free some space and run again.") from None
        self._known[name] = traced


def _with_input(origin: Origin, name: str, inputs: Inputs | None) -> Origin:
    return origin if inputs is None else origin._replace(files=(*origin.files, *inputs(name)))


def _stamp(origin: Origin) -> str:
    """Of sizes and times of change; of a file that is missing, that it is."""
    parts = [origin.facts]
    for path in origin.files:
        try:
            status = path.stat()
            parts.append(f"{path} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape"))
        except OSError:
            parts.append(b"missing")
    return _short(parts)


def _digest(origin: Origin) -> str:
    """Of the files' content and the labels."""
    parts = [origin.facts]
    for path in origin.files:
        try:
            parts.append(path.read_bytes())
        except OSError:
            parts.append(b"missing")
    return _short(parts)


def _short(parts: Sequence[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
