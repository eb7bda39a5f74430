"""The prototype page of a folder of heat maps: what each looks like, where it is found, and the resulting maps.

prototypes.html                      the page
prototypes/patches/STRIP.jpg         copies from the run, so that the folder is self-contained
prototypes/similarity/CLASS/ID.png   8-bit grey, the similarity maps of the 2 k clusters of a class and its context
                                     stacked vertically: 255 is a cosine of 1, 0 a cosine of 0 (-1 if features may be
                                     negative); on the feature grid, each with its border repeated once around it
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ...backbones.base import Backbone
from ...config.registry import title
from ...data.pictures import opened
from ...data.records import RecordSource, Subset
from ...data.resizing import shrunk_size
from ...inference.forward import Function
from ...machine.errors import UserError
from ...machine.files import write_atomically
from ...machine.threads import map_ahead
from ...prototypes import Prototypes
from ...report.gallery import layer_file
from ...report.overlays import png
from ...report.page import url
from ...report.prototype_page import HeatMap, MappedPicture, Prototype, PrototypeClass, write_prototypes
from ...results.gallery import shown_methods
from ...results.map_folder import MapFolder
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, network_of
from .prototype_patches import read_patches, strip_file, strip_name

_PICTURES = 6  # per class


def write_prototype_page(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    out: str | Path,
    *,
    methods: Sequence[str],
    similarities: Function,
    devices: Mesh,
) -> bool:
    """Write the page and its missing files; without patches in the run, write nothing.

    Args:
        run: the run.
        state: its network.
        prototypes: its prototypes.
        source: the pictures; the page shows up to six of each class that are mapped in `out`.
        out: folder of this model's heat maps.
        methods: of these maps.
        similarities: (network, pictures, sizes, centres (c, k, d)) -> "similarity" float32 (b, h', w', c, k), cosines.
        devices: the mesh.

    Returns:
        Whether the page was written.

    Raises:
        UserError: a file cannot be written, or the maps of a picture cannot be read.
    """
    patches = read_patches(run.directory, prototypes)
    if patches is None:
        return False
    files = _Files(Path(out))
    maps = MapFolder(Path(out) / "maps", tuple(methods))
    chosen = choose_pictures(_mapped(source, maps, files, len(run.class_names)))
    _write_similarities(run, state, prototypes, source, files, chosen, similarities, devices=devices)
    classes = []
    sizes = _sizes(source, files, chosen)
    backbone = network_of(run.config, len(run.class_names)).backbone
    longest, floor = run.config.data.longest, floor_of(backbone)
    for n, class_patches in enumerate(patches["classes"]):
        clusters = len(class_patches["class"]) + len(class_patches["context"])
        pictures = [
            _picture(
                files,
                maps,
                source.ids[index],
                size,
                n,
                clusters=clusters,
                stride=backbone.strides[-1] * max(size) / max(shrunk_size(size, longest)),
                floor=floor,
            )
            for index, size in sizes.items()
            if n in chosen[index]
        ]
        sets = [
            [
                Prototype(
                    score=cluster["score"],
                    kept=cluster["kept"],
                    share=cluster["share"],
                    strip=files.copy_strip(run.directory, n, number, context=context) if cluster["patches"] else "",
                    patches=tuple(patch["id"] for patch in cluster["patches"]),
                )
                for number, cluster in enumerate(class_patches[kind])
            ]
            for context, kind in ((False, "class"), (True, "context"))
        ]
        classes.append(PrototypeClass(run.class_names[n], *sets, pictures))
    write_prototypes(files.page, classes, mu_f=patches["mu_f"], context=tuple(patches["context"]))
    return True


class _Files:
    """Paths and links in the folder of heat maps."""

    def __init__(self, out: Path):
        self.out, self.page = out, out / "prototypes.html"

    def similarity(self, class_index: int, name: str) -> Path:
        return self.out / "prototypes" / "similarity" / f"{class_index:04}" / f"{name}.png"

    def complete(self, name: str, classes: list[int]) -> bool:
        """Whether a picture's similarity maps of these classes exist."""
        return all(self.similarity(n, name).exists() for n in classes)

    def link(self, file: Path) -> str:
        return url(file.relative_to(self.out).as_posix())

    def copy_strip(self, run: Path, class_index: int, cluster: int, *, context: bool) -> str:
        """Copy a strip from the run unless it exists; returns its URL."""
        copy = self.out / "prototypes" / "patches" / strip_name(class_index, cluster, context=context)
        if not copy.exists():
            original = strip_file(run, class_index, cluster, context=context)
            try:
                write_atomically(copy, original.read_bytes())
            except OSError as error:
                raise UserError(
                    f"{original} cannot be read ({error.strerror or error}); delete {run / 'prototypes.json'} to go "
                    "without it, or prototypes.npz and run train.py --stages prototypes."
                ) from None
        return self.link(copy)


