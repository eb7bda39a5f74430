"""Any data set that TFDS has prepared as array_record, as records: our benchmarks and TFDS's own data sets."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ..machine.errors import UserError, reason
from ..machine.files import read_arrays, write_atomically
from ..seeds import IGNORE
from .findings import shown
from .masks import MAX_CLASSES, check_size, pick_classes, read_mask, renumbering
from .pictures import Encoded, picture_size, read_picture
from .records import Origin, Record, relative_name

_IDS = ("id", "file_name", "filename", "image/filename", "image_id")
_MASKS = ("mask", "segmentation_mask")

# The trimap of Oxford-IIIT Pet and similar sets: 1 the object, 2 background, 3 their border; 0 background.
_TRIMAP = np.zeros(256, np.uint8)
_TRIMAP[[1, 3, IGNORE]] = 1, IGNORE, IGNORE


class Prepared:
    """A split of a prepared data set.

    These features are read: `image`; `labels`, multi-hot or a sequence of classes, or `label`, a single class; `mask`
    with the values 0, 1..c and 255, or, beside a single `label`, the trimap `segmentation_mask`; and `id` or
    `file_name`. The EXIF orientation is not applied, because masks match the pixels as stored.

    Ids, labels and sizes of all pictures are read once and cached beside the data set, as lpcam_jax_index_SPLIT.npz.

    Args:
        directory: the folder with dataset_info.json.
        split: in TFDS's syntax: `train`, `train[:50%]`, `train+val`.
        classes: the classes to keep, in this order: masks are renumbered, other classes become background; empty: all.

    Raises:
        UserError: there is no such data set or split, or it cannot be read.
    """

    def __init__(self, directory: str | Path, split: str, *, classes: Sequence[str] = ()):
        self._where = shown(directory)
        builder = _open(Path(directory), self._where)
        features = dict(builder.info.features.items())
        self._reads = _Reads.of(features, self._where)
        all_names = self._reads.class_names or tuple((builder.info.metadata or {}).get("class_names", ()))
        if not all_names:
            raise UserError(f"{self._where}: its classes have no names; it needs a feature label or labels of classes")
        self.class_names = pick_classes(classes, all_names, directory)
        self._num_classes = len(all_names)
        if self._reads.is_trimap and self._num_classes > MAX_CLASSES:
            tqdm.write(f"note: {self._where}: its masks are left out, for masks number {MAX_CLASSES} classes at most")
            self._reads = self._reads._replace(mask=None)
        self.has_masks = self._reads.mask is not None
        if self.has_masks:
            self._renumber = renumbering(self.class_names, all_names)

        decoders = {name: tfds.decode.SkipDecoding() for name in ("image", self._reads.mask) if name}
        self._parts = []  # for each picture: the records of its split, its number among them
        ids, labels, self._sizes = [], [], []
        try:
            parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)
            opened = [(part, builder.as_data_source(part.splitname, decoders=decoders)) for part in parts]
        except Exception as error:  # TFDS raises exceptions of many kinds
            raise UserError(f"{self._where}: split {split!r} cannot be opened ({reason(error, most=200)})") from None
        for part, records in opened:
            index = self._index(Path(directory), part.splitname, records)
            numbers = range(len(records))[part.from_ : part.to]
            self._parts += [(records, number) for number in numbers]
            ids += [str(index.ids[number]) for number in numbers]
            labels.append(index.labels[list(numbers)])
            self._sizes += [tuple(map(int, index.sizes[number])) for number in numbers]
        if len(set(ids)) < len(ids):
            raise UserError(f"{self._where}: {split!r} names a picture twice; choose splits that do not overlap")
        self.ids = ids
        columns = [all_names.index(name) for name in self.class_names]
        has_labels = self._reads.labels is not None and not self._is_unlabelled(opened)
        self.labels = np.concatenate(labels)[:, columns].astype(np.float32) if has_labels else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        with self._prepared_again():
            values, name = self._read(*self._parts[index]), self.ids[index]
            image = read_picture(Encoded(f"{self._where}: {name}", values["image"]), upright=False)
            labels = None if self.labels is None else self.labels[index]
            return Record(name, image, labels, self._decoded_mask(index, values, image.shape[:2]))

    def mask(self, index: int) -> np.ndarray | None:
        """The mask alone."""
        with self._prepared_again():
            return self._decoded_mask(index, self._read(*self._parts[index]), self._sizes[index])

    def _decoded_mask(self, index: int, values: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
        if self._reads.mask is None:
            return None
        file = Encoded(f"{self._where}: mask of {self.ids[index]}", values[self._reads.mask])
        if self._reads.is_trimap:
            return self._renumber[_of_trimap(read_mask(file), int(values["label"]))]
        mask = read_mask(file, num_classes=self._num_classes)
        check_size(mask, size, file)
        return self._renumber[mask]

    @contextmanager
    def _prepared_again(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; then delete {self._where}, and it will be prepared again") from None

    def size(self, index: int) -> tuple[int, int]:
        """(H, W)."""
        return self._sizes[index]

    def origin(self, index: int) -> Origin:
        """The data set, which is not changed once it is prepared."""
        return Origin(f"{self.ids[index]} of {self._where}", (), repr(self._sizes[index]).encode())

    def _is_unlabelled(self, opened: Sequence[tuple[Any, Any]]) -> bool:
        """Whether the label of the first picture is -1, which TFDS stores throughout a split without labels."""
        if self._reads.labels != "label":
            return False
        return any(len(records) and int(self._read(records, 0)["label"]) < 0 for _, records in opened)

    def _read(self, records: Any, number: int) -> dict[str, Any]:
        try:
            return records[number]
        except Exception as error:  # array_record can raise anything on damaged records
            raise UserError(f"{self._where}: record {number} cannot be read ({reason(error, most=200)})") from None

    def _index(self, directory: Path, split: str, records: Any) -> "_Index":
        file = directory / f"lpcam_jax_index_{split}.npz"
        try:
            index = _Index(**read_arrays(file))
            shapes = (len(records), self._num_classes), (len(records), 2)
            if len(index.ids) == len(records) and (index.labels.shape, index.sizes.shape) == shapes:
                return index._replace(ids=np.array([relative_name(str(name), self._where) for name in index.ids], str))
        except Exception:  # absent, damaged, of another edition, or with names that lead out: build it anew
            pass
        index = self._make_index(split, records)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **index._asdict())
        try:
            write_atomically(file, buffer.getvalue())
        except UserError as error:
            tqdm.write(f"note: {error}; the pictures' sizes will be read again next time")
        return index

    def _make_index(self, split: str, records: Any) -> "_Index":
        ids, labels, sizes = [], [], []
        bar = tqdm(range(len(records)), f"indexing {split}", unit="img", delay=2, leave=False)
        for number in bar:
            values = self._read(records, number)
            name = values.get(self._reads.id, b"") if self._reads.id else b""
            name = os.fsdecode(name) if isinstance(name, bytes) else str(name)
            path = PurePosixPath(name or f"{split}_{number:06d}")
            path = path.with_suffix("") if path.suffix.lower() in (".jpg", ".jpeg", ".png") else path
            ids.append(relative_name(str(path), self._where))
            labels.append(self._multi_hot(values))
            sizes.append(picture_size(Encoded(f"{self._where}: {ids[-1]}", values["image"]), upright=False))
        if len(set(ids)) < len(ids):
            ids = [f"{name}_{number:06d}" for number, name in enumerate(ids)]
        return _Index(np.array(ids, dtype=str), np.array(labels, np.uint8), np.array(sizes, np.int32).reshape(-1, 2))

    def _multi_hot(self, values: dict[str, Any]) -> np.ndarray:
        hot = np.zeros(self._num_classes, np.uint8)
        if self._reads.is_multi_hot:
            hot[:] = np.asarray(values["labels"]) != 0
        elif self._reads.labels:
            numbers = np.atleast_1d(np.asarray(values[self._reads.labels], int))
            hot[numbers[numbers >= 0]] = 1  # -1 in TFDS means unknown
        return hot


class _Index(NamedTuple):
    """The cached index of a split.

    Attributes:
        ids: str (n,).
        labels: uint8 (n, c).
        sizes: int32 (n, 2), (H, W).
    """

    ids: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray


class _Reads(NamedTuple):
    """The names of the features that are read; None for those that the data set does not have."""

    id: str | None
    labels: str | None
    mask: str | None
    is_multi_hot: bool
    is_trimap: bool
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, features: dict[str, Any], where: str) -> "_Reads":
        if not isinstance(features.get("image"), tfds.features.Image):
            raise UserError(f"{where}: no feature `image`; it has {', '.join(sorted(features))}")
        labels = next((name for name in ("labels", "label") if name in features), None)
        feature = features.get(labels)
        if isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        is_classes = isinstance(feature, tfds.features.ClassLabel)
        if labels and not is_classes and not (isinstance(feature, tfds.features.Tensor) and len(feature.shape) == 1):
            raise UserError(f"{where}: feature `{labels}` holds neither classes nor a 0/1 vector")
        mask = next((name for name in _MASKS if isinstance(features.get(name), tfds.features.Image)), None)
        return cls(
            next((name for name in _IDS if name in features), None),
            labels,
            mask,
            bool(labels) and not is_classes,
            labels == "label" and mask == "segmentation_mask",
            tuple(feature.names) if is_classes else (),
        )


def _of_trimap(mask: np.ndarray, label: int) -> np.ndarray:
    """Turn a trimap into a mask of the picture's single class: uint8 (H, W)."""
    mask = _TRIMAP[mask]
    return np.where(mask == 1, label + 1, mask).astype(np.uint8)


def _open(directory: Path, where: str) -> tfds.core.DatasetBuilder:
    if not (directory / "dataset_info.json").is_file():
        raise UserError(f"{where}: no dataset_info.json; name the folder that TFDS prepared, such as NAME/CONFIG/1.0.0")
    try:
        builder = tfds.builder_from_directory(directory)
        file_format = builder.info.file_format.value if builder.info.file_format else "unknown"
    except Exception as error:  # TFDS raises exceptions of many kinds
        raise UserError(f"{where}: cannot be opened by TFDS ({reason(error, most=200)})") from None
    if file_format != "array_record":
        raise UserError(
            f"{where}: prepared as {file_format}, which only TensorFlow can read; prepare it with "
            "`download_and_prepare(file_format='array_record')`"
        )
    return builder
