"""The data set a config names, as records."""

from collections.abc import Sequence
from pathlib import Path

from ..config import Config, Data
from ..errors import UserError
from .folder import Folder
from .records import RecordSource, Subset, hold_out
from .shapes import Shapes
from .voc_layout import VOCLayout


def training_sources(config: Config) -> tuple[RecordSource, RecordSource]:
    """The labelled pictures the classifier is trained on, and those it is validated on.

    The latter are the validation split when one is named, else a share of the former that is held out; maybe none.

    Raises:
        UserError: the data set is not there, its files contradict each other, or it has no labels.
    """
    source = with_labels(_open(config, config.data.train), config.data.train)
    if config.data.validation:
        validation = with_labels(_open(config, config.data.validation), config.data.validation)
        return source, with_classes(validation, source.class_names, config.data.validation)
    kept, held = hold_out(len(source), config.data.held_out, seed=config.seed)
    return Subset(source, kept), Subset(source, held)


def seed_source(config: Config) -> RecordSource:
    """The pictures that are clustered, and that infer.py maps and scores by default.

    Raises:
        UserError: the data set is not there, or its files contradict each other.
    """
    return _open(config, config.data.seeds)


def with_labels(source: RecordSource, part: str) -> RecordSource:
    """The source itself; UserError when its pictures have no labels, as those of a test split."""
    if source.labels is None:
        raise UserError(f"{part}: its pictures have no labels; train and cluster on another split.")
    return source


def with_classes(source: RecordSource, class_names: Sequence[str], part: str) -> RecordSource:
    """The source itself; UserError when its classes are not these, in this order."""
    if tuple(source.class_names) != tuple(class_names):
        raise UserError(
            f"{part}: its classes are {', '.join(source.class_names)}, not {', '.join(class_names)}; "
            "use the data set that the run was trained on."
        )
    return source


def first(source: RecordSource, limit: int | None) -> RecordSource:
    """The first `limit` records; None: all.

    Raises:
        UserError: `limit` leaves nothing.
    """
    _check(limit)
    return source if limit is None else Subset(source, range(min(limit, len(source))))


def _open(config: Config, part: str) -> RecordSource:
    """`part` is a split or a list of ids; data sets that are one whole have none."""
    data = config.data
    _check(config.limit)  # before anything is prepared
    match data.source:
        case "shapes":
            if data.scenes < 1:
                raise UserError(f"--data.scenes is {data.scenes}; draw at least one scene.")
            source = Shapes(data.scenes, seed=config.seed)
        case "folder":
            source = Folder(_root(data), classes=data.classes)
        case "voc_layout":
            source = VOCLayout(
                _root(data), part, images=data.images, masks=data.masks, classes=data.classes, present=data.present
            )
        case "tfds":
            source = _prepared(Path(_root(data)), part, data)
        case "voc12" | "coco14":
            source = _benchmark(data, part, config.limit)
    if not len(source):
        raise UserError(f"the data set {data.root} holds no picture; add some to its list.")
    return first(source, config.limit)


def _benchmark(data: Data, part: str, limit: int | None) -> RecordSource:
    # Imported here: TFDS takes a second to load, and only prepared data sets need it.
    from .benchmark import prepare
    from .coco14 import COCO14
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
