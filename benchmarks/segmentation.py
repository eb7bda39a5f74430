"""What a segmentation network makes of seeds: trained on those of CAM, on those of LPCAM, and on the true masks.

    python -m benchmarks.segmentation configs/voc_animals_deeplab.py --maps heatmaps/ --workdir runs/compared \
        -- --data.root DIR --model.weights thin_resnet50.npz

heatmaps/ is what infer.py made of the training pictures. Each method's seeds are cut at the threshold that is best on
the training pictures; the networks differ in nothing but their masks, and are scored on pictures that none of this has
seen. What follows -- goes to train.py. Prints Markdown for RESULTS.md; a stopped comparison goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ROWS = {"cam": "seeds of CAM", "lpcam": "seeds of LPCAM", "truth": "true masks"}


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a segmentation recipe")
    parser.add_argument("--maps", required=True, help="the folder of infer.py, of the training pictures, with scores")
    parser.add_argument("--workdir", required=True, help="where seeds, runs and masks are kept")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    words = sys.argv[1:]
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = parser.parse_args(own)
    workdir = Path(arguments.workdir)
    scores = {row: scores_of(row, arguments.recipe, arguments.maps, workdir, more) for row in arguments.rows}
    report(scores, json.loads(Path(arguments.maps, "metrics.json").read_text()))


def scores_of(row: str, recipe: str, maps: str, workdir: Path, more: list[str]) -> dict:
    """metrics.json of the network that was trained on these masks."""
    masks = []
    if row != "truth":
        seeds = workdir / f"seeds_{row}"
        run("-m", "lpcam_jax", "seeds", "--maps", maps, "--method", row, "--threshold", "best", "--out", seeds)
        masks = ["--data.masks", seeds]
    run("train.py", recipe, *masks, "--workdir", workdir / row, *more)
    run("infer.py", "--ckpt", workdir / row, "--out", workdir / f"masks_{row}")
    return json.loads((workdir / f"masks_{row}" / "metrics.json").read_text())


def run(*words) -> None:
    """Run a command of the project and show it; its own words end this one, too."""
    print("$ python", *words, flush=True)
    script = [str(REPOSITORY / words[0])] if words[0].endswith(".py") else [words[0]]
    ended = subprocess.run([sys.executable, *script, *map(str, words[1:])], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


def report(scores: dict[str, dict], seeds: dict) -> None:
    """Print the Markdown."""
    first = next(iter(scores.values()))
    names = ["background", *first["protocol"]["class_names"]]
    print(
        f"\n| trained on | these masks, on {seeds['scored']} pictures | network, on {first['scored']} others | ", end=""
    )
    print(f"{' | '.join(names)} |\n|{'---|' * (3 + len(names))}")
    for row, metrics in scores.items():
        best = seeds["scores"][row]["best"] if row != "truth" else None
        own = f"{100 * best['miou']:.1f} (threshold {best['threshold']:g})" if best else "100"
        cells = [f"{100 * value:.1f}" if value is not None else "-" for value in metrics["scores"]["iou"]]
        print(f"| {ROWS[row]} | {own} | **{100 * metrics['scores']['miou']:.1f}** | {' | '.join(cells)} |")
    protocol = first["protocol"]
    print(f"\nmIoU over {len(names)} with the background, 255 ignored; scales {protocol['scales']}, ", end="")
    print(
        f"{'with' if protocol['mirror'] else 'without'} mirror images, no CRF, step {protocol['step']}; image labels ",
        end="",
    )
    print("were known for the seeds, and are not for the networks.")
    if {"cam", "lpcam"} <= set(scores):
        gain = 100 * (scores["lpcam"]["scores"]["miou"] - scores["cam"]["scores"]["miou"])
        over = 100 * (scores["lpcam"]["scores"]["miou"] - seeds["scores"]["lpcam"]["best"]["miou"])
        print(f"Trained on LPCAM's seeds: {gain:+.1f} points against CAM's, {over:+.1f} against the seeds themselves.")


if __name__ == "__main__":
    main()
