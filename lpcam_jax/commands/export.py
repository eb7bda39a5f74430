"""Export results to the formats of other programs, and runs to hand them on.

    python -m lpcam_jax export --format irn --maps heatmaps/ --method lpcam --out irn_cams/
    python -m lpcam_jax export --format coco --masks heatmaps/ --out instances.json
    python -m lpcam_jax export --format labelme --masks heatmaps_mine/ --images my/ --out labelme/
    python -m lpcam_jax export --format yolo --masks heatmaps/ --out yolo/
    python -m lpcam_jax export --format imagefolder --masks heatmaps_mine/ --images my/ --out pairs/
    python -m lpcam_jax export --format hub --ckpt runs/demo --out demo_model/ --results heatmaps/
    python -m lpcam_jax export --format stablehlo --ckpt runs/demo --out classifier_lpcam.stablehlo
    python -m lpcam_jax export --format onnx --ckpt runs/demo --side 96 128 --out classifier_lpcam.onnx

irn: ID.npy, the pickled dict (keys, cam, high_res) used by the PyTorch repositories of the IRN family. Opening a pickle
executes code: share these only with people who trust you. This package never opens one.

coco: one JSON file of instances; labelme: ID.json for each picture; yolo: labels/ID.txt for each picture, and
data.yaml; label-studio: a JSON file of tasks with predictions, and FILE.xml, the interface. Every connected region of a
class becomes a pixel-exact polygon, with holes joined to the outline by a slit; with --regions rle, of coco and
label-studio, a run-length code, in which holes are holes. Ignored pixels (255) belong to no region. Existing LabelMe
files are kept, since they may have been corrected by hand. cvat: an archive of masks, Segmentation mask 1.1.

fiftyone: an ImageSegmentationDirectory; imagefolder: what load_dataset of Hugging Face's datasets reads. Both copy the
pictures, and their masks are grey PNGs with the values of the classes.

stablehlo, onnx: the network as one program, of a fixed size of pictures (--side) and any number of them: classifier
and LPCAM (and LPCAM-T, if the run has it), or a segmentation network with its masks. FILE.json beside it describes how
to load it: StableHLO by JAX on CPU, CUDA and TPU, ONNX by onnxruntime and many others (pip install 'lpcam_jax[onnx]').

hub: the finished run of any system as a folder to hand on, or to upload to the Hugging Face Hub: parameters, config,
prototypes and a model card, README.md. lpcam_jax.load, infer.py --ckpt and --model.weights open it, and hf:OWNER/NAME.

`--format FORMAT --help` shows the flags of a format.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..config import at_precision
from ..config.command_line import parse_flags
from ..config.json import class_names_in
from ..config.recipes import value_of_flag
from ..data.findings import shown
from ..data.masks import MaskFolder, expect_numbered
from ..data.search import unique_ids
from ..data.unlabelled import find_unlabelled
from ..exports.irn import irn_file
from ..exports.of_masks import WRITERS, Masks, write_each
from ..machine import devices
from ..machine.errors import UserError
from ..machine.files import write_atomically, write_json
from ..machine.programs import as_called
from ..results.apart import keep_apart, whole_folder
from ..results.predictions import ids_in, open_method
from ..training.run import Run

if TYPE_CHECKING:
    from ..exports.programs import Program
    from ..training.checkpoints import TrainState


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Format and output path; the other flags depend on the format."""

    format: Literal[
        "irn", "coco", "labelme", "yolo", "label-studio", "cvat", "fiftyone", "imagefolder", "stablehlo", "onnx", "hub"
    ]
    """output format"""
    out: str
    """output folder; coco, label-studio, cvat, stablehlo and onnx: output file; hub: a new folder"""


@dataclass(frozen=True, kw_only=True)
class MapArguments(Arguments):
    """Heat maps, and output folder."""

    maps: str
    """output folder of infer.py, or folder of maps (ID.npz: classes, and a float (n, H, W) array per method)"""
    method: str = ""
    """method of the maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another array;
    empty: the last in each file"""


@dataclass(frozen=True, kw_only=True)
class MaskArguments(Arguments):
    """Masks, and output path."""

    masks: str
    """output folder of infer.py, whose masks/ or seeds/ are used, or folder of masks (ID.png: 0 background, n + 1 class
    n, 255 ignored)"""
    classes: tuple[str, ...] = ()
    """names of the classes with values 1, 2, ...; empty: from the protocol.json that infer.py wrote with the masks"""
    images: str = ""
    """folder of the pictures, for their file names in the output; empty: the name is always ID.jpg"""


