"""How faithful heat maps are to their classifier: insertion, deletion, average drop, increase in confidence, ROAD.

    python -m lpcam_jax faithfulness --ckpt runs/demo --maps heatmaps/ --out scores/ --limit 2

The pictures are those of infer.py, with the same --images, --root and --split. No true masks are needed. Two rows are
baselines that explain nothing: a random map and a bright centre.

These numbers reward a map that marks what the classifier relies on most, often a small region. LPCAM covers the whole
object, including parts that the classifier would not miss, so it does not have to win here; whether maps cover objects
is measured by `python -m lpcam_jax evaluate`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..class_activation import resize_bilinear
from ..config.command_line import parse_flags
from ..data.records import RecordSource
from ..data.resizing import resize_bicubic
from ..data.sources import pictures_of
from ..machine import devices
from ..machine.errors import UserError
from ..machine.files import write_json
from ..report.table import faithfulness_table
from ..results.faithfulness import (
    Classify,
    average_drop,
    deletion,
    in_batches,
    increase_in_confidence,
    insertion,
    masked_confidence,
    road,
)
from ..results.folder import all_skipped, skipped_line
from ..results.map_folder import MapFolder
from ..results.predictions import open_maps, read_protocol

if TYPE_CHECKING:
    from ..systems.lpcam.trained_model import TrainedModel

_BATCH = 8  # divides the number of pictures of each measure at its defaults, so that little padding is computed


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classifier, maps of its pictures, and output folder."""

    ckpt: str
    """the --workdir of a run of train.py, whose classifier is explained"""
    maps: str
    """output folder of infer.py, or folder of maps (ID.npz: classes, and a float (n, H, W) array per method)"""
    out: str
    """folder for faithfulness.json"""
    methods: tuple[str, ...] = ()
    """methods to score: cam, lpcam_f, lpcam, or the names of other arrays; empty: all"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the run's own data set"""
    root: str = ""
    """current folder of the run's data set; empty: the one used for training"""
    split: str = ""
    """split of that data set, in the syntax of --data.seeds of train.py; empty: the run's --data.seeds"""
    limit: int | None = 100
    """use only the first LIMIT pictures that have maps; none: all. A picture takes a few seconds"""
    side: int = 224
    """pictures and maps are resized to a square with sides of this many pixels, so that only one shape is compiled"""
    steps: int = 23
    """number of steps of insertion and deletion (the paper's 224 take ten times as long)"""
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    """fractions of the pixels to remove for ROAD"""
    seed: int = 0
    """random seed of ROAD's noise and of the random maps"""


def main(words: list[str]) -> None:
    """Score the maps, print and write the scores.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there is no such run, there are no maps of its pictures, or a file does not match its picture.
    """
    arguments = parse_flags(Arguments, words, command="faithfulness", description=__doc__)
    _check(arguments)
    from ..systems.lpcam.trained_model import TrainedModel

    devices.start()
    model = TrainedModel.open(arguments.ckpt)
    where = {"images": arguments.images, "root": arguments.root, "split": arguments.split}
    source = pictures_of(model.config, model.class_names, **where)
    folder = open_maps(arguments.maps, arguments.methods, ids=source.ids)
    made_with = _made_with(folder, model)
    mapped = [index for index, name in enumerate(source.ids) if folder.file(name).exists()]
    skipped: list[str] = []
    scores = _score(model, source, mapped[: arguments.limit], folder, arguments, skipped)
    all_skipped(skipped, source)
    pairs = len(scores["random"])
    if not pairs:
        raise UserError(f"no picture with maps in {folder.directory} has a class: there is nothing to explain.")

    methods = {method: _summary(values) for method, values in scores.items()}
    pictures = min(len(mapped), arguments.limit or len(mapped)) - len(skipped)
    metrics = {
        "pictures": pictures,
        "pairs": pairs,
        "skipped": skipped,
        "protocol": _protocol(arguments, model, made_with),
        "scores": methods,
    }
    write_json(Path(arguments.out, "faithfulness.json"), metrics)
    print(faithfulness_table(methods))
    for line in skipped_line(skipped):
        print(line)
    print(
        f"mean of {pairs} classes in {pictures} of {len(source)} pictures; numbers and protocol are in "
        f"{Path(arguments.out, 'faithfulness.json')}."
    )


