"""The data set a config names, as records."""

from ..config import Config, Data
from ..errors import UserError
from .folder import Folder
from .records import RecordSource, Subset
from .shapes import Shapes
from .voc_layout import VOCLayout


def training_source(config: Config) -> RecordSource:
    """The labelled pictures the classifier is trained on.

    Raises:
        UserError: the data set is not there, or its files contradict each other.
    """
    return _open(config, config.data.train)


def seed_source(config: Config) -> RecordSource:
    """The labelled pictures that are clustered, and that infer.py maps and scores by default.

    Raises:
        UserError: as `training_source`.
    """
    return _open(config, config.data.seeds)


def first(source: RecordSource, limit: int | None) -> RecordSource:
    """The first `limit` records; None: all.

    Raises:
        UserError: `limit` leaves nothing.
    """
    if limit is None:
        return source
    if limit < 1:
        raise UserError(f"--limit is {limit}; use at least one picture.")
    return Subset(source, range(min(limit, len(source))))


def _open(config: Config, ids: str) -> RecordSource:
    source = _voc(config.data, ids) if config.data.source == "voc_layout" else _whole(config.data, config.seed)
    if not len(source):
        raise UserError(f"the data set {config.data.root} holds no picture; add some to its list.")
    return first(source, config.limit)


def _whole(data: Data, seed: int) -> RecordSource:
    if data.source == "shapes":
        if data.scenes < 1:
            raise UserError(f"--data.scenes is {data.scenes}; draw at least one scene.")
        return Shapes(data.scenes, seed=seed)
    _require_root(data)
    return Folder(data.root, classes=data.classes)


def _voc(data: Data, ids: str) -> RecordSource:
    _require_root(data)
    return VOCLayout(data.root, ids, images=data.images, masks=data.masks, classes=data.classes, present=data.present)


def _require_root(data: Data) -> None:
    if not data.root:
        raise UserError("no data set is named; give its folder with --data.root DIR.")