@dataclass(frozen=True, kw_only=True)
class RegionArguments(MaskArguments):
    """Masks, and output file."""

    regions: Literal["polygons", "rle"] = "polygons"
    """polygons, which more programs read, or run-length codes (of label-studio: brushes), in which holes are holes"""


@dataclass(frozen=True, kw_only=True)
class PairArguments(MaskArguments):
    """Masks and their pictures, and output folder."""

    images: str = field()
    """folder of the pictures, which are copied"""


@dataclass(frozen=True, kw_only=True)
class HubArguments(Arguments):
    """A run, and output folder."""

    ckpt: str
    """the --workdir of a run of train.py, or a packed run"""
    results: str = ""
    """output folder of infer.py with this run, whose scores go into the model card"""


@dataclass(frozen=True, kw_only=True)
class ModelArguments(Arguments):
    """A run, and output file."""

    ckpt: str
    """the --workdir of a run of train.py, or a packed run"""
    side: tuple[int, int] | None = None
    """height and width of the program's input pictures; none: those of the square training crops"""


def main(words: list[str]) -> None:
    """Export to one format.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there is nothing to export, or the output cannot be written.
    """
    name = value_of_flag("--format", words)
    kind, write = FORMATS.get(name, (Arguments, None))
    chosen_by = ["--format", name] if name in FORMATS else []
    arguments = parse_flags(kind, words, command="export", description=__doc__, chosen_by=chosen_by)
    out = Path(arguments.out)
    if arguments.format in _FILES and out.is_dir():
        raise UserError(
            f"--out {shown(out)} is a folder, and --format {arguments.format} writes a file; name one, such as "
            f"{shown(out / _FILES[arguments.format])}."
        )
    write(arguments, out)


def _write_irn(arguments: MapArguments, out: Path) -> None:
    folder = open_method(arguments.maps, arguments.method)
    [method] = folder.methods
    keep_apart(out, folder.directory)
    names = ids_in(folder.directory, "npz")

    def write(name: str) -> None:
        (classes, maps), _ = folder.read(name, classes=np.iinfo(np.int32).max)
        write_atomically(out / f"{name}.npy", irn_file(classes, maps[method]))

    write_each(names, write)
    print(f"{len(names)} pictures, maps of {method}, are in {out}.")


def _write_masks(arguments: MaskArguments, out: Path) -> None:
    options = {"regions": arguments.regions} if isinstance(arguments, RegionArguments) else {}
    print(WRITERS[arguments.format](_masks(arguments, out), out, **options))


def _write_stablehlo(arguments: ModelArguments, out: Path) -> None:
    from ..exports.programs import PLATFORMS, description, load_stablehlo, stablehlo

    program = _program(arguments, out)
    values = description(program, load=load_stablehlo(out.name), platforms=list(PLATFORMS))
    _write_program(program, stablehlo(program), values, out)


def _write_onnx(arguments: ModelArguments, out: Path) -> None:
    from ..exports.onnx import load_onnx, onnx_model
    from ..exports.programs import description

    program = _program(arguments, out, precision="float32")  # of bfloat16, ONNX's runtimes have few operators
    values = description(program, load=load_onnx(out.name, program.outputs))
    _write_program(program, onnx_model(program), values, out)


def _program(arguments: ModelArguments, out: Path, precision: str = "") -> "Program":
    """The program of the run, at its own precision or at another."""
    devices.start()
    run = Run.open(arguments.ckpt)
    keep_apart(out, run.directory)
    config = run.config
    size = arguments.side or (config.training.crop,) * 2
    if min(size) < 1:
        raise UserError(f"--side {size[0]} {size[1]}: give height and width, each at least 1.")
    if precision:
        config = replace(config, inference=replace(config.inference, precision=precision))
    return run.system.program(run, at_precision(config), size)


def _write_program(program: "Program", content: bytes, values: dict[str, Any], out: Path) -> None:
    write_atomically(out, content)
    write_json(Path(f"{out}.json"), values)
    size = "x".join(map(str, program.size))
    print(f"{out} ({len(content) / 1e6:.1f} MB) takes pictures of {size}; {out}.json describes it.")
    if program.without:
        print(f"It is without {program.without}; infer.py makes it.")