def _check(arguments: Arguments) -> None:
    for name in ("limit", "side", "steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name} is {value}; use at least 1.")
    if not arguments.fractions or not all(0 < fraction < 1 for fraction in arguments.fractions):
        raise UserError(f"--fractions {' '.join(f'{f:g}' for f in arguments.fractions)}: give some between 0 and 1.")


def _made_with(folder: MapFolder, model: "TrainedModel") -> dict[str, Any] | None:
    """The protocol that infer.py wrote with the maps; UserError if their classes differ."""
    protocol = read_protocol(folder)
    if protocol and tuple(protocol["class_names"]) != model.class_names:
        raise UserError(
            f"{folder.directory.parent} was made for the classes {', '.join(protocol['class_names'])}, the run has "
            f"{', '.join(model.class_names)}; name the run that made the maps with --ckpt."
        )
    return protocol


def _score(
    model: "TrainedModel",
    source: RecordSource,
    indices: list[int],
    folder: MapFolder,
    arguments: Arguments,
    skipped: list[str],
) -> dict[str, list[dict[str, float]]]:
    """The measures of every class of every picture, by method; lines about unreadable pictures go to `skipped`."""
    side = arguments.side
    scores: dict[str, list] = {method: [] for method in ("random", "centre", *folder.methods)}
    capacity = max(model.config.inference.batch_pixels // side**2, 1)
    classify = in_batches(model.probabilities, min(capacity, _BATCH))
    mean = np.float32(model.config.model.mean)
    mean = mean[::-1] if model.config.model.channel_order == "bgr" else mean
    centre = np.exp(-((np.linspace(-2, 2, side)[:, None] ** 2 + np.linspace(-2, 2, side) ** 2) / 2))
    for index in tqdm(indices, "faithfulness", unit="img", smoothing=0.05):
        name = source.ids[index]
        try:
            picture = resize_bicubic(source[index].image, (side, side))
        except UserError as error:
            skipped.append(str(error))
            continue
        (classes, maps), _ = folder.read(name, classes=len(model.class_names))
        squares = {
            method: np.moveaxis(resize_bilinear(np.moveaxis(stack, 0, -1), (side, side)), -1, 0)
            for method, stack in maps.items()
        }
        noise = np.random.default_rng([arguments.seed, index]).random((side, side))
        for number, target in enumerate(classes):
            class_maps = {method: squares[method][number] for method in folder.methods}
            for method, heat_map in {"random": noise, "centre": centre, **class_maps}.items():
                scores[method].append(_measures(classify, picture, heat_map, target, mean, arguments))
    return scores


def _measures(
    classify: Classify, picture: np.ndarray, map: np.ndarray, target: int, mean: np.ndarray, arguments: Arguments
) -> dict[str, float]:
    """All measures of one map; deletion and the confidence after masking use the mean colour for removed pixels."""
    before, after = masked_confidence(classify, picture, map, target, baseline=mean)
    return {
        "insertion": insertion(classify, picture, map, target, steps=arguments.steps).auc,
        "deletion": deletion(classify, picture, map, target, steps=arguments.steps, baseline=mean).auc,
        "before": before,
        "after": after,
        "road": road(classify, picture, map, target, fractions=arguments.fractions, seed=arguments.seed).score,
    }


def _summary(values: list[dict[str, float]]) -> dict[str, float]:
    """Means over all pairs of picture and class, as fractions."""
    columns = {name: np.array([measures[name] for measures in values]) for name in values[0]}
    return {
        "insertion": float(columns["insertion"].mean()),
        "deletion": float(columns["deletion"].mean()),
        "average_drop": average_drop(columns["before"], columns["after"]),
        "increase": increase_in_confidence(columns["before"], columns["after"]),
        "road": float(columns["road"].mean()),
    }


def _protocol(arguments: Arguments, model: "TrainedModel", made_with: dict[str, Any] | None) -> dict[str, Any]:
    """Everything the numbers depend on, as plain JSON values."""
    return {
        "version": __version__,
        "ckpt": arguments.ckpt,
        "maps": arguments.maps,
        "images": arguments.images,
        "split": arguments.split or model.config.data.seeds,
        "limit": arguments.limit,
        "class_names": list(model.class_names),
        "probability": "sigmoid of the logit of the whole square, no mirror image",
        "side": arguments.side,
        "steps": arguments.steps,
        "insertion_from": "blurred picture, sigma 5",
        "deletion_to": "mean colour",
        "dimmed_to": "mean colour",
        "road_fractions": list(arguments.fractions),
        "road_noise": 0.01,
        "seed": arguments.seed,
        "made_with": made_with,
    }
