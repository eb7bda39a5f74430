"""What refinement makes of seeds: CRF and IRN, for CAM, for LPCAM, or for any other maps (--methods taught).

    python -m benchmarks.pseudo_masks configs/voc_animals_irn.py --ckpt runs/voc_animals --maps heatmaps/ \
        --workdir runs/refined -- --data.root DIR --model.weights thin_resnet50.npz

heatmaps/ is what infer.py made of labelled pictures with masks, --ckpt the classifier behind it. Seeds are cut at the
threshold that is best on these pictures, and so are the maps after the random walk; the CRF starts from seeds at that
threshold, and from larger ones at 0.6 of it, as it shrinks them, and the better counts. An IRNet is trained for each
method, from labels that two thresholds around the seed's agree on (--sure). What follows -- goes to train.py. Prints
Markdown for RESULTS.md; a stopped comparison goes on.
"""

import argparse
import json
import sys
from pathlib import Path

from lpcam_jax.config.registry import title

from .segmentation import run

LARGER = 0.6


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe of IRNet")
    parser.add_argument("--ckpt", required=True, help="the classifier behind the heat maps")
    parser.add_argument("--maps", required=True, help="its heat maps, with scores")
    parser.add_argument("--workdir", required=True, help="where runs and masks are kept")
    parser.add_argument("--sure", nargs=2, type=float, default=(0.07, 0.15), metavar=("BELOW", "ABOVE"))
    parser.add_argument("--methods", nargs="+", default=["cam", "lpcam"], help="whose maps (default cam lpcam)")
    words = sys.argv[1:]
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = parser.parse_args(own)
    seeds = json.loads(Path(arguments.maps, "metrics.json").read_text())
    rows = {method: refined(method, seeds["scores"][method]["best"], arguments, more) for method in arguments.methods}
    report(rows, seeds["scored"])


def refined(method: str, seed: dict, arguments: argparse.Namespace, more: list[str]) -> dict[str, dict]:
    """The scores of a method's seeds, of these after the CRF, and of its maps after the random walk."""
    workdir, threshold = Path(arguments.workdir), seed["threshold"]
    irn, masks = workdir / f"{method}_irn", workdir / f"{method}_irn_masks"
    below, above = arguments.sure
    sure = {"background": max(threshold - below, 0.01), "foreground": min(threshold + above, 0.99)}
    labels = [word for name, value in sure.items() for word in (f"--labels.{name}", f"{value:.2f}")]
    crf = [after_crf(method, round(factor * threshold, 2), arguments) for factor in (1, LARGER)]
    run(
        *("train.py", arguments.recipe, "--data.maps", arguments.maps, "--labels.method", method, *labels),
        *("--workdir", irn, *more),
    )
    run("infer.py", "--ckpt", irn, "--maps", arguments.maps, "--out", masks)
    walked = json.loads((masks / "metrics.json").read_text())["maps"]["scores"]["irn"]["best"]
    return {"seed": seed, "CRF": max(crf, key=lambda one: one["miou"]), "IRN": walked}


def after_crf(method: str, threshold: float, arguments: argparse.Namespace) -> dict:
    """The scores of a method's seeds at a threshold, after the CRF."""
    out = Path(arguments.workdir, f"{method}_crf_{threshold:g}")
    cut = ("--method", method, "--background", threshold)
    run("-m", "lpcam_jax", "refine", "--ckpt", arguments.ckpt, "--maps", arguments.maps, "--out", out, *cut)
    return json.loads((out / "metrics.json").read_text())["scores"] | {"threshold": threshold}


def report(rows: dict[str, dict[str, dict]], pictures: int) -> None:
    """Print the Markdown."""
    steps = list(next(iter(rows.values())))
    print(f"\n| mIoU of {pictures} pictures | {' | '.join(steps)} |\n|{'---|' * (1 + len(steps))}")
    for method, row in rows.items():
        cells = [f"{100 * one['miou']:.1f} (threshold {one['threshold']:g})" for one in row.values()]
        print(f"| {title(method)} | {' | '.join(cells)} |")
    print("\nmIoU with the background, 255 ignored; thresholds are the best on these pictures, for the CRF of two;")
    print("no CRF after the random walk.")


if __name__ == "__main__":
    main()
