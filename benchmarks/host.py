"""Pictures a second that the host can serve: infer.py with a network that costs nothing.

    python -m benchmarks.host --root DIR                    # a data set in VOC's layout: real photographs
    python -m benchmarks.host                               # drawn scenes instead
    python -m benchmarks.host --root DIR --beside OLD       # and another checkout, in turn

The programs are the real ones; only what runs on the device is replaced, by arrays of its shapes that are made once:
the forward pass, the resizing to the picture, random walk and CRF. So what is left is what an accelerator has to wait
for: reading, resizing, putting together batches, and everything from the device's outputs to the files. Time is that of
all threads together (user and system), so that other programs on the machine matter little; pictures a second are those
of one core, start and end of the program left out. With and without pages; without pseudo masks. Prints Markdown.
"""

import argparse
import csv
import functools
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
WORK = REPOSITORY / ".bench" / "host"
SIZE = (375, 500)
# What else runs on the device, where a checkout has it; the CRF is that of AMN's sure labels.
FINISHING = (
    ("lpcam_jax.systems.lpcam.maps", "_finished_map"),
    ("lpcam_jax.systems.amn.activation", "_activate"),
    ("lpcam_jax.systems.segmentation.segment", "_best"),
    ("lpcam_jax.refine.pictures", "mean_field"),
    ("lpcam_jax.refine.pictures", "random_walk"),
    ("lpcam_jax.refine.walks", "random_walk"),
)
SYSTEMS = ("lpcam", "amn", "irn", "deeplab")
SMALL = ("--model.blocks", "1", "1", "1", "1", "--model.width", "2", "--model.stem-width", "2")
TRAINED = {
    "lpcam": ("folder", "--training.least-steps", "1", "--training.crop", "64", "--training.long-side", "64", "96"),
    "amn": ("voc12_amn", "--data.source", "folder", "--training.crop", "64"),
    "irn": ("folder_irn", "--training.crop", "80"),
    "deeplab": ("folder_deeplab", "--training.steps", "1", "--training.crop", "64"),
}


def main() -> None:
    """Make data and runs, measure each system in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="", help="photographs, in JPEGImages/ below it")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--beside", default="", help="another checkout, measured in the same run")
    parser.add_argument("--where", action="store_true", help="and in which functions the time goes")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    checkouts = {"here": REPOSITORY} | ({"beside": Path(arguments.beside).resolve()} if arguments.beside else {})
    print(f"| system | classes | pages |{''.join(f' {name}, pictures/s of a core |' for name in checkouts)}")
    print(f"|---|---|---|{'---|' * len(checkouts)}", flush=True)
    for classes in arguments.classes:
        runs = {name: made_runs(arguments, classes, checkout) for name, checkout in checkouts.items()}
        for system in arguments.systems:
            for pages in ("all", "none"):
                cells = []
                for name, checkout in checkouts.items():
                    found = in_a_process(checkout, system, runs[name], pages)
                    cells.append(f"{1 / found['seconds']:,.1f}" if found else "always with pages")
                    if arguments.where and found:
                        print(f"<!-- {name} {system} {pages}: {found['where']} -->", file=sys.stderr)
                print(f"| {system} | {classes} | {pages} | {' | '.join(cells)} |", flush=True)


def made_runs(arguments: argparse.Namespace, classes: int, checkout: Path) -> Path:
    """A folder with photographs of one size, random labels, and a tiny run of every system."""
    here = WORK / f"{checkout.name}_{classes}"
    shutil.rmtree(here, ignore_errors=True)
    write_pictures(here / "data", arguments, classes)
    data, maps = ("--data.root", str(here / "data")), str(here / "maps")
    for system in SYSTEMS:
        if system not in arguments.systems and system != "lpcam":
            continue
        recipe, *flags = TRAINED[system]
        words = ["train.py", f"configs/{recipe}.py", *data, *SMALL, *flags, "--training.batch-size", "4"]
        words += ["--workdir", str(here / system)]
        words += ["--data.maps", maps] if system in ("amn", "irn") else []
        words += ["--data.masks", f"{maps}/seeds"] if system == "deeplab" else []
        words += ["--training.epochs", "1"] if system != "deeplab" else []
        words += ["--data.train", "all[:8]", "--data.seeds", "all"]
        start(checkout, words)
        if system == "lpcam":
            start(checkout, ["infer.py", "--ckpt", str(here / system), "--out", maps, "--refine", "none"])
    return here


def write_pictures(directory: Path, arguments: argparse.Namespace, classes: int) -> None:
    """Photographs, or drawn scenes, of 500 x 375, with one to three labels each; no masks, so nothing is scored."""
    from PIL import Image

    from lpcam_jax.data.shapes import Shapes

    (directory / "images").mkdir(parents=True, exist_ok=True)
    found = sorted(Path(arguments.root, "JPEGImages").glob("*.jpg"))[: arguments.pictures] if arguments.root else []
    scenes, random = Shapes(arguments.pictures), np.random.default_rng(0)
    with (directory / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", "labels"])
        for index in range(arguments.pictures):
            picture = Image.open(found[index]).convert("RGB") if found else Image.fromarray(scenes[index].image)
            picture.resize(SIZE[::-1]).save(directory / "images" / f"{index:04}.jpg", quality=92)
            labels = random.choice(classes, size=random.choice([1, 1, 2, 3]), replace=False)
            labels = [index % classes] if index < classes else labels  # every class occurs
            table.writerow([f"{index:04}.jpg", ";".join(f"class{n:02}" for n in labels)])


def start(checkout: Path, words: list[str]) -> str:
    """Run `python WORDS` in a checkout; its output."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(WORK / "cache")}
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def in_a_process(checkout: Path, system: str, runs: Path, pages: str) -> dict | None:
    """What `measure` finds in a process of its own; None: this checkout cannot do without pages."""
    words = [str(Path(__file__).resolve()), "--one", system, str(runs / system), str(runs / "maps"), pages]
    return json.loads(start(checkout, words).splitlines()[-1])