def _write_hub(arguments: HubArguments, out: Path) -> None:
    from ..exports.model_card import model_card
    from ..training.packed import expect_new, pack
    from ..training.state import trained_state

    expect_new(out)
    devices.start()
    run = Run.open(arguments.ckpt)
    keep_apart(out, run.directory)
    state = trained_state(run, devices=devices.mesh())
    scores = _scores(run, state, arguments.results) if arguments.results else ()
    card = model_card(pack(run, state, out), run, results=scores)
    write_atomically(out / "README.md", card.encode(errors="backslashreplace"))
    print(as_called(f"{out} is used like the run: infer.py --ckpt {out}; see its README.md before you upload it."))


def _scores(run: Run, state: "TrainState", results: str) -> list[str]:
    """What the metrics.json of a run's results says, line by line; UserError if they are not of this run."""
    from ..systems.protocol import model_fingerprint
    from ..systems.prototyping.stored_prototypes import load_prototypes, prototypes_file

    file = Path(results) / "metrics.json"
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        protocol = {name: value for name, value in metrics["protocol"].items() if name != "class_names"}
        model, pictures = protocol["model"], metrics["pictures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--results {results}: {file} cannot be read ({error}); name a folder of infer.py.") from None
    prototypes = load_prototypes(run, state) if prototypes_file(run).exists() else None
    if model not in (model_fingerprint(state), model_fingerprint(state, prototypes)):
        raise UserError(f"--results {results} was made by another model; name the results of {run.directory}.")
    return [*run.system.describe(metrics), f"pictures: {pictures}, protocol: {json.dumps(protocol)}"]


FORMATS: dict[str, tuple[type, Callable[[Any, Path], None]]] = {
    "irn": (MapArguments, _write_irn),
    **dict.fromkeys(WRITERS, (MaskArguments, _write_masks)),
    **dict.fromkeys(("coco", "label-studio"), (RegionArguments, _write_masks)),
    **dict.fromkeys(("fiftyone", "imagefolder"), (PairArguments, _write_masks)),
    "hub": (HubArguments, _write_hub),
    "stablehlo": (ModelArguments, _write_stablehlo),
    "onnx": (ModelArguments, _write_onnx),
}
# The formats of one file, and what it may be called.
_FILES = {
    "coco": "instances.json",
    "label-studio": "tasks.json",
    "cvat": "masks.zip",
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
}


def _masks(arguments: MaskArguments, out: Path) -> Masks:
    """The masks, the names of their classes, and the picture's file name for every id."""
    root = Path(arguments.masks)
    directory = next((root / kind for kind in ("masks", "seeds") if (root / kind).is_dir()), root)
    folder = MaskFolder.checked(directory)
    protocol = directory.parent / "protocol.json"
    keep_apart(out, whole_folder(directory))
    names = ids_in(directory, "png")
    if not names:
        raise UserError(f"{directory} holds no ID.png; name a folder of masks.")
    class_names = arguments.classes or _class_names(protocol)
    expect_numbered(len(class_names), "--masks", "name only those that the masks hold, with --classes")
    pictures = Path(arguments.images) if arguments.images else None
    if isinstance(arguments, PairArguments):
        keep_apart(out, pictures)
    return Masks(folder, class_names, _file_names(arguments.images, names), pictures)


def _class_names(protocol: Path) -> tuple[str, ...]:
    try:
        return class_names_in(json.loads(protocol.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        raise UserError(
            f"{protocol}, where infer.py writes the names of the classes, cannot be read; give them with --classes, in "
            "the order of their values in the masks, from 1."
        ) from None


def _file_names(images: str, ids: Sequence[str]) -> dict[str, str]:
    if not images:
        return {name: f"{name}.jpg" for name in ids}
    folder = Path(images)
    if not folder.is_dir():
        raise UserError(f"--images {images}: no such folder of pictures.")
    files = [file.relative_to(folder).as_posix() for file in find_unlabelled(folder)]
    by_id = dict(zip(unique_ids(files), files, strict=True))
    if missing := [name for name in ids if name not in by_id]:
        raise UserError(
            f"--images {images} has no picture for the mask {shown(missing[0])} ({len(missing)} of {len(ids)} are "
            "missing); name the folder that the ids are relative to, or omit --images."
        )
    return {name: by_id[name] for name in ids}
