"""One table, one row a method: seeds of one classifier, over several clusterings, and what refinement makes of them.

    python -m benchmarks.methods configs/voc_animals_plus.py --amn configs/voc_animals_amn.py \
        --walks configs/voc_animals_irn.py --saliency u2netp.onnx --clusterings 3 --workdir runs/methods \
        -- --data.root DIR --model.weights thin_resnet50.npz

The classifier is trained once, with seed 0; the prototypes, LPCAM-T's directions, the heat maps and every refinement,
affinity networks (--walks) included, are made anew for each clustering seed, and a row is their mean and standard
deviation; CAM's is of one. AMN, which takes longest, is trained from the heat maps of each method in --amn-from, for
the first --networks of them. How seeds are refined is said in `benchmarks.pseudo_masks`. What follows -- goes to
train.py. Prints Markdown for RESULTS.md; a stopped comparison goes on, and one with more clusterings keeps what is
there.
"""

import argparse
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lpcam_jax.config.registry import title
from lpcam_jax.report.sweep import spread
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes, save_prototypes
from lpcam_jax.training.run import Run

from .pseudo_masks import Refinement, refined
from .segmentation import parsed, run, scores_in

STEPS = "5"  # of LPCAM-A
# Whose maps are compared, and may be what AMN learns from: the name, and the method in the files.
ROWS = {
    "cam": ("CAM", "cam"),
    "lpcam_f": ("LPCAM-F", "lpcam_f"),
    "lpcam": ("LPCAM", "lpcam"),
    "taught": ("LPCAM-T", "taught"),
    "taught_affinity": ("LPCAM-A of LPCAM-T", "affinity"),
    "affinity": ("LPCAM-A", "affinity"),
}
AMN_FROM = ["lpcam", "taught", "affinity", "taught_affinity"]


class Maps(NamedTuple):
    """Heat maps of one method, of one clustering."""

    row: str
    method: str
    folder: Path


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="of a classifier with LPCAM-T")
    parser.add_argument("--workdir", required=True, help="where runs, maps and masks are kept")
    parser.add_argument("--clusterings", type=int, default=3, help="how many, with seeds 0, 1, ...")
    parser.add_argument("--amn", default="", help="recipe of AMN, for its rows")
    parser.add_argument("--amn-from", nargs="+", choices=ROWS, default=AMN_FROM, help="whose heat maps it learns from")
    parser.add_argument("--walks", nargs="*", default=[], help="recipes of affinity networks")
    parser.add_argument("--networks", type=int, default=1, help="of how many clusterings AMN is trained")
    parser.add_argument("--saliency", default="", help="saliency maps, or a U2-Net's weights, for EDAM's rule")
    arguments, more = parsed(parser)
    rows = defaultdict(list)
    for seed in range(arguments.clusterings):
        folder = Path(arguments.workdir, str(seed))
        classifier = clustered(arguments.recipe, folder, Path(arguments.workdir, "0"), seed, more)
        amn_from = arguments.amn_from if arguments.amn and seed < arguments.networks else []
        how = Refinement(classifier, arguments.walks, arguments.saliency, more=more)
        for maps in made(classifier, folder, arguments.amn, amn_from, more):
            if seed and maps.method == "cam":  # which knows no clusters
                continue
            best = scores_in(maps.folder)["scores"][maps.method]["best"]
            rows[maps.row].append(refined(maps.method, maps.folder, best, Path(f"{maps.folder}_refined"), how))
    metrics = scores_in(Path(arguments.workdir, "0", "maps"))
    report(rows, metrics["scored"], ["background", *metrics["protocol"]["class_names"]])


def clustered(recipe: str, folder: Path, first: Path, seed: int, more: list[str]) -> Path:
    """The run with the classifier of the first seed, and prototypes of this one."""
    directory = folder / "run"
    if not directory.exists() and folder != first:
        trained = Run.open(first / "run")
        shutil.copytree(trained.checkpoints, directory / "checkpoints")
        text = json.loads((trained.directory / "config.json").read_text())
        text["config"]["seed"] = seed  # which decides the sample and the start of k-means; the training is over
        (directory / "config.json").write_text(json.dumps(text))
    run("train.py", recipe, "--workdir", directory, "--seed", seed, *more)
    return directory


def made(classifier: Path, folder: Path, amn: str, amn_from: list[str], more: list[str]) -> Iterator[Maps]:
    """Heat maps of all methods, each as soon as it is there."""
    plain = ("--pages", "none", "--refine", "none")
    maps, untaught = folder / "maps", folder / "untaught_maps"
    run("infer.py", "--ckpt", classifier, "--out", maps, "--inference.affinity", STEPS, *plain)
    yield from (Maps(name, method, maps) for row, (name, method) in ROWS.items() if row != "affinity")
    copy = without_teacher(classifier, folder / "untaught")
    run("infer.py", "--ckpt", copy, "--out", untaught, "--inference.affinity", STEPS, *plain)
    yield Maps(*ROWS["affinity"], untaught)
    for row in amn_from:
        (name, method), source = ROWS[row], untaught if row == "affinity" else maps
        network, better = folder / f"amn_{row}", folder / f"amn_{row}_maps"
        run("train.py", amn, "--data.maps", source, "--labels.method", method, "--workdir", network, *more)
        run("infer.py", "--ckpt", network, "--maps", source, "--out", better, *plain)
        yield Maps(f"AMN of {name}", "amn", better)


def without_teacher(classifier: Path, directory: Path) -> Path:
    """The run as if its directions had not been taught: the same prototypes, from which LPCAM-A makes another map."""
    shutil.copytree(classifier, directory, dirs_exist_ok=True)
    copied = Run.open(directory)
    save_prototypes(copied, load_prototypes(copied)._replace(taught=None), step=copied.steps()[-1])
    return directory


def report(rows: dict[str, list[dict[str, dict]]], pictures: int, classes: list[str]) -> None:
    """Print the Markdown: the table, and the IoU of every class behind it."""
    steps = list(next(iter(rows.values()))[0])
    print(f"\n| mIoU of {pictures} pictures | clusterings | {' | '.join(title(step) for step in steps)} |")
    print(f"|---|---|{'---|' * len(steps)}")
    for name, runs in rows.items():
        cells = [spread([one[step]["miou"] for one in runs if step in one]) for step in steps]
        print(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    print(f"\n| IoU | {' | '.join(classes)} | FP | FN |\n|{'---|' * (3 + len(classes))}")
    for name, runs in rows.items():
        for step in steps:
            values = [(*one[step]["iou"], one[step]["fp"], one[step]["fn"]) for one in runs if step in one]
            means = [f"{100 * sum(of) / len(of):.1f}" for of in zip(*values, strict=True)]
            print(f"| {name}, {title(step)} | {' | '.join(means)} |")
    print("\nmIoU with the background, 255 ignored, mean and standard deviation of the clusterings; thresholds are the")
    print("best on these pictures for each, for the CRF of two; no CRF after a random walk.")


if __name__ == "__main__":
    main()
