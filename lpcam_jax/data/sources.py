"""The data set a config names, as records."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config import Data
from ..machine.errors import UserError
from .checks import check_labels
from .findings import choice
from .folder import Folder
from .made_for import expect_classes
from .masks import MaskFolder
from .records import RecordSource, Subset, hold_out, masked
from .relabelled import Relabelled
from .shapes import Shapes
from .unlabelled import Pictures, find_unlabelled
from .voc_layout import VOCLayout

# A picture that is not decoded in all its pixels has so many times the longest side that a network sees. What is made
# of it then differs by a fifth of a grey level, three at most. Pillow's advice is the same.
ENOUGH = 3


def training_sources(config: Any, *, masks: bool) -> tuple[RecordSource, RecordSource]:
    """The pictures to train on, and those to validate on.

    The latter are the validation split if one is named, otherwise a held-out share of the former, which may be empty.

    Args:
        config: of the run.
        masks: whether training or validation need masks. If not, JPEGs of a folder that are many times as large as
            `data.longest` are not decoded in all their pixels, and its records have none.

    Raises:
        UserError: the data set does not exist, or its files contradict each other.
    """
    enough = None if masks or config.data.longest is None else ENOUGH * config.data.longest
    source = _open(config, config.data.train, enough=enough)
    if config.data.validation:
        validation = _open(config, config.data.validation, enough=enough)
        return source, with_classes(validation, source.class_names, config.data.validation)
    train, held_out = hold_out(len(source), config.data.held_out, seed=config.seed)
    return Subset(source, train), Subset(source, held_out)


def labelled_sources(config: Any, class_names: Sequence[str] | None = None) -> tuple[RecordSource, RecordSource]:
    """`training_sources` of a network that learns from labels, which are checked.

    Args:
        config: as for `training_sources`.
        class_names: of the other pictures of the run, which these must have, too; None: any.

    Raises:
        UserError: see `training_sources`, `with_labels`, `with_classes` and `checks.check_labels`.
    """
    pictures, validation = training_sources(config, masks=False)
    pictures = with_labels(pictures, config.data.train)
    if class_names is not None:
        pictures = with_classes(pictures, class_names, config.data.train)
    check_labels(pictures)
    return pictures, with_labels(validation, config.data.validation)


def training_source(config: Any) -> RecordSource:
    """All pictures to train on, with none held out.

    Raises:
        UserError: the data set does not exist, or its files contradict each other.
    """
    return _open(config, config.data.train)


def masked_source(source: RecordSource, data: Data) -> RecordSource:
    """The pictures that have a mask to train on, with it: that of `data.masks`, otherwise their own.

    Raises:
        UserError: there are no masks, they are black and white, or they were made for other classes.
    """
    if data.masks:
        folder = MaskFolder.checked(data.masks)
        expect_classes(folder.directory, source.class_names)
        relabelled = Relabelled(source, folder)
        relabelled.expect_a_class()
        return relabelled
    with_masks = masked(source)
    if not with_masks:
        raise UserError(
            f"{data.root or data.source} has no masks to train on; name a folder of masks with --data.masks, such as "
            "the seeds/ that infer.py writes."
        )
    if left_out := len(source) - len(with_masks):
        tqdm.write(f"{left_out} of {len(source)} pictures have no mask: left out")
    return Subset(source, with_masks) if left_out else source


def seed_source(config: Any) -> RecordSource:
    """The pictures that are clustered, and that infer.py maps and scores by default.

    Raises:
        UserError: the data set does not exist, or its files contradict each other.
    """
    return _open(config, config.data.seeds)


def pictures_of(
    config: Any,
    class_names: Sequence[str],
    *,
    images: str = "",
    root: str = "",
    split: str = "",
    limit: int | None = None,
) -> RecordSource:
    """The pictures to make results for: those in `images`, or the run's own data set.

    Args:
        config: of the run.
        class_names: of the run.
        images: a folder, a file, or a pattern; empty: the run's data set.
        root: where the data set is now; empty: where it was during training.
        split: which split of it; empty: `data.seeds`.
        limit: use only this many pictures; None: for the run's data set, the limit of the run.

    Raises:
        UserError: there are no such pictures, or they have other classes.
    """
    if images:
        if split:
            raise UserError(f"--split {split}: --images has no splits; omit one of the two.")
        return first(Pictures(find_unlabelled(images), class_names), limit)
    data = replace(config.data, root=root or config.data.root, seeds=split or config.data.seeds)
    config = replace(config, data=data, limit=config.limit if limit is None else limit)
    return first(with_classes(seed_source(config), class_names, data.root), limit)


def with_labels(source: RecordSource, part: str) -> RecordSource:
    """The source itself; raises UserError if its pictures have no labels, like those of a test split."""
    if source.labels is None:
        raise UserError(f"{part}: its pictures have no labels; train and cluster on another split.")
    return source


def with_classes(source: RecordSource, class_names: Sequence[str], part: str) -> RecordSource:
    """The source itself; raises UserError unless its classes are these, in this order."""
    if tuple(source.class_names) != tuple(class_names):
        raise UserError(
            f"{part}: its classes are {choice(source.class_names)}, not {choice(class_names)}; "
            "use the data set that the run was trained on."
        )
    return source


def first(source: RecordSource, limit: int | None) -> RecordSource:
    """The first `limit` records; None: all.

    Raises:
        UserError: `limit` is less than 1.
    """
    _check(limit)
    return source if limit is None else Subset(source, range(min(limit, len(source))))


def _open(config: Any, part: str, *, enough: int | None = None) -> RecordSource:
    """Open a part of the data set: a split, a list of ids, or "all" where there are no splits; then maybe a [slice]."""
    data = config.data
    _check(config.limit)  # before anything is prepared
    name, bracket, _ = part.partition("[")
    match data.source:
        case "shapes":
            if data.scenes < 1:
                raise UserError(f"--data.scenes is {data.scenes}; draw at least one scene.")
            if data.classes:
                raise UserError(
                    f"--data.classes {' '.join(data.classes)}: the drawn scenes always have all their classes; omit it."
                )
            source = _sliced(Shapes(data.scenes, seed=config.seed), _only_all(name, bracket, part))
        case "folder":
            source = _sliced(Folder(_root(data), classes=data.classes, enough=enough), _only_all(name, bracket, part))
        case "voc_layout":
            source = VOCLayout(
                _root(data), name, images=data.images, masks=data.truth, classes=data.classes, present=data.present
            )
            source = _sliced(source, part)
        case "tfds":
            source = _prepared(Path(_root(data)), part, data)
        case "voc12" | "coco14":
            source = _benchmark(data, part, config.limit)
    if not len(source):
        raise UserError(f"the data set {data.root} holds no picture; add some to its list.")
    return first(source, config.limit)


def _only_all(name: str, bracket: str, part: str) -> str:
    """`part` itself; raises UserError unless it is "all", for a data set without splits."""
    if name != "all":
        cut = bracket and part[len(name) :]
        raise UserError(f"{part}: this data set has no splits; write all{cut}.")
    return part


def _sliced(source: RecordSource, part: str) -> RecordSource:
    """The records of `name[from:to]`, in TFDS's syntax: each a number or a percentage; without brackets, all."""
    name, bracket, inside = part.partition("[")
    if not bracket:
        return source
    match = re.fullmatch(r"(\d+%?)?:(\d+%?)?\]", inside)
    if not match:
        raise UserError(
            f"{part}: {bracket}{inside} is not a slice; write {name}[:80%], {name}[80%:] or {name}[100:400]."
        )
    ends = [
        _position(text, len(source), default) for text, default in zip(match.groups(), (0, len(source)), strict=True)
    ]
    if ends[0] >= ends[1]:
        raise UserError(f"{part}: the slice is empty; {name} holds {len(source)} pictures.")
    return Subset(source, range(*ends))


def _position(text: str | None, count: int, default: int) -> int:
    if not text:
        return default
    number = int(text.removesuffix("%"))
    return min(round(number * count / 100) if text.endswith("%") else number, count)


def _benchmark(data: Data, part: str, limit: int | None) -> RecordSource:
    # Imported here: TFDS takes a second to load, and only prepared data sets need it.
    from .coco14 import COCO14
    from .published import prepare
    from .voc12 import VOC12

    split, bracket, _ = part.partition("[")
    directory = prepare(
        {"voc12": VOC12, "coco14": COCO14}[data.source],
        _root(data),
        split,
        prepared=data.prepared or Path(data.root, "prepared"),
        limit=None if bracket else limit,
    )
    return _prepared(directory, part, data)


def _prepared(directory: Path, part: str, data: Data) -> RecordSource:
    from .prepared import Prepared

    return Prepared(directory, part, classes=data.classes)


def _check(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; use at least one picture.")


def _root(data: Data) -> str:
    if not data.root:
        raise UserError("no data set is named; give its folder with --data.root DIR.")
    return data.root
