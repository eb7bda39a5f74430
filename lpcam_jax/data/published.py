"""The benchmarks as TFDS data sets: prepared once from the published files, without TensorFlow.

Each split is a TFDS configuration, so that preparing it needs only its own archives. Records are array_record, in the
order of the benchmark's lists, and written one shard at a time: memory use does not grow with the data set, there is no
temporary copy on the disk, and an interrupted preparation resumes after its last full shard.

    image   the published JPEG, byte for byte
    id      its name without extension
    labels  uint8 (c,), 1 where the class is in the picture (absent where none are published, as for a test split)
    mask    8-bit grey PNG, 0 background, 1..c, 255 ignored (absent where there is none)

Masks are grey, never palette: with opencv installed, TFDS decodes a palette PNG to its colours.
"""

import fcntl
import hashlib
import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ..machine.errors import UserError, reason
from .findings import shown
from .pictures import Encoded, picture_size

_SHARD = 500  # records per file; an interrupted preparation loses at most this many


class Example(NamedTuple):
    """One picture as it is stored; see the module docstring. `place` names it in messages."""

    image: bytes
    id: str
    labels: np.ndarray | None
    mask: bytes | None
    place: str


class Split(NamedTuple):
    """The contents of a split, read from its lists; the pictures themselves are read one by one.

    Attributes:
        class_names: c names.
        ids: ids of the pictures.
        official: number of pictures in the published split.
        edition: text that changes whenever labels or masks would.
        has_labels: whether examples carry labels.
        has_masks: whether examples carry masks.
        examples: start index -> the examples from there on.
    """

    class_names: tuple[str, ...]
    ids: Sequence[str]
    official: int
    edition: str
    has_labels: bool
    has_masks: bool
    examples: Callable[[int], Iterator[Example]]


@dataclass
class Part(tfds.core.BuilderConfig):
    """A split, or its first pictures only, for a dry run."""

    split: str = ""
    limit: int | None = None


