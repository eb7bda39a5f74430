"""The fully connected CRF on real pictures: the lattice beside the sum over all pairs, and beside pydensecrf.

    python -m benchmarks.crf --root data/voc_animals --maps heatmaps/maps

`--root` has the pictures, `JPEGImages/ID.jpg`; `--maps` the heat maps `ID.npz` of infer.py. The energies are those each
parameter set is made for: of seed masks at two thresholds for "irn", of the maps as probabilities for the others. The
sum over all pairs takes minutes a picture, so pictures are halved unless `--scale 1`. pydensecrf is measured where it
can be imported (pip install -e '.[bench]', needs a compiler). Prints Markdown for RESULTS.md.
"""

import argparse
import importlib.util
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from lpcam_jax import resize_bilinear, seed_mask
from lpcam_jax.refine.crf import CRF, CRFS, label_unary, mean_field, softmax_unary

THRESHOLDS = (0.25, 0.45)


class Picture(NamedTuple):
    """A picture and its heat maps, of the same size."""

    image: np.ndarray
    maps: np.ndarray


class Row(NamedTuple):
    """One picture under one parameter set; shares in percent, times in seconds."""

    lattice: float
    unrefined: float
    seconds: float
    exact_seconds: float
    peer: float = np.nan
    peer_exact: float = np.nan
    peer_seconds: float = np.nan


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a folder with JPEGImages/")
    parser.add_argument("--maps", type=Path, required=True, help="a folder of heat maps ID.npz")
    parser.add_argument("--method", default="lpcam", help="which of the maps (default lpcam)")
    parser.add_argument("--pictures", type=int, default=10, help="so many, drawn at random (default 10)")
    parser.add_argument("--scale", type=float, default=0.5, help="of the pictures (default 0.5)")
    parser.add_argument("--sets", nargs="+", choices=CRFS, default=list(CRFS), help="parameter sets (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    arguments = parser.parse_args()
    names = sorted(path.stem for path in arguments.maps.glob("*.npz"))
    drawn = [names[i] for i in np.random.default_rng(arguments.seed).permutation(len(names))[: arguments.pictures]]
    agreement(arguments, drawn)


def read(arguments: argparse.Namespace, name: str) -> Picture:
    """A picture and its maps at the scale asked for."""
    image = Image.open(arguments.root / "JPEGImages" / f"{name}.jpg").convert("RGB")
    width, height = (round(arguments.scale * side) for side in image.size)
    with np.load(arguments.maps / f"{name}.npz") as file:
        maps = file[arguments.method].transpose(1, 2, 0).astype(np.float32)
    maps = np.asarray(resize_bilinear(maps, (height, width)))
    return Picture(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)), maps)


def energies(picture: Picture, name: str) -> np.ndarray:
    """The energies (u, H, W, n) that the parameter set is made for."""
    maps = picture.maps
    if name == "irn":
        labels, n = np.ones(maps.shape[2]), maps.shape[2] + 1
        return np.stack([label_unary(seed_mask(maps, labels, background=t), n) for t in THRESHOLDS])
    scores = np.concatenate([1 - maps.max(axis=2, keepdims=True), maps], axis=2)
    return softmax_unary(scores / scores.sum(axis=2, keepdims=True))[None]


def agreement(arguments: argparse.Namespace, drawn: list[str]) -> None:
    """Every picture under every parameter set, three ways."""
    rows = {name: [] for name in arguments.sets}
    sizes = []
    for one in tqdm(drawn, desc="pictures"):
        picture = read(arguments, one)
        sizes.append(picture.image.shape[0] * picture.image.shape[1])
        for name in arguments.sets:
            rows[name].append(compare(picture, energies(picture, name), CRFS[name]))
    print(f"{len(drawn)} pictures of {np.mean(sizes):,.0f} pixels; mean (least) share of equal labels, in %:\n")
    columns = "lattice, all pairs | unrefined, all pairs | pydensecrf, all pairs | lattice, pydensecrf"
    times = "lattice, s | all pairs, s | time lattice / pydensecrf"
    print(f"| parameters | {columns} | {times} |\n|---|---|---|---|---|---|---|---|")
    for name, found in rows.items():
        table = Row(*np.transpose(found))
        shares = (table.lattice, table.unrefined, table.peer_exact, table.peer)
        cells = [f"{share.mean():.2f} ({share.min():.2f})" for share in shares]
        cells += [f"{np.median(table.seconds):.2f}", f"{np.median(table.exact_seconds):.0f}"]
        cells += [f"{np.median(table.seconds / table.peer_seconds):.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    if not has_peer():
        print("\npydensecrf cannot be imported here: nan.")


def compare(picture: Picture, unary: np.ndarray, parameters: CRF) -> Row:
    """Labels and times of the lattice, of all pairs and of pydensecrf; compilation is not counted."""
    lattice, seconds = timed(compiled(picture.image, unary, parameters, exact=False), picture.image, unary, parameters)
    exact, slow = timed(compiled(picture.image, unary, parameters, exact=True), picture.image, unary, parameters)
    row = Row(share(lattice, exact), share(-unary, exact), seconds, slow)
    if not has_peer():
        return row
    peer, peer_seconds = timed(pydensecrf, picture.image, unary, parameters)
    return row._replace(peer=share(lattice, peer), peer_exact=share(peer, exact), peer_seconds=peer_seconds)


def compiled(image: np.ndarray, unary: np.ndarray, parameters: CRF, *, exact: bool):
    """`mean_field` once its programs are compiled: they depend on the picture, too."""
    solve = partial(mean_field, exact=exact)
    solve(image, unary, parameters).block_until_ready()
    return solve


def timed(function, *arguments) -> tuple[np.ndarray, float]:
    """What it returns, and the seconds it takes."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return np.asarray(result), time.perf_counter() - start


def share(one: np.ndarray, other: np.ndarray) -> float:
    """Percent of the pixels with the same label."""
    return 100 * float(np.mean(one.argmax(axis=-1) == other.argmax(axis=-1)))


def has_peer() -> bool:
    """Whether pydensecrf can be imported."""
    return importlib.util.find_spec("pydensecrf") is not None


def pydensecrf(image: np.ndarray, unary: np.ndarray, parameters: CRF) -> np.ndarray:
    """The same by pydensecrf, which takes one unary at a time."""
    from pydensecrf.densecrf import DenseCRF2D

    results = []
    for energy in unary:
        height, width, n = energy.shape
        field = DenseCRF2D(width, height, n)
        field.setUnaryEnergy(np.array(energy.reshape(-1, n).T, order="C"))
        field.addPairwiseGaussian(sxy=parameters.gaussian_size, compat=parameters.gaussian_weight)
        size, color, weight = parameters.bilateral_size, parameters.bilateral_color, parameters.bilateral_weight
        field.addPairwiseBilateral(sxy=size, srgb=color, rgbim=np.array(image), compat=weight)
        results.append(np.array(field.inference(parameters.iterations)).T.reshape(height, width, n))
    return np.stack(results)


if __name__ == "__main__":
    main()