def measure(system: str, run: str, maps: str, pages: str) -> dict | None:
    """CPU seconds a picture, of a second run in the same process, and the functions that they were sampled in."""
    import infer
    from lpcam_jax.config.registry import load_system
    from lpcam_jax.inference import forward
    from lpcam_jax.training.run import Run

    forward.forward = free_forward
    for place, name in FINISHING:
        module = importlib.import_module(place) if importlib.util.find_spec(place) else None
        if hasattr(module, name):
            setattr(module, name, free(getattr(module, name)))
    out = Path(run).with_name(f"{system}_out")
    flags = set(load_system(Run.open(run).config.kind).flags.__dataclass_fields__)
    words = ["infer.py", "--ckpt", run, "--out", str(out)]
    words += ["--maps", maps] if "maps" in flags else []
    words += ["--refine", "none"] if "refine" in flags else []
    if "pages" in flags:
        words += ["--pages", pages]
    elif pages == "none":
        return None
    seconds, pictures = {}, {}
    for part in ("first", "few", "all"):  # nothing is compiled after the first; the difference leaves start and end out
        shutil.rmtree(out, ignore_errors=True)
        sys.argv, samples = words + (["--limit", "4"] if part == "few" else []), Counter()
        done = threading.Event()
        sampler = threading.Thread(target=sample, args=(samples, done), daemon=True)
        before = resource.getrusage(resource.RUSAGE_SELF)
        sampler.start()
        with open(os.devnull, "w") as nowhere:
            sys.stdout, kept = nowhere, sys.stdout
            infer.main()
            sys.stdout = kept
        after = resource.getrusage(resource.RUSAGE_SELF)
        done.set()
        sampler.join()
        seconds[part] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        pictures[part] = json.loads((out / "metrics.json").read_text())["pictures"]
    total = sum(samples.values())
    where = {name: f"{count / total:.0%}" for name, count in samples.most_common(14)}
    return {"seconds": (seconds["all"] - seconds["few"]) / (pictures["all"] - pictures["few"]), "where": where}


def sample(samples: Counter, done: threading.Event) -> None:
    """Count the function of the package that each thread is in, every few milliseconds, unless it waits."""
    while not done.wait(0.004):
        for number, frame in sys._current_frames().items():
            if number == threading.get_ident() or frame.f_code.co_filename.endswith(("threading.py", "thread.py")):
                continue
            while frame and "lpcam_jax" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame:
                samples[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1


def free_forward(graph, function):
    """In place of `inference.forward.forward`: arrays of the outputs' shapes, computed once for each shape."""
    import jax
    from flax import nnx

    kept, networks = {}, []

    def real(arrays, constants, *inputs):
        pictures, sizes, *extra_input = inputs
        return function(nnx.merge(graph, *arrays), pictures, sizes, *constants, *extra_input)

    def outputs(arrays, constants, *inputs):
        key = tuple(x.shape for x in inputs)
        if key not in kept:
            shapes = jax.eval_shape(real, arrays, constants, *inputs)
            kept[key] = {name: jax.numpy.asarray(smooth(shape.shape)) for name, shape in shapes.items()}
        if not networks:
            networks.append(nnx.merge(graph, *arrays))
        return kept[key] | {"grid": jax.numpy.asarray(networks[0].grid_sizes(np.asarray(inputs[1])))}

    return outputs


def free(function):
    """In place of a jitted function: an array of its result's shape, computed once for each shape."""
    import jax

    kept = {}

    def outputs(*arguments, **options):
        key = tuple(getattr(leaf, "shape", leaf) for leaf in jax.tree.leaves((arguments, options)))
        if key not in kept:
            shape = jax.eval_shape(functools.partial(function, **options), *arguments)
            values = smooth((1, *shape.shape, 1)).reshape(shape.shape)
            kept[key] = values.astype(shape.dtype) if shape.dtype != np.uint8 else (3 * values).astype(np.uint8)
        return kept[key]

    return outputs


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """Waves from 0 to 1, another in each channel: files of such maps are about as large as those of real ones."""
    phases = [np.linspace(0, 3, size) if axis in (1, 2) else 0.7 * np.arange(size) for axis, size in enumerate(shape)]
    return np.cos(sum(np.ix_(*phases))).astype(np.float32) * 0.5 + 0.5


if __name__ == "__main__":
    main()
