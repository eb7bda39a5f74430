"""The benchmarks as TFDS data sets: prepared once from what was published, without TensorFlow.

One TFDS configuration a split, so that a split needs only its own archives, and one that was finished stays when the
next is interrupted. Records are array_record:

    image   the published JPEG, byte for byte
    id      its name without extension
    labels  uint8 (c,), 1 where the class is in the picture (not where nothing is published, as for a test split)
    mask    8-bit grey PNG, 0 background, 1..c, 255 ignored (not where there is none)

Masks are grey, never palette: a palette PNG comes out of TFDS as colours wherever opencv is installed.
"""

import fcntl
import io
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from ..errors import UserError
from .pictures import shown


class Example(NamedTuple):
    """One picture as it is stored: see the module's list."""

    image: bytes
    id: str
    labels: np.ndarray | None
    mask: bytes | None


class Split(NamedTuple):
    """What a split consists of, read from its lists; the pictures come one by one.

    count:    pictures
    official: pictures it was published with
    """

    class_names: tuple[str, ...]
    count: int
    official: int
    has_labels: bool
    has_masks: bool
    examples: Iterator[Example]


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
        self._opened = self.open_split(root, split, masks_dir=data_dir / self.name / "masks")
        part = Part(name=part_name(split, limit), description=split, split=split, limit=limit)
        super().__init__(config=part, data_dir=str(data_dir), file_format="array_record")

    @abstractmethod
    def open_split(self, root: Path, split: str, *, masks_dir: Path) -> Split:
        """What `root` holds of a split; masks that are made at some cost may be kept in `masks_dir`.

        Raises UserError that says what is missing and where to get it.
        """

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
            metadata=tfds.core.MetadataDict(class_names=list(split.class_names)),
            disable_shuffling=True,  # the order of the lists is the benchmark's
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {self.builder_config.split: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        split, limit = self._opened, self.builder_config.limit
        total = split.count if limit is None else min(limit, split.count)
        bar = tqdm(
            islice(split.examples, limit), f"preparing {self.name} {self.builder_config.split}", total, unit="img"
        )
        for number, example in enumerate(bar):
            yield number, {name: value for name, value in example._asdict().items() if value is not None}


def part_name(split: str, limit: int | None) -> str:
    """Name of the TFDS configuration of a split, or of its first pictures."""
    return split if limit is None else f"{split}_first_{limit}"


def prepare(kind: type[Benchmark], root: str | Path, split: str, *, prepared: str | Path, limit: int | None) -> Path:
    """Prepare a split unless that was done before.

    Args:
        kind: the benchmark.
        root: where its archives or unpacked files are.
        split: one of the benchmark's, without a slice.
        prepared: folder of the prepared data sets. What a killed preparation left there is cleared away; two programs
            that want the same folder wait for each other.
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
        if (directory / "dataset_info.json").exists():
            return directory
    if not root.is_dir():
        raise UserError(
            f"{shown(root)}: no such folder; name the one with the archives of {kind.name}, or the unpacked files"
        )
    tfds.disable_progress_bar()
    absl.logging.set_verbosity(absl.logging.ERROR)  # no word about configurations it does not know
    try:
        with _alone(part):
            if (directory / "dataset_info.json").exists():
                return directory
            for leftover in part.glob("incomplete.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            builder = kind(root, split, limit=limit, data_dir=prepared)
            _compare_with_published(builder)
            with redirect_stdout(io.StringIO()):  # TFDS would announce a download of unknown size
                builder.download_and_prepare()
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{shown(part)}: cannot prepare {kind.name} there ({reason}); choose another --data.prepared"
        ) from error
    return directory


def grey_png(mask: np.ndarray) -> bytes:
    """Class indices uint8 (H, W) as an 8-bit grey PNG, which no reader takes for colours."""
    buffer = io.BytesIO()
    Image.fromarray(mask, "L").save(buffer, "PNG")
    return buffer.getvalue()


def missing(root: Path, what: str, *, wanted: Sequence[str], page: str) -> UserError:
    """The error for a part of a benchmark that is not there: what, where, and who publishes it."""
    return UserError(f"{shown(root)}: {what} not found; put {' or '.join(wanted)} there ({page})")


def _compare_with_published(builder: Benchmark) -> None:
    split = builder._opened
    if split.count != split.official:
        tqdm.write(
            f"note: {builder.name} {builder.builder_config.split} has {split.count:,} pictures here, "
            f"{split.official:,} as published"
        )
    if not split.has_masks:
        tqdm.write(
            f"note: {builder.name} {builder.builder_config.split} is prepared without masks: it cannot be scored"
        )


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
