"""Time and memory of IRN's random walk on pictures of 256 to 1024 pixels, and of the dense matrix in its place.

    python -m benchmarks.random_walk

Random maps of three classes and random edges at stride 4, each walk in a process of its own. Of the package's walk:
the median seconds after compilation, and how much it adds to the peak of the process's memory (ru_maxrss), compilation
included. Of the dense matrix, squared eight times, as IRN does it, here by XLA too and in float32: the same of one walk
at 256 pixels; beyond, the memory of the two matrices that squaring needs, by formula. Prints Markdown for RESULTS.md.
"""

import resource
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES = (256, 384, 512, 768, 1024)
CLASSES, STRIDE, RADIUS, BETA, DOUBLINGS = 3, 4, 5, 10, 8


def main() -> None:
    """Start a process for each size and kind of walk, and print the table."""
    if len(sys.argv) == 4 and sys.argv[1] == "--one":
        print(*measure(*KINDS[sys.argv[2]], int(sys.argv[3]) // STRIDE))
        return
    print("| picture | walk, s | memory, MB | dense matrix, s | memory, MB | dense / walk: time | memory |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for size in SIZES:
        seconds, peak = in_a_process("stencil", size)
        row = f"| {size} x {size} | {seconds:.3f} | {peak:,.0f} | "
        if size == SIZES[0]:
            dense_seconds, dense_peak = in_a_process("dense", size)
            row += (
                f"{dense_seconds:.1f} | {dense_peak:,.0f} | {dense_seconds / seconds:,.0f} | {dense_peak / peak:,.0f} |"
            )
        else:
            formula = 2 * 4 * (size // STRIDE) ** 4 / 2**20
            row += f"| {formula:,.0f} (formula) | | {formula / peak:,.0f} |"
        print(row, flush=True)


def in_a_process(kind: str, size: int) -> tuple[float, float]:
    """Seconds, and megabytes more than before, of a walk in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.random_walk", "--one", kind, str(size)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = map(float, output.splitlines()[-1].split())
    return seconds, peak


def measure(make, repetitions: int, grid: int) -> tuple[float, float]:
    """Median seconds of a walk, and megabytes that its process needs more than before."""
    random = np.random.default_rng(0)
    maps, edges = random.random((grid, grid, CLASSES), np.float32), random.random((grid, grid), np.float32) ** 3
    walk = make()
    before, seconds = peak_memory(), []
    for _ in range(repetitions):
        start = time.perf_counter()
        walk(maps, edges)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_memory() - before


def peak_memory() -> float:
    """Of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stencil():
    """The package's walk, with JAX started."""
    import jax

    from lpcam_jax.refine.random_walk import random_walk

    jax.numpy.zeros(1).block_until_ready()
    return lambda maps, edges: random_walk(maps, edges).block_until_ready()


def dense():
    """T as a matrix, squared; its affinities come from the package, their making is little beside the squaring."""
    import jax

    from lpcam_jax.refine.paths import affinity, reach, search_paths

    paths = search_paths(RADIUS)
    r = reach(paths)
    square = jax.jit(lambda matrix: jax.numpy.matmul(matrix, matrix, precision="highest"))

    def walk(maps, edges):
        h, w = edges.shape
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

    return walk


KINDS = {"stencil": (stencil, 9), "dense": (dense, 1)}  # and how often: of nine, the median is no compilation

if __name__ == "__main__":
    main()