def choose_pictures(mapped: np.ndarray, *, count: int = _PICTURES) -> dict[int, list[int]]:
    """Choose pictures of each class, evenly spaced over its pictures and including the first and the last.

    Args:
        mapped: bool (n, c), which classes of each picture are mapped.
        count: pictures per class.

    Returns:
        {picture index: classes it is shown for}, ascending.
    """
    chosen = defaultdict(list)
    for n in range(mapped.shape[1]):
        members = np.flatnonzero(mapped[:, n])
        for place in np.unique(np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int)):
            chosen[int(members[place])].append(n)
    return dict(sorted(chosen.items()))


def _mapped(source: RecordSource, maps: MapFolder, files: _Files, classes: int) -> np.ndarray:
    """Which classes of each picture are mapped, bool (n, c); none of a picture that is not in the gallery."""
    mapped = np.zeros((len(source), classes), bool)

    def classes_of(name: str) -> np.ndarray:
        is_shown = layer_file(files.out, "photo", name).exists() and maps.file(name).exists()
        return maps.read_one(name, "classes") if is_shown else np.zeros(0, int)

    for of_picture, numbers in zip(mapped, map_ahead(classes_of, source.ids), strict=True):
        of_picture[numbers] = True
    return mapped


def _write_similarities(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    files: _Files,
    chosen: dict[int, list[int]],
    similarities: Function,
    *,
    devices: Mesh,
) -> None:
    """Compute missing similarity maps in one small pass at scale 1."""
    subset = Subset(source, list(chosen))
    missing = [
        number
        for number, (name, classes) in enumerate(zip(subset.ids, chosen.values(), strict=True))
        if not files.complete(name, classes)
    ]
    if not missing:
        return
    network = inference_network(run.config, state, len(run.class_names), devices=devices)
    floor = floor_of(network_of(run.config, len(run.class_names)).backbone)
    centres = jnp.concatenate([prototypes.class_centres, prototypes.context_centres], axis=1)
    results = network.run(
        similarities,
        subset,
        scales=[1.0],
        batches=replace(run.config.inference, max_shapes=2),
        constants=[centres],
        description="prototypes",
        only=missing,
    )
    with closing(results):
        for number, record, outputs in results:
            if isinstance(record, UserError):  # mapped earlier but unreadable now: leave it out
                continue
            for n in chosen[list(chosen)[number]]:
                write_atomically(
                    files.similarity(n, record.id), png(atlas(outputs[0]["similarity"][:, :, n], floor=floor))
                )


def floor_of(backbone: Backbone) -> float:
    """Smallest possible cosine between two features of a backbone."""
    return 0.0 if backbone.nonnegative else -1.0


def atlas(maps: np.ndarray, *, floor: float = 0.0) -> np.ndarray:
    """Stack maps vertically in one grey picture.

    Args:
        maps: float (h, w, m), cosines; clipped to [floor, 1].
        floor: the cosine that is mapped to black.

    Returns:
        uint8 (m (h + 2), w + 2): each map with its border repeated once around it, so that enlarging in the browser
        does not blend it with its neighbours.
    """
    grey = np.rint(255 * (np.clip(maps, floor, 1) - floor) / (1 - floor)).astype(np.uint8)
    return np.concatenate([np.pad(layer, 1, mode="edge") for layer in np.moveaxis(grey, -1, 0)])


def _sizes(source: RecordSource, files: _Files, chosen: dict[int, list[int]]) -> dict[int, tuple[int, int]]:
    """(H, W) of the chosen pictures that can be shown; a picture may have vanished since it was mapped."""
    sizes = {}
    for index, classes in chosen.items():
        if files.complete(source.ids[index], classes):
            with suppress(UserError):
                sizes[index] = source.size(index)
    return sizes


def _picture(
    files: _Files,
    maps: MapFolder,
    name: str,
    size: tuple[int, int],
    class_index: int,
    *,
    clusters: int,
    stride: float,
    floor: float,
) -> MappedPicture:
    """A picture's entry for the page."""
    file = files.similarity(class_index, name)
    try:
        with opened(file) as picture:
            grey = np.asarray(picture)
    except UserError as error:
        raise UserError(f"{error}; then run infer.py again.") from None
    classes = maps.read_one(name, "classes").tolist()
    return MappedPicture(
        id=name,
        photo=files.link(layer_file(files.out, "photo", name)),
        size=size,
        similarity=files.link(file),
        grid=(len(grey) // clusters - 2, grey.shape[1] - 2),
        stride=stride,
        floor=floor,
        range=tuple(floor + (1 - floor) * float(value) / 255 for value in (grey.min(), grey.max())),
        maps=[
            HeatMap(
                title(method),
                files.link(layer_file(files.out, method, name)),
                cell=classes.index(class_index),
                cells=len(classes),
            )
            for method in shown_methods(maps.methods)
        ],
    )
