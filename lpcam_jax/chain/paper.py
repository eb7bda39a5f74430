"""The paper's tables, and its Figure 5: its numbers, and the stages of a chain that they are of.

A stage is named after what it is and what it is made from: amn_lpcam is AMN, trained from LPCAM's heat maps, and
amn_lpcam_irn_deeplabv2 the network that learned from what IRN makes of AMN's maps.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .numbers import best_seeds, number_of, part_of, read_object, score, with_saliency
from .recipe import Stage

DataSet = Literal["voc12", "coco14"]
TITLES = {"voc12": "VOC 2012", "coco14": "COCO 2014"}


class Entry(NamedTuple):
    """One number of the paper, for CAM's heat maps and for LPCAM's.

    Attributes:
        tables: numbers of the tables that it is in.
        data: the data set.
        system: the row.
        what: what is scored, and on which pictures.
        numbers: the paper's mIoU in percent: from CAM, from LPCAM; None: it has none.
        stages: of the chain: from CAM, from LPCAM.
        of: what is scored of each stage: the name of a method, or "masks" or "pseudo_masks".
        saliency: whether these pseudo masks need saliency maps; made without, they are not the entry's.
    """

    tables: tuple[int, ...]
    data: DataSet
    system: str
    what: str
    numbers: tuple[float | None, float | None]
    stages: tuple[str, str]
    of: tuple[str, str]
    saliency: bool = False


class Errors(NamedTuple):
    """A line of Table 1, in percent: of seeds at their best threshold, the means over the classes.

    Attributes:
        fp: false pixels, per pixel of truth or seed.
        fn: missing pixels, likewise.
        miou: with the background.
        precision: of the pixels in the seed.
        recall: of the pixels in the truth.
    """

    fp: float
    fn: float
    miou: float
    precision: float
    recall: float


# Of the stage `classifier` of VOC 2012.
TABLE_1 = {
    "cam": Errors(26.5, 26.2, 48.8, 65.0, 65.2),
    "lpcam_f": Errors(33.1, 16.2, 52.1, 61.3, 76.6),
    "lpcam": Errors(29.8, 16.7, 54.9, 64.9, 77.2),
}
# Best values in Figure 5, which is of AMN's seeds, and what the text says of others; ours is of LPCAM's own.
FIGURE_5 = {
    "threshold": (0.1, "less than a point worse at 0.2"),
    "mu_f": (0.9, "flat"),
    "mu_b": (0.9, "flat"),
    "clusters": (12, "0.7 worse at 20"),
}

_SEEDS, _PSEUDO = "seeds, train", "pseudo masks, train"
_MASKS = ("masks", "masks")
_MAPS = ("cam", "lpcam")


def _networks(
    data: DataSet,
    system: str,
    made_by: tuple[str, str],
    deeplab: tuple[float | None, float | None],
    upernet: tuple[float | None, float | None],
    *,
    network: str = "deeplabv2",
) -> Iterator[Entry]:
    """Tables 3 and 4: the networks trained on the pseudo masks of two stages."""
    for name, numbers in ((network, deeplab), ("upernet", upernet)):
        title = {"deeplabv2": "DeepLabV2", "deeplab_wrn38": "DeepLab on WRN-38", "upernet": "UperNet"}[name]
        stages = tuple(f"{stage}_{name}" for stage in made_by)
        tables = (3, 4) if name != "upernet" else (3,)
        yield Entry(tables, data, system, f"{title}, val", numbers, stages, _MASKS)


ENTRIES: tuple[Entry, ...] = (
    Entry((2,), "voc12", "IRN", _SEEDS, (48.8, 54.9), ("classifier", "classifier"), _MAPS),
    Entry((2,), "voc12", "IRN", _PSEUDO, (66.5, 71.2), ("irn_cam", "irn_lpcam"), _MASKS),
    *_networks("voc12", "IRN", ("irn_cam", "irn_lpcam"), (63.5, 68.6), (65.9, 71.1)),
    Entry((2,), "voc12", "AMN", _SEEDS, (62.1, 65.3), ("amn_cam", "amn_lpcam"), ("amn", "amn")),
    Entry((2,), "voc12", "AMN", _PSEUDO, (72.2, 72.7), ("amn_cam_irn", "amn_lpcam_irn"), _MASKS),
    *_networks("voc12", "AMN", ("amn_cam_irn", "amn_lpcam_irn"), (69.5, 70.1), (71.7, 73.1)),
    Entry(
        *((2,), "voc12", "MCTformer", _SEEDS, (61.7, 63.5)),
        *(("mctformer", "mctformer"), ("mctformer", "mctformer_lpcam")),
    ),
    Entry((2,), "voc12", "MCTformer", _PSEUDO, (69.1, 70.8), ("mctformer_psa", "mctformer_lpcam_psa"), _MASKS),
    *_networks(
        *("voc12", "MCTformer", ("mctformer_psa", "mctformer_lpcam_psa"), (71.9, 72.6), (70.6, 72.0)),
        network="deeplab_wrn38",
    ),
    Entry((2,), "voc12", "EDAM", _SEEDS, (52.8, 54.9), ("edam", "classifier"), ("edam", "lpcam")),
    Entry((2,), "voc12", "EDAM", _PSEUDO, (68.1, 69.6), ("edam", "classifier"), ("pseudo_masks",) * 2, saliency=True),
    *_networks("voc12", "EDAM", ("edam", "classifier"), (70.9, 71.8), (71.2, 72.7)),
    Entry((2,), "coco14", "IRN", _SEEDS, (33.1, 35.8), ("classifier", "classifier"), _MAPS),
    Entry((2,), "coco14", "IRN", _PSEUDO, (42.5, 46.8), ("irn_cam", "irn_lpcam"), _MASKS),
    *_networks("coco14", "IRN", ("irn_cam", "irn_lpcam"), (42.0, 44.5), (44.0, 47.0)),
    Entry((2,), "coco14", "AMN", _SEEDS, (40.3, 42.5), ("amn_cam", "amn_lpcam"), ("amn", "amn")),
    Entry((2,), "coco14", "AMN", _PSEUDO, (46.7, 47.7), ("amn_cam_irn", "amn_lpcam_irn"), _MASKS),
    *_networks("coco14", "AMN", ("amn_cam_irn", "amn_lpcam_irn"), (44.7, 45.5), (47.1, 48.3)),
    Entry(
        *((4,), "coco14", "MCTformer", "DeepLabV2, val", (42.0, 42.8)),
        *(("mctformer_psa_deeplabv2", "mctformer_lpcam_psa_deeplabv2"), _MASKS),
    ),
)

# The thresholds of sure labels for heat maps that are not LPCAM's: of IRN and AMN.
_CAM = ("--labels.method", "cam", "--labels.foreground", "0.3", "--labels.background", "0.05")
_AMN = ("--labels.method", "amn", "--labels.foreground", "0.45", "--labels.background", "0.15")
_WALK = {
    "voc12": ("--inference.power", "1.3", "--inference.background", "0.25"),
    "coco14": ("--inference.power", "1.3", "--inference.background", "0.22"),
}


def stages_of(data: DataSet, *flags: str) -> tuple[Stage, ...]:
    """The chain behind all the entries of a data set.

    Args:
        data: the data set.
        flags: for every stage whose results others learn from, such as --split train_aug.

    Returns:
        The stages, each after those that it learns from; their recipes are those in the folder above.
    """

    def stage(name: str, recipe: str, takes: str = "", *more: str, last: bool = False) -> Stage:
        return Stage(name, f"../{data}{recipe}.py", (*more, *(() if last else flags)), takes)

    stages = [
        stage("classifier", ""),
        *([Stage("figure5", "../voc12.py", ("--seeds", "3"), "classifier", sweeps=True)] if data == "voc12" else []),
        stage("irn_cam", "_irn", "classifier", *_CAM, "--inference.background", "0.25"),
        stage("irn_lpcam", "_irn", "classifier"),
        stage("amn_cam", "_amn", "classifier", *_CAM),
        stage("amn_lpcam", "_amn", "classifier"),
        *(stage(f"{amn}_irn", "_irn", amn, *_AMN, *_WALK[data]) for amn in ("amn_cam", "amn_lpcam")),
        *([stage("edam", "_edam")] if data == "voc12" else []),
        stage("mctformer", "_mctformer"),
        *(
            stage(f"{method}_psa", "_psa", "mctformer", "--labels.method", method)
            for method in ("mctformer", "mctformer_lpcam")
        ),
    ]
    for entry in ENTRIES:
        for name in entry.stages if entry.data == data else ():
            network = _network(name)
            if network and name not in [made.name for made in stages]:
                stages.append(stage(name, f"_{network}", name.removesuffix(f"_{network}"), last=True))
    return tuple(stages)


def _network(stage: str) -> str:
    """The network that ends the name of a stage; "" if none does."""
    return next((name for name in ("deeplabv2", "deeplab_wrn38", "upernet") if stage.endswith(f"_{name}")), "")


def found(entry: Entry, results: Path) -> tuple[float | None, float | None]:
    """Our mIoU of an entry in percent, from CAM and from LPCAM; None: it was not run, or not scored.

    Args:
        entry: the entry.
        results: folder of the chain of its data set.
    """
    pairs = zip(entry.stages, entry.of, strict=True)
    cam, lpcam = (_found(results / stage, of, saliency=entry.saliency) for stage, of in pairs)
    return cam, lpcam


def errors(method: str, results: Path) -> Errors | None:
    """Our line of Table 1; None: it was not run, or not scored.

    Args:
        method: of `TABLE_1`.
        results: folder of the chain of VOC 2012.
    """
    classifier = results / "classifier"
    for folder in (classifier / "scores", classifier / "results"):
        values = [number_of(best_seeds(folder, method) or {}, name) for name in Errors._fields]
        if None not in values:
            return Errors(*(100 * value for value in values))
    return None


def sensitivity(results: Path) -> dict[str, dict[float, float]] | None:
    """Our Figure 5: by parameter, mIoU in percent of each of its values, the mean over clusterings; None: not run."""
    settings = part_of(read_object(results / "figure5" / "results" / "sweep.json"), "settings")
    found = {parameter: dict(_points(settings.get(parameter))) for parameter in FIGURE_5}
    return found if any(found.values()) else None


def _points(points: Any) -> Iterator[tuple[float, float]]:
    """Each value of a parameter that was swept, and its mIoU in percent; what is damaged is left out."""
    with suppress(KeyError, TypeError, ValueError):
        for point in points:
            miou = 100 * float(np.mean([seed["best"]["miou"] for seed in point["seeds"] or [None]]))
            yield float(point["value"]), miou


def _found(stage: Path, of: str, *, saliency: bool) -> float | None:
    if saliency and not with_saliency(stage / "results"):
        return None
    for folder in (stage / "scores", stage / "results"):  # the scores are of the pictures that the paper scores
        if (value := score(folder, of)) is not None:
            return 100 * value
    return None
