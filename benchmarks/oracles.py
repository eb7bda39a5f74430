"""What limits seeds: the same heat maps with one thing known, and with regions of pixels that share their evidence.

    python -m benchmarks.oracles --ckpt runs/voc_animals_plus --maps heatmaps/ --methods lpcam affinity

heatmaps/ is what infer.py made of labelled pictures with masks. Known are, one at a time, from the true masks:

    background   every pixel of an object is one of the picture's classes, whichever is strongest there; no other is
    class        an object's pixel has the class it has, if any class is above the threshold there
    affinity     all pixels of one true class share their evidence, as if everything that is alike had been found
    regions      the same in every connected part of it

and, without the truth, superpixels share their evidence: SLIC's, about --superpixels in a picture (needs scikit-image).
Every row is cut at the threshold that is best for it. Prints Markdown for SEEDS.md.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from lpcam_jax.config.registry import title
from lpcam_jax.data.records import Record
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.threads import map_ahead
from lpcam_jax.results.counts import SeedScoring
from lpcam_jax.results.map_folder import MapFolder
from lpcam_jax.seeds import IGNORE
from lpcam_jax.training.run import Run

# (maps, classes, record) -> maps
Oracle = Callable[[np.ndarray, np.ndarray, Record], np.ndarray]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the run behind the maps, whose data set has masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--maps", required=True, help="the folder of infer.py")
    parser.add_argument("--methods", nargs="+", default=["lpcam"], help="whose maps (default lpcam)")
    parser.add_argument("--superpixels", nargs="*", type=int, default=[], metavar="N", help="about how many a picture")
    arguments = parser.parse_args()
    run = Run.open(arguments.ckpt)
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    source = seed_source(dataclasses.replace(run.config, data=data))
    oracles: dict[str, Oracle] = {"as they are": lambda maps, classes, record: maps}
    oracles |= {"background known": with_background, "class known": with_class}
    oracles |= {"affinity known": with_affinity, "regions known": with_regions}
    oracles |= {f"{count:,} superpixels": partial(with_superpixels, count=count) for count in arguments.superpixels}
    folder = MapFolder(Path(arguments.maps, "maps"), arguments.methods)
    scorings = {(method, name): SeedScoring(len(run.class_names)) for method in folder.methods for name in oracles}

    def read(index: int) -> Iterator[tuple[tuple[str, str], np.ndarray, np.ndarray, np.ndarray]]:
        record = source[index]
        (classes, by_method), _ = folder.read(record.id, classes=len(run.class_names))
        return [
            ((method, name), oracle(maps, classes, record), classes, record.mask)
            for method, maps in by_method.items()
            for name, oracle in oracles.items()
        ]

    for rows in tqdm(map_ahead(read, range(len(source))), total=len(source), unit="img"):
        for key, maps, classes, truth in rows:
            scorings[key].add(np.moveaxis(maps, 0, -1), classes, truth)
    print(f"\n| {len(source)} pictures | mIoU | at | background | {' | '.join(run.class_names)} | FP | FN |")
    print(f"|---|---:|---:|---:|{'---:|' * (len(run.class_names) + 2)}")
    for (method, name), scoring in scorings.items():
        best = scoring.report()["best"]
        cells = [f"{100 * value:.1f}" for value in (*best["iou"], best["fp"], best["fn"])]
        row = [f"{title(method)}, {name}", f"{100 * best['miou']:.1f}", f"{best['threshold']:g}", *cells]
        print(f"| {' | '.join(row)} |")


def with_background(maps: np.ndarray, classes: np.ndarray, record: Record) -> np.ndarray:
    """Maps (n, H, W) that are 0 on the background, and above every threshold on objects."""
    return np.where((record.mask > 0) & (record.mask < IGNORE), 2 + maps, 0)


def with_class(maps: np.ndarray, classes: np.ndarray, record: Record) -> np.ndarray:
    """The strongest of the maps, given to the true class where there is one."""
    is_class = record.mask[None] == 1 + classes[:, None, None]
    return np.where(is_class.any(axis=0), np.where(is_class, maps.max(axis=0), 0), maps)


def with_affinity(maps: np.ndarray, classes: np.ndarray, record: Record) -> np.ndarray:
    """The mean of each map over each true class; what is ignored keeps its own."""
    return shared(maps, np.where(record.mask == IGNORE, 0, 1 + record.mask.astype(int)))


def with_regions(maps: np.ndarray, classes: np.ndarray, record: Record) -> np.ndarray:
    """The mean of each map over each connected part of a true class."""
    regions, count = np.zeros(record.mask.shape, int), 0
    for value in np.unique(record.mask[record.mask != IGNORE]):
        parts, found = ndimage.label(record.mask == value)
        regions[parts > 0] = parts[parts > 0] + count
        count += found
    return shared(maps, regions)


def with_superpixels(maps: np.ndarray, classes: np.ndarray, record: Record, *, count: int) -> np.ndarray:
    """The mean of each map over each superpixel."""
    from skimage.segmentation import slic

    return shared(maps, slic(record.image, n_segments=count, start_label=1))


def shared(maps: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The mean of each map over each region, and where the region is 0 the map itself; each map's maximum stays.

    Args:
        maps: float (n, H, W).
        regions: int (H, W).
    """
    flat = regions.reshape(-1)
    counts = np.maximum(np.bincount(flat), 1)
    means = [(np.bincount(flat, one.reshape(-1)) / counts)[regions] for one in maps]
    means = np.where(regions > 0, np.stack(means), maps) if len(maps) else maps
    tops, before = (one.max(axis=(1, 2), keepdims=True, initial=0) for one in (means, maps))
    return means * before / np.where(tops > 0, tops, 1)


if __name__ == "__main__":
    main()
