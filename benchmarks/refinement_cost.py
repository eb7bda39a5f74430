"""Time and memory of IRN's random walk, of the CRF and of PAR, on pictures of 256 to 1024 pixels.

    python -m benchmarks.refinement_cost --picture photograph.jpg

Each size in a process of its own: seconds of the median after compilation, and by how much its peak memory (ru_maxrss)
grows, compilation included. The walk: random maps of three classes and random edges at stride 4; beside it the dense
matrix, as IRN has it, T squared eight times, at 256 pixels; beyond, the memory of the two matrices that squaring needs.
The CRF: three labels, IRN's parameters, on the picture resized; without one, on a drawn scene. PAR: random maps of
three classes on that picture, as `--refine par` does it, at half its size. Prints Markdown for RESULTS.md and draws
docs/refinement_cost.png.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZES = (256, 384, 512, 768, 1024)
CLASSES, STRIDE, RADIUS, BETA, DOUBLINGS = 3, 4, 5, 10, 8
PLOT = Path(__file__).parents[1] / "docs" / "refinement_cost.png"


def main() -> None:
    """Start a process for each size and kind, print the table, draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", default="", help="a photograph for CRF and PAR")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*measure(arguments.one[0], int(arguments.one[1]), arguments.picture))
        return
    costs = {kind: [in_a_process(kind, size) for size in SIZES] for kind in ("walk", "crf", "par")}
    dense_seconds, dense_memory = in_a_process("dense", SIZES[0])
    print(f"| picture | {' | '.join(f'{name}, s | memory, MiB' for name in ('walk', 'dense matrix', 'CRF', 'PAR'))} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size, walk, *others in zip(SIZES, *costs.values(), strict=True):
        needed = f"{2 * 4 * (size // STRIDE) ** 4 / 2**20:,.0f} (two matrices)"
        dense = f"{dense_seconds:.1f} | {dense_memory:,.0f}" if size == SIZES[0] else f"| {needed}"
        cells = [f"{seconds:.2f} | {memory:,.0f}" for seconds, memory in others]
        print(f"| {size} x {size} | {walk[0]:.3f} | {walk[1]:,.0f} | {dense} | {' | '.join(cells)} |")
    draw(costs)


def in_a_process(kind: str, size: int) -> tuple[float, float]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.refinement_cost", *sys.argv[1:], "--one", kind, str(size)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = map(float, output.splitlines()[-1].split())
    return seconds, peak


def measure(kind: str, size: int, picture: str) -> tuple[float, float]:
    """Median seconds, and mebibytes that its process needs more than before."""
    make, repetitions = KINDS[kind]
    work = make(size, picture)
    before = peak_memory()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_memory() - before


def peak_memory() -> float:
    """Of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def draw(costs: dict[str, list[tuple[float, float]]]) -> None:
    """Time and memory against the pixels of the picture."""
    from matplotlib.figure import Figure

    names = {"walk": "random walk", "crf": "dense CRF", "par": "PAR"}
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, column, unit in zip(figure.subplots(1, 2), (0, 1), ("seconds", "MiB"), strict=True):
        for kind, found in costs.items():
            axes.plot([size**2 / 1e6 for size in SIZES], [one[column] for one in found], "o-", label=names[kind])
        axes.set(xlabel="megapixels", ylabel=unit, ylim=(0, None), xlim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(PLOT, dpi=110)


def walk(size: int, _: str):
    """The package's walk, with JAX started."""
    import jax

    from lpcam_jax.refine.random_walk import random_walk

    jax.numpy.zeros(1).block_until_ready()
    maps, edges = drawn(size)
    return lambda: random_walk(maps, edges).block_until_ready()


def crf(size: int, picture: str):
    """The package's CRF, with JAX started."""
    from lpcam_jax.refine.crf import CRFS, mean_field

    image = resized(size, picture)
    unary = np.random.default_rng(0).random((size, size, CLASSES), np.float32)
    return lambda: mean_field(image, unary, CRFS["irn"]).block_until_ready()


def par(size: int, picture: str):
    """The package's pixel-adaptive refinement, with JAX started."""
    from lpcam_jax.refine.pictures import adapted_maps

    image, maps = resized(size, picture), np.random.default_rng(0).random((CLASSES, size, size), np.float32)
    return lambda: adapted_maps(image, maps)


def resized(size: int, picture: str) -> np.ndarray:
    """The photograph, or a scene, as a square: uint8 (size, size, 3)."""
    import jax

    from lpcam_jax.data.pictures import read_picture
    from lpcam_jax.data.resizing import resize_bicubic
    from lpcam_jax.data.shapes import Shapes

    jax.numpy.zeros(1).block_until_ready()
    return resize_bicubic(read_picture(picture) if picture else Shapes(1)[0].image, (size, size))


def drawn(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random maps and edges at stride 4."""
    random, grid = np.random.default_rng(0), size // STRIDE
    return random.random((grid, grid, CLASSES), np.float32), random.random((grid, grid), np.float32) ** 3


def dense(size: int, _: str):
    """T as a matrix, squared; its affinities come from the package, their making is little beside the squaring."""
    import jax

    from lpcam_jax.refine.paths import affinity, reach, search_paths

    paths = search_paths(RADIUS)
    r = reach(paths)
    square = jax.jit(lambda matrix: jax.numpy.matmul(matrix, matrix, precision="highest"))

    maps, edges = drawn(size)
    h, w = edges.shape

    def work():
        planes = np.asarray(affinity(np.pad(edges, ((0, r), (r, r)), constant_values=1), paths)) ** BETA
        matrix = np.eye(h * w, dtype=np.float32)
        rows, columns = np.indices((h, w))
        for plane, ((y, x), _) in zip(planes, paths, strict=True):
            inside = (rows + y < h) & (columns + x >= 0) & (columns + x < w)
            i = (rows * w + columns)[inside]
            j = i + y * w + x
            matrix[i, j] = matrix[j, i] = plane[inside]
        matrix /= matrix.sum(axis=0)
        for _ in range(DOUBLINGS):
            matrix = square(matrix)
        weak = (maps * (1 - edges)[..., None]).reshape(h * w, -1)
        return (weak.T @ np.asarray(matrix)).T.reshape(maps.shape)

    return work


# And how often: the median is no compilation.
KINDS = {"walk": (walk, 9), "crf": (crf, 5), "par": (par, 5), "dense": (dense, 1)}

if __name__ == "__main__":
    main()
