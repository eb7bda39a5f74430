"""What refinement makes of seeds: CRF, PAR, EDAM's rule and affinity networks, for CAM, LPCAM and any other maps.

    python -m benchmarks.pseudo_masks configs/voc_animals_irn.py --ckpt runs/voc_animals --maps heatmaps/ \
        --workdir runs/refined -- --data.root DIR --model.weights thin_resnet50.npz
    python -m benchmarks.pseudo_masks configs/voc_animals_irn.py configs/voc_animals_psa.py --ckpt runs/voc_animals \
        --maps heatmaps/ heatmaps_amn/ --methods cam lpcam amn --saliency u2netp.onnx --workdir runs/refined -- ...

heatmaps/ is what infer.py made of labelled pictures with masks, --ckpt the classifier behind it; a method's maps are
those of the first folder that has them. Seeds are cut at the threshold that is best on these pictures, and so are the
maps after IRN's random walk; PAR's maps are cut at, and psa's walk begins at, that of the seeds. The CRF starts from
seeds at that threshold, and from larger ones at 0.6 of it, as it shrinks them, and the better counts; EDAM's rule, with
--saliency, has none. A network is trained for each method and recipe, IRNet from labels that two thresholds around the
seed's agree on (--sure). What follows -- goes to train.py. Prints Markdown for RESULTS.md; a stopped comparison goes
on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.config.registry import title

from .segmentation import parsed, run

LARGER = 0.6
SURE = (0.07, 0.15)


class Refinement(NamedTuple):
    """How seeds are refined.

    Attributes:
        ckpt: the classifier behind the heat maps.
        recipes: of the affinity networks.
        saliency: saliency maps, or a U2-Net's weights, for EDAM's rule; "": without it.
        sure: how far below and above a seed's threshold IRNet's labels are sure.
        more: flags of train.py.
    """

    ckpt: str | Path
    recipes: Sequence[str] = ()
    saliency: str = ""
    sure: Sequence[float] = SURE
    more: Sequence[str] = ()


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="recipe", help="recipes of IRNet or of psa's network")
    parser.add_argument("--ckpt", required=True, help="the classifier behind the heat maps")
    parser.add_argument("--maps", required=True, nargs="+", help="folders of infer.py's heat maps, with scores")
    parser.add_argument("--workdir", required=True, help="where runs and masks are kept")
    parser.add_argument("--sure", nargs=2, type=float, default=SURE, metavar=("BELOW", "ABOVE"))
    parser.add_argument("--methods", nargs="+", default=["cam", "lpcam"], help="whose maps (default cam lpcam)")
    parser.add_argument("--saliency", default="", help="saliency maps, or a U2-Net's weights, for EDAM's rule")
    arguments, more = parsed(parser)
    how = Refinement(arguments.ckpt, arguments.recipes, arguments.saliency, arguments.sure, more)
    found = {method: maps_of(method, arguments.maps) for method in arguments.methods}
    rows = {
        method: refined(method, maps, metrics["scores"][method]["best"], Path(arguments.workdir), how)
        for method, (maps, metrics) in found.items()
    }
    _, metrics = next(iter(found.values()))
    report(rows, metrics["scored"], ["background", *metrics["protocol"]["class_names"]])


def maps_of(method: str, folders: list[str]) -> tuple[str, dict]:
    """The first folder with a method's maps, and what infer.py measured there."""
    for folder in folders:
        metrics = json.loads(Path(folder, "metrics.json").read_text())
        if method in metrics["scores"]:
            return folder, metrics
    sys.exit(f"no scores of {method!r} in {', '.join(folders)}: infer.py writes them where there are true masks.")


def refined(method: str, maps: str | Path, seed: dict, workdir: Path, how: Refinement) -> dict[str, dict]:
    """The scores of a method's seeds, of these after CRF and PAR, and of its maps after every network's random walk."""

    def made(name: str, *words: float | str) -> dict:
        out = workdir / f"{method}_{name}"
        options = ("--maps", maps, "--out", out, "--method", method, "--pages", "none", *words)
        run("-m", "lpcam_jax", "refine", "--ckpt", how.ckpt, *options)
        return json.loads((out / "metrics.json").read_text())["scores"]

    def cut_at(size: float, refine: str) -> dict:
        return made(f"{refine}_{size:g}", "--refine", refine, "--background", size) | {"threshold": size}

    size = seed["threshold"]
    by_crf = [cut_at(one, "crf") for one in (size, round(LARGER * size, 2))]
    row = {"seed": seed, "CRF": max(by_crf, key=lambda one: one["miou"]), "PAR": cut_at(size, "par")}
    if how.saliency:
        row["CRF and saliency"] = made("saliency", "--saliency", how.saliency)
    for recipe in how.recipes:
        name = load_recipe(recipe).kind
        row[name] = walked(method, maps, seed, recipe, name, workdir, how)
    return row


def walked(
    method: str, maps: str | Path, seed: dict, recipe: str, name: str, workdir: Path, how: Refinement
) -> dict[str, Any]:
    """The best score of a method's maps after the random walk of a network that is trained for them."""
    network, masks = (workdir / f"{method}_{name}{what}" for what in ("", "_masks"))
    below, above = how.sure
    sure = {"background": max(seed["threshold"] - below, 0.01), "foreground": min(seed["threshold"] + above, 0.99)}
    labels = [word for flag, value in sure.items() for word in (f"--labels.{flag}", f"{value:.2f}")]
    run(
        *("train.py", recipe, "--data.maps", maps, "--labels.method", method, *(labels if name == "irn" else ())),
        *("--workdir", network, *how.more),
    )
    # psa's walk begins with a map of the background, so it is done for one threshold; IRN's maps are cut at any.
    cut = () if name == "irn" else ("--inference.background", seed["threshold"])
    run("infer.py", "--ckpt", network, "--maps", maps, "--out", masks, "--pages", "none", *cut)
    metrics = json.loads((masks / "metrics.json").read_text())
    return metrics["scores"] | {"threshold": cut[1]} if cut else metrics["maps"]["scores"][name]["best"]


def report(rows: dict[str, dict[str, dict]], pictures: int, classes: list[str]) -> None:
    """Print the Markdown: the table, and the IoU of every class behind it."""
    steps = {step: title(step) for step in next(iter(rows.values()))}  # a network's kind -> its name
    print(f"\n| mIoU of {pictures} pictures | {' | '.join(steps.values())} |\n|{'---|' * (1 + len(steps))}")
    for method, row in rows.items():
        cells = [f"{100 * one['miou']:.1f}" + in_words(one) for one in row.values()]
        print(f"| {title(method)} | {' | '.join(cells)} |")
    print(f"\n| IoU | {' | '.join(classes)} | FP | FN |\n|{'---|' * (3 + len(classes))}")
    for method, row in rows.items():
        for step, one in row.items():
            cells = [f"{100 * value:.1f}" for value in (*one["iou"], one["fp"], one["fn"])]
            print(f"| {title(method)}, {steps[step]} | {' | '.join(cells)} |")
    print("\nmIoU with the background, 255 ignored; thresholds are the best on these pictures, for the CRF of two;")
    print("no CRF after a random walk.")


def in_words(score: dict) -> str:
    """The threshold of a score, in words; EDAM's rule has none."""
    return f" (threshold {score['threshold']:g})" if "threshold" in score else ""


if __name__ == "__main__":
    main()
