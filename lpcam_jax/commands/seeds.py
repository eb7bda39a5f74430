"""Seed masks from a folder of heat maps, for any method and threshold, as palette PNGs to look at or to train on.

    python -m lpcam_jax seeds --maps heatmaps/ --out seeds/
    python -m lpcam_jax seeds --maps heatmaps/ --method cam --threshold best --out seeds_cam/
    python -m lpcam_jax seeds --maps heatmaps/ --threshold otsu --out seeds_otsu/
    python -m lpcam_jax seeds --maps heatmaps/ --unsure 0.25 0.45 --out seeds_sure/

The folder was written by infer.py, or holds maps in the same format (ID.npz).
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ..config.command_line import parse_flags
from ..data.findings import shown
from ..data.masks import MAX_CLASSES, expect_numbered
from ..machine.errors import UserError
from ..machine.files import write_atomically
from ..report.palette import mask_png
from ..results.apart import keep_apart, whole_folder
from ..results.folder import ResultFolder
from ..results.map_folder import MapFolder
from ..results.predictions import ids_in, open_method, read_protocol
from ..seeds import confident_labels, otsu_threshold, seed_mask, with_class_values


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Maps, threshold, and output folder."""

    maps: str
    """output folder of infer.py, or folder of maps (ID.npz: classes, and a float (n, H, W) array per method)"""
    out: str
    """folder for the masks, ID.png: 0 background, n + 1 class n, 255 unsure"""
    method: str = ""
    """method of the maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another array;
    empty: the last in each file"""
    threshold: float | Literal["best", "otsu"] = 0.3
    """pixels where no map is above this are background. best: the threshold with the highest mIoU, if infer.py scored
    the maps; otsu: Otsu's threshold of each map, which separates low from high values (no true masks needed)"""
    unsure: tuple[float, float] | None = None
    """replaces --threshold by two thresholds: background up to the first, a class above the second, 255 in between"""


def main(words: list[str]) -> None:
    """Cut the seeds and write the masks.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such maps, or the masks cannot be written, or would be among the maps.
    """
    arguments = parse_flags(Arguments, words, command="seeds", description=__doc__)
    folder, out = open_method(arguments.maps, arguments.method), Path(arguments.out)
    [method] = folder.methods
    keep_apart(out, whole_folder(folder.directory))
    names = ids_in(folder.directory, "npz")
    _expect_numbered(folder, names)
    rule, mask_of = _rule(arguments, method, folder.directory.parent)
    # What they are made from, before the first: those of another rule would not be told from them. And a mark, that
    # these masks are never taken for pictures of a data set.
    protocol = {"maps": read_protocol(folder) or Path(arguments.maps).name, "method": method, "rule": rule}
    _expect_free(out, names)
    ResultFolder(out, protocol, what="seed masks")

    def write(name: str) -> None:
        (classes, maps), size = folder.read(name, classes=MAX_CLASSES)
        write_atomically(out / f"{name}.png", mask_png(_mask(maps[method], classes, size, mask_of)))

    with ThreadPoolExecutor(4) as pool:
        for _ in tqdm(pool.map(write, names), "seeds", len(names), unit="img"):
            pass
    print(f"{len(names)} seed masks of {method}, {rule}, are in {arguments.out}.")


def _expect_free(out: Path, names: Sequence[str]) -> None:
    """UserError where a folder without a protocol holds files of the names of masks: those are somebody else's."""
    taken = next((name for name in names if os.path.lexists(out / f"{name}.png")), None)
    if taken is not None and not (out / "protocol.json").exists():
        raise UserError(
            f"{shown(out)} holds files that are not of this program ({shown(taken)}.png is one); choose another --out."
        )


def _expect_numbered(folder: MapFolder, names: Sequence[str]) -> None:
    """UserError when the classes are more than masks can number, by the protocol of infer.py, or by the maps."""
    if protocol := read_protocol(folder):
        count = len(protocol["class_names"])
    else:
        most = np.iinfo(np.int32).max
        count = max((int(folder.read_classes(name, classes=most).max(initial=-1)) + 1 for name in names), default=0)
    expect_numbered(count, "seed masks", "use the maps themselves, or maps of fewer classes")


def _rule(
    arguments: Arguments, method: str, directory: Path
) -> tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """The thresholds in words, and the function from maps (H, W, n) and labels (n,) to a mask."""
    if arguments.unsure is None and arguments.threshold == "otsu":
        return "each above its Otsu threshold", _above_otsu
    low, high = arguments.unsure or (_threshold(arguments, method, directory),) * 2
    if not 0 <= low <= high <= 1:
        raise UserError(f"the thresholds {low:g} and {high:g} are not in order between 0 and 1.")
    if low == high:
        return f"at {low:g}", partial(seed_mask, background=low)
    return f"unsure from {low:g} to {high:g}", partial(confident_labels, foreground=high, background=low)


def _above_otsu(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mask of the class with the highest map, among those whose map is above its own Otsu threshold."""
    return seed_mask(np.where(maps > otsu_threshold(maps), maps, 0), labels, background=0)


def _threshold(arguments: Arguments, method: str, directory: Path) -> float:
    if arguments.threshold != "best":
        return arguments.threshold
    file = directory / "metrics.json"
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))["scores"]
        return float(scores[method]["best"]["threshold"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--threshold best: {file} has no scores of {method}; give a number, or run infer.py on pictures "
            "with masks."
        ) from None


def _mask(maps: np.ndarray, classes: np.ndarray, size: tuple[int, int], mask_of: Callable) -> np.ndarray:
    """The mask uint8 (H, W) cut from maps (n, H, W)."""
    if not len(classes):
        return np.zeros(size, np.uint8)
    return with_class_values(mask_of(np.moveaxis(maps, 0, -1), np.ones(len(classes))), classes)
