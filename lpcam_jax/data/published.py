"""The benchmarks as TFDS data sets: prepared once from what was published, without TensorFlow.

One TFDS configuration a split, so that a split needs only its own archives. Records are array_record, in the order of
the benchmark's lists, written as they come: neither memory nor a second copy on the disk grows with the data set, and a
preparation that was stopped goes on after its last full shard.

    image   the published JPEG, byte for byte
    id      its name without extension
    labels  uint8 (c,), 1 where the class is in the picture (not where nothing is published, as for a test split)
    mask    8-bit grey PNG, 0 background, 1..c, 255 ignored (not where there is none)

Masks are grey, never palette: a palette PNG comes out of TFDS as colours wherever opencv is installed.
"""

import fcntl
import hashlib
import io
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
from PIL import Image
from tqdm import tqdm

from ..machine.errors import UserError
from .pictures import Encoded, picture_size, shown

_SHARD = 500  # records a file; what a stopped preparation loses at most


class Example(NamedTuple):
    """One picture as it is stored: see the module's list. `place` names it in messages."""

    image: bytes
    id: str
    labels: np.ndarray | None
    mask: bytes | None
    place: str


class Split(NamedTuple):
    """What a split consists of, read from its lists; the pictures come one by one.

    ids:      of the pictures
    official: how many it was published with
    edition:  text that differs when labels or masks would
    examples: the examples from a number on
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
    """A split, or its first pictures for a dry run."""

    split: str = ""
    limit: int | None = None


class Benchmark(tfds.core.GeneratorBasedBuilder):
    """A benchmark; subclasses say where its pictures, labels and masks are published, in `open_split`.

    Args:
        root: where the user keeps the archives or the unpacked files.
        split: which part to prepare.
        limit: only its first pictures.
        data_dir: where the prepared data set is kept.
    """

    VERSION = tfds.core.Version("1.0.0")
    SPLITS: tuple[str, ...] = ()

    def __init__(self, root: Path, split: str, *, limit: int | None = None, data_dir: Path):
        self._root, self._opened = root, self.open_split(root, split)
        self._count = len(self._opened.ids) if limit is None else min(limit, len(self._opened.ids))
        part = Part(name=part_name(split, limit), description=split, split=split, limit=limit)
        # TFDS takes over what it finds in the folder: only what an earlier start made of the same files may be there.
        directory = data_dir / self.name / part.name / str(self.VERSION)
        if _fingerprint_in(directory) != self._fingerprint():
            shutil.rmtree(directory, ignore_errors=True)
        super().__init__(config=part, data_dir=str(data_dir), file_format="array_record")

    @abstractmethod
    def open_split(self, root: Path, split: str) -> Split:
        """What `root` holds of a split.

        Raises UserError that says what is missing and where to get it.
        """

    def download_and_prepare(self) -> None:
        """Write the records that are not there yet; unlike TFDS's own, which sorts all of them in memory.

        Raises UserError for a file that is missing or damaged, and whatever the disk raises.
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
            ),
            disable_shuffling=True,
        )

    def _fingerprint(self) -> str:
        """Differs when other records would be written."""
        split = self._opened
        what = [split.class_names, list(split.ids), split.edition, split.has_labels, split.has_masks]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

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
    """Prepare a split unless that was done before.

    Args:
        kind: the benchmark.
        root: where its archives or unpacked files are.
        split: one of the benchmark's, without a slice.
        prepared: folder of the prepared data sets. Two programs that want the same one wait for each other.
        limit: only the first pictures, as a data set of its own; not when all are prepared already.

    Returns:
        The folder of the split, for `tfds.builder_from_directory`.

    Raises:
        UserError: something is missing or damaged, or the folder cannot be written.
    """
    root, prepared = Path(root), Path(prepared)
    if split not in kind.SPLITS:
        raise UserError(f"{kind.name} has no split {split!r}; there are {', '.join(kind.SPLITS)}.")
    for part in (prepared / kind.name / part_name(split, some) for some in (None, limit)):
        directory = part / str(kind.VERSION)
        if directory.exists():
            _say_what_is_used(directory, root)
            return directory
    if not root.is_dir():
        raise UserError(
            f"{shown(root)}: no such folder; name the one with the archives of {kind.name}, or the unpacked files"
        )
    absl.logging.set_verbosity(absl.logging.ERROR)  # no word of TFDS about configurations it does not know
    try:
        with _alone(part):
            if not directory.exists():
                builder = kind(root, split, limit=limit, data_dir=prepared / "unfinished")
                builder.download_and_prepare()
                os.rename(builder.data_dir, directory)
                _say_what_is_used(directory, root)
    except UserError:
        raise
    except OSError as error:
        reason, where = error.strerror or error, error.filename or part
        raise UserError(f"{shown(where)}: {kind.name} cannot be prepared ({reason}); check the folder") from error
    except Exception as error:  # array_record raises a RuntimeError when the disk is full
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{shown(part)}: {kind.name} cannot be prepared ({reason}); check the disk") from error
    return directory


def grey_png(mask: np.ndarray) -> bytes:
    """Class indices uint8 (H, W) as an 8-bit grey PNG, which no reader takes for colours."""
    buffer = io.BytesIO()
    Image.fromarray(mask, "L").save(buffer, "PNG")
    return buffer.getvalue()


def missing(root: Path, what: str, *, wanted: Sequence[str], page: str) -> UserError:
    """The error for a part of a benchmark that is not there: what, where, and who publishes it."""
    return UserError(f"{shown(root)}: {what} not found; put {' or '.join(wanted)} there ({page})")


def _fingerprint_in(directory: Path) -> str | None:
    """Of what was written to a folder; None when there is nothing, or half a file."""
    try:
        json.loads((directory / "dataset_info.json").read_text())
        return json.loads((directory / "metadata.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check(example: Example) -> None:
    """UserError for a picture whose header is damaged, or whose mask is of another size."""
    size = picture_size(Encoded(example.place, example.image), upright=False)
    if example.mask is not None:
        of_mask = picture_size(Encoded(f"mask of {example.place}", example.mask))
        if of_mask != size:
            raise UserError(
                f"{example.place}: the picture is {size[1]}x{size[0]}, its mask {of_mask[1]}x{of_mask[0]} (width x "
                "height); get them again"
            )


def _say_what_is_used(directory: Path, root: Path) -> None:
    """A line when what is prepared is not what was published, or comes from elsewhere."""
    values = tfds.builder_from_directory(directory).info.metadata or {}
    notes = []
    if values.get("pictures") != values.get("official"):
        notes.append(f"{values.get('pictures'):,} pictures, {values.get('official'):,} as published")
    if not values.get("has_masks"):
        notes.append("without masks: it cannot be scored")
    if values.get("root") != str(root.resolve()):
        notes.append(f"prepared from {values.get('root')}")
    if notes:
        tqdm.write(f"note: {shown(directory)} is used ({'; '.join(notes)}); delete it to prepare it again")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder; the lock of a killed program is gone with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tqdm.write(f"{shown(folder)} is being prepared by another program; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