class Benchmark(tfds.core.GeneratorBasedBuilder):
    """A benchmark; subclasses find its pictures, labels and masks in `open_split`.

    Args:
        root: where the user keeps the archives or the unpacked files.
        split: which split to prepare.
        limit: prepare only this many pictures; None: all.
        data_dir: where the prepared data set is kept.
    """

    VERSION = tfds.core.Version("1.0.0")
    SPLITS: tuple[str, ...] = ()

    def __init__(self, root: Path, split: str, *, limit: int | None = None, data_dir: Path):
        self._root, self._opened = root, self.open_split(root, split)
        self._count = len(self._opened.ids) if limit is None else min(limit, len(self._opened.ids))
        part = Part(name=part_name(split, limit), description=split, split=split, limit=limit)
        # TFDS reuses whatever is in the folder: keep only an earlier attempt on the same files.
        directory = data_dir / self.name / part.name / str(self.VERSION)
        if _fingerprint_in(directory) != self._fingerprint():
            shutil.rmtree(directory, ignore_errors=True)
        super().__init__(config=part, data_dir=str(data_dir), file_format="array_record")

    @abstractmethod
    def open_split(self, root: Path, split: str) -> Split:
        """Find the files of a split below `root`.

        Raises:
            UserError: something is missing; the message says what, and where to get it.
        """

    def download_and_prepare(self) -> None:
        """Write the records that are not written yet; TFDS's own method would sort all of them in memory.

        Raises:
            UserError: a file is missing or damaged.
            OSError: the disk is full or not writable.
        """
        split = self.builder_config.split
        Path(self.data_dir).mkdir(parents=True, exist_ok=True)
        done = self.info.splits[split].num_examples if split in self.info.splits else 0
        writer = tfds.core.SequentialWriter(self.info, _SHARD, overwrite=not done, file_format="array_record")
        writer.initialize_splits([split], fail_if_exists=False)
        examples = self._generate_examples(done)
        with tqdm(desc=f"preparing {self.name} {split}", total=self._count, initial=done, unit="img") as bar:
            while batch := [example for _, example in islice(examples, _SHARD)]:
                writer.add_examples({split: batch})
                bar.update(len(batch))
        writer.close_splits([split])

    def _info(self) -> tfds.core.DatasetInfo:
        split = self._opened
        features: dict[str, Any] = {"image": tfds.features.Image(shape=(None, None, 3)), "id": tfds.features.Text()}
        if split.has_labels:
            features["labels"] = tfds.features.Tensor(shape=(len(split.class_names),), dtype=np.uint8)
        if split.has_masks:
            features["mask"] = tfds.features.Image(shape=(None, None, 1))
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                class_names=list(split.class_names),
                root=str(self._root.resolve()),
                pictures=len(split.ids),
                official=split.official,
                has_masks=split.has_masks,
                fingerprint=self._fingerprint(),
                files=_sizes_of(self._root),
            ),
            disable_shuffling=True,
        )

    def _fingerprint(self) -> str:
        """Changes whenever different records would be written."""
        split = self._opened
        content = [split.class_names, list(split.ids), split.edition, split.has_labels, split.has_masks]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {self.builder_config.split: self._generate_examples()}

    def _generate_examples(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        examples = islice(self._opened.examples(start), self._count - start)
        for number, example in enumerate(examples, start):
            _check(example)
            values = example._asdict() | {"place": None}
            yield number, {name: value for name, value in values.items() if value is not None}


def part_name(split: str, limit: int | None) -> str:
    """Name of the TFDS configuration of a split, or of its first pictures."""
    return split if limit is None else f"{split}_first_{limit}"


def prepare(kind: type[Benchmark], root: str | Path, split: str, *, prepared: str | Path, limit: int | None) -> Path:
    """Prepare a split, unless it is prepared already.

    Args:
        kind: the benchmark.
        root: where its archives or unpacked files are.
        split: one of the benchmark's splits, without a slice.
        prepared: folder of the prepared data sets. Of two programs that prepare the same one, the second waits.
        limit: prepare only this many pictures, as a data set of its own, unless the whole split is prepared already.

    Returns:
        The folder of the split, for `tfds.builder_from_directory`.

    Raises:
        UserError: something is missing or damaged, or the folder cannot be written.
    """
    root, prepared = Path(root), Path(prepared)
    if split not in kind.SPLITS:
        raise UserError(f"{kind.name} has no split {split!r}; there are {', '.join(kind.SPLITS)}.")
    for part in (prepared / kind.name / part_name(split, count) for count in (None, limit)):
        directory = part / str(kind.VERSION)
        if directory.exists():
            values = _noted(directory)
            _expect_same_files(values, directory, root)
            _say_what_is_used(values, directory, root)
            return directory
    if not root.is_dir():
        raise UserError(
            f"{shown(root)}: no such folder; name the one with the archives of {kind.name}, or the unpacked files"
        )
    absl.logging.set_verbosity(absl.logging.ERROR)  # silences TFDS's warnings about unknown configurations
    try:
        with _alone(part):
            if not directory.exists():
                builder = kind(root, split, limit=limit, data_dir=prepared / "unfinished")
                builder.download_and_prepare()
                os.rename(builder.data_dir, directory)
                _say_what_is_used(_noted(directory), directory, root)
    except UserError:
        raise
    except OSError as error:
        problem, where = error.strerror or error, error.filename or part
        raise UserError(f"{shown(where)}: {kind.name} cannot be prepared ({problem}); check the folder") from error
    except Exception as error:  # array_record raises a RuntimeError when the disk is full
        raise UserError(
            f"{shown(part)}: {kind.name} cannot be prepared ({reason(error, most=300)}); check the disk"
        ) from error
    return directory


def missing(root: Path, what: str, *, wanted: Sequence[str], page: str) -> UserError:
    """The error for a missing part of a benchmark: what is missing, where it belongs, and who publishes it."""
    return UserError(f"{shown(root)}: {what} not found; put {' or '.join(wanted)} there ({page})")


def _fingerprint_in(directory: Path) -> str | None:
    """The fingerprint stored in a folder; None if there is none, or its files are incomplete."""
    try:
        json.loads((directory / "dataset_info.json").read_text())
        return json.loads((directory / "metadata.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check(example: Example) -> None:
    """Check that a picture's header is readable and its mask has the same size; raises UserError."""
    size = picture_size(Encoded(example.place, example.image), upright=False)
    if example.mask is not None:
        of_mask = picture_size(Encoded(f"mask of {example.place}", example.mask))
        if of_mask != size:
            raise UserError(
                f"{example.place}: the picture is {size[1]}x{size[0]}, its mask {of_mask[1]}x{of_mask[0]} (width x "
                "height); download them again"
            )


def _sizes_of(root: Path) -> dict[str, int]:
    """Size in bytes of the archives and lists that lie directly in a folder; whatever else lies there may change."""
    files = (path for path in sorted(root.iterdir()) if _is_part(path.name) and path.is_file()) if root.is_dir() else ()
    return {path.name: path.stat().st_size for path in files}


def _is_part(name: str) -> bool:
    """Whether a file may be one that a data set is prepared from, by its name."""
    return name.lower().endswith((".tar", ".tgz", ".gz", ".zip", ".txt", ".json")) and not name.startswith(".")


def _noted(directory: Path) -> dict[str, Any]:
    """What was noted when a data set was prepared; UserError if it cannot be opened."""
    try:
        return tfds.builder_from_directory(directory).info.metadata or {}
    except Exception as error:  # TFDS raises exceptions of many kinds
        raise UserError(
            f"{shown(directory)} cannot be opened ({reason(error)}); delete it, it is prepared again."
        ) from None


def _expect_same_files(values: dict[str, Any], directory: Path, root: Path) -> None:
    """UserError if an archive or a list that a data set was prepared from has another size now."""
    now, before = _sizes_of(root), values.get("files", {})
    if changed := [name for name, size in before.items() if _is_part(name) and now.get(name, size) != size]:
        raise UserError(
            f"{shown(root / changed[0])} has {now[changed[0]]:,} bytes; {shown(directory)} was prepared when it had "
            f"{before[changed[0]]:,}: delete that folder to prepare it again, or put the file back."
        )


def _say_what_is_used(values: dict[str, Any], directory: Path, root: Path) -> None:
    """Print a note if the prepared data set differs from the published one, or was prepared from another folder."""
    notes = []
    if values.get("pictures") != values.get("official"):
        notes.append(f"{values.get('pictures'):,} pictures, {values.get('official'):,} as published")
    if not values.get("has_masks"):
        notes.append("without masks: it cannot be scored")
    if values.get("root") != str(root.resolve()):
        notes.append(f"prepared from {values.get('root')}")
    if notes:
        tqdm.write(f"note: using {shown(directory)} ({'; '.join(notes)}); delete it to prepare it again")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the lock is released even if the program is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tqdm.write(f"{shown(folder)} is being prepared by another program; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
