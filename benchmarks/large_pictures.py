"""Photographs of many megapixels: maps of enlarged pictures, shrunk for the network (--data.longest) and not.

    python -m benchmarks.large_pictures --ckpt runs/voc_animals_plus --every 20

Enlarging adds no detail, so what differs is how large objects are to the network. Prints Markdown for RESULTS.md.
"""

import argparse
import dataclasses
import time
from functools import partial

import numpy as np

from lpcam_jax.data.records import RecordSource, Subset
from lpcam_jax.data.resizing import Resized, scaled_size
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine import devices as machine
from lpcam_jax.machine.errors import UserError
from lpcam_jax.results.counts import SeedScoring
from lpcam_jax.systems.lpcam.maps import map_pictures
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import inference_network, network_of, trained_state

METHODS = {"cam": "CAM", "lpcam": "LPCAM"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="a classifier, on a data set with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--factor", type=int, default=3, help="of the enlarged pictures' sides (default 3)")
    parser.add_argument("--every", type=int, default=1, help="take each n-th picture (default: all)")
    arguments = parser.parse_args()
    machine.remember_compilations()
    run, mesh = Run.open(arguments.ckpt), machine.mesh()
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    source = seed_source(dataclasses.replace(run.config, data=data))
    source = Subset(source, range(0, len(source), arguments.every))
    longest, large = run.config.data.longest, Resized(source, partial(scaled_size, scale=arguments.factor))
    rows = {
        "as they are": (source, None),
        f"{arguments.factor} times as large, shrunk to {longest} pixels": (large, longest),
        f"{arguments.factor} times as large, as they are": (large, None),
    }
    print(f"\n| {len(source)} pictures | CAM | LPCAM | seconds a picture |\n|---|---:|---:|---:|", flush=True)
    for name, (pictures, most) in rows.items():
        scores, seconds = scores_of(run, pictures, most, mesh)
        print(f"| {name} | {' | '.join(scores)} | {seconds:.1f} |", flush=True)
    print("\nmIoU of the seeds at the best threshold; the time includes compiling.")


def scores_of(run: Run, source: RecordSource, longest: int | None, mesh) -> tuple[list[str], float]:
    """The mIoU of each method, with its threshold, and the seconds of a picture."""
    classes, config, began = len(run.class_names), run.config, time.monotonic()
    network = inference_network(config, trained_state(run, devices=mesh), classes, devices=mesh)
    stride = network_of(config, classes).backbone.strides[-1]
    scorings = {method: SeedScoring(classes) for method in METHODS}
    options = {"stride": stride, "inference": config.inference}
    for _, record, maps in map_pictures(network._replace(longest=longest), load_prototypes(run), source, **options):
        if isinstance(record, UserError):
            raise record
        for method, scoring in scorings.items():
            scoring.add(np.moveaxis(maps.maps[method], 0, -1), maps.classes, record.mask)
    best = [scoring.report()["best"] for scoring in scorings.values()]
    scores = [f"{100 * one['miou']:.1f} (at {one['threshold']:g})" for one in best]
    return scores, (time.monotonic() - began) / len(source)


if __name__ == "__main__":
    main()
