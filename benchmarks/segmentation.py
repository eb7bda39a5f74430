"""What a segmentation network makes of masks: seeds of CAM and of LPCAM, pseudo masks, and the true masks.

    python -m benchmarks.segmentation configs/voc_animals_deeplab.py --maps heatmaps/ --pseudo-masks pseudo_masks/ \
        --workdir runs/compared -- --data.root DIR --model.weights thin_resnet50.npz

heatmaps/ is what infer.py made of the training pictures, and so is pseudo_masks/, of the heat maps (--maps). Each
method's seeds are cut at the threshold that is best on the training pictures; the networks differ in nothing but their
masks, and are scored on pictures that none of this has seen. What follows -- goes to train.py. Prints Markdown for
RESULTS.md; a stopped comparison goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
ROWS = {"cam": "seeds of CAM", "lpcam": "seeds of LPCAM", "pseudo": "pseudo masks", "truth": "true masks"}


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a segmentation recipe")
    parser.add_argument("--maps", required=True, help="the folder of infer.py, of the training pictures, with scores")
    parser.add_argument("--workdir", required=True, help="where seeds, runs and masks are kept")
    parser.add_argument("--pseudo-masks", default="", help="the folder of infer.py --maps, for that row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    arguments, more = parsed(parser)
    workdir = Path(arguments.workdir)
    rows = [row for row in arguments.rows if row != "pseudo" or arguments.pseudo_masks]
    scores = {row: scores_of(row, arguments, workdir, more) for row in rows}
    masks = {"truth": "100"}
    for row, one in scores_in(arguments.maps)["scores"].items():
        masks[row] = f"{100 * one['best']['miou']:.1f} (threshold {one['best']['threshold']:g})"
    if "pseudo" in rows:
        masks["pseudo"] = f"{100 * scores_in(arguments.pseudo_masks)['scores']['miou']:.1f}"
    report(scores, masks, pictures=scores_in(arguments.maps)["scored"])


def parsed(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The command line: up to -- for this program, after it for train.py."""
    words = sys.argv[1:]
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    return parser.parse_args(own), more


def scores_in(directory: str | Path) -> dict:
    """What infer.py measured."""
    return json.loads(Path(directory, "metrics.json").read_text())


def scores_of(row: str, arguments: argparse.Namespace, workdir: Path, more: list[str]) -> dict:
    """metrics.json of the network that was trained on these masks."""
    masks = {"pseudo": ["--data.masks", Path(arguments.pseudo_masks, "masks")], "truth": []}.get(row)
    if masks is None:
        seeds, masks = workdir / f"seeds_{row}", ["--data.masks", workdir / f"seeds_{row}"]
        maps = ("--maps", arguments.maps, "--method", row, "--threshold", "best")
        run("-m", "lpcam_jax", "seeds", *maps, "--out", seeds)
    run("train.py", arguments.recipe, *masks, "--workdir", workdir / row, *more)
    run("infer.py", "--ckpt", workdir / row, "--out", workdir / f"masks_{row}")
    return scores_in(workdir / f"masks_{row}")


def run(*words) -> None:
    """Run a command of the project and show it; its own words end this one, too."""
    print("$ python", *words, flush=True)
    script = [str(REPOSITORY / words[0])] if words[0].endswith(".py") else [words[0]]
    ended = subprocess.run([sys.executable, *script, *map(str, words[1:])], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


def report(scores: dict[str, dict], masks: dict[str, str], *, pictures: int) -> None:
    """Print the Markdown; masks: the mIoU of each row's own masks."""
    first = next(iter(scores.values()))
    names = ["background", *first["protocol"]["class_names"]]
    print(f"\n| trained on | these masks, on {pictures} pictures | network, on {first['scored']} others | ", end="")
    print(f"{' | '.join(names)} |\n|{'---|' * (3 + len(names))}")
    for row, metrics in scores.items():
        cells = [f"{100 * value:.1f}" if value is not None else "-" for value in metrics["scores"]["iou"]]
        print(f"| {ROWS[row]} | {masks[row]} | **{100 * metrics['scores']['miou']:.1f}** | {' | '.join(cells)} |")
    print("\n| trained on | any class or background, IoU | the right class, where both say one |\n|---|---|---|")
    for row, metrics in scores.items():
        counts = np.array(metrics["scores"]["confusion"], float)  # [truth, said], 0 the background
        both = counts[1:, 1:]
        outlines = both.sum() / (counts.sum() - counts[0, 0])
        print(f"| {ROWS[row]} | {100 * outlines:.1f} | {100 * np.trace(both) / both.sum():.1f} |")
    protocol = first["protocol"]
    print(f"\nmIoU over {len(names)} with the background, 255 ignored; scales {protocol['scales']}, ", end="")
    print(
        f"{'with' if protocol['mirror'] else 'without'} mirror images, no CRF, step {protocol['step']}; image labels ",
        end="",
    )
    print("were known for seeds and pseudo masks, and are not for the networks.")
    if {"cam", "lpcam"} <= set(scores):
        gain = 100 * (scores["lpcam"]["scores"]["miou"] - scores["cam"]["scores"]["miou"])
        print(f"Trained on LPCAM's seeds: {gain:+.1f} points against CAM's.")


if __name__ == "__main__":
    main()
