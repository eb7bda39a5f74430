"""The page of prototypes in a folder of heat maps: what each looks like, where it is, and the heat maps made of them.

prototypes.html                      the page
prototypes/patches/STRIP.jpg         copies from the run, so that the folder can be sent as it is
prototypes/similarity/CLASS/ID.png   8-bit grey, one map below the other, of the 2 k clusters of the class and its
                                     context: 255 is a cosine of 1, 0 one of 0, or of -1 where features may be negative;
                                     each on the feature grid, with an edge of one position repeated around it
"""

from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from ...backbones.base import Backbone
from ...config.registry import title
from ...data.records import RecordSource, Subset
from ...inference.passes import Outputs
from ...machine.errors import UserError
from ...machine.files import write_atomically
from ...prototype_activation import similarity_maps
from ...prototypes import Prototypes
from ...report.gallery import layer_file
from ...report.overlays import png
from ...report.page import url
from ...report.prototype_page import HeatMap, MappedPicture, Prototype, PrototypeClass, write_prototypes
from ...results.gallery import shown_methods
from ...results.predictions import MapFolder
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, network_of
from .maps import features_of_both, methods_of
from .network import Classifier
from .prototype_patches import read_patches, strip_file, strip_name

_PICTURES = 6  # a class


def write_prototype_page(
    run: Run, state: TrainState, prototypes: Prototypes, source: RecordSource, out: str | Path, *, devices: Mesh
) -> bool:
    """Write the page and its files; what is there already is not made again. Nothing when the run has no patches.

    Args:
        run: the run.
        state: its classifier.
        prototypes: its prototypes.
        source: the pictures; up to six of each class, of those mapped in `out`, are shown.
        out: the folder of heat maps, of this model.
        devices: the mesh.

    Returns:
        Whether there is a page.

    Raises:
        UserError: a file cannot be written, or the maps of a picture cannot be read.
    """
    patches = read_patches(run.directory, prototypes)
    if patches is None:
        return False
    files = _Files(Path(out))
    maps = MapFolder(Path(out) / "maps", methods_of(prototypes))
    chosen = choose_pictures(_mapped(source, maps, len(run.class_names)))
    _write_similarities(run, state, prototypes, source, files, chosen, devices=devices)
    classes = []
    sizes = _sizes(source, files, chosen)
    backbone = network_of(run.config, len(run.class_names)).backbone
    grid = {"stride": backbone.strides[-1], "floor": floor_of(backbone)}
    for n, one in enumerate(patches["classes"]):
        clusters = len(one["class"]) + len(one["context"])
        pictures = [
            _picture(files, maps, source.ids[index], size, n, clusters=clusters, **grid)
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
                for number, cluster in enumerate(one[kind])
            ]
            for context, kind in ((False, "class"), (True, "context"))
        ]
        classes.append(PrototypeClass(run.class_names[n], *sets, pictures))
    write_prototypes(files.page, classes, mu_f=patches["mu_f"], context=tuple(patches["context"]))
    return True


class _Files:
    """Where everything is in the folder of heat maps."""

    def __init__(self, out: Path):
        self.out, self.page = out, out / "prototypes.html"

    def similarity(self, class_index: int, name: str) -> Path:
        return self.out / "prototypes" / "similarity" / f"{class_index:04}" / f"{name}.png"

    def complete(self, name: str, classes: list[int]) -> bool:
        """Whether all maps of a picture are there."""
        return all(self.similarity(n, name).exists() for n in classes)

    def link(self, file: Path) -> str:
        return url(file.relative_to(self.out).as_posix())

    def copy_strip(self, run: Path, class_index: int, cluster: int, *, context: bool) -> str:
        """Copy a strip from the run if it is not there yet; returns its URL."""
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
    """The pictures to show: of each class some that lie evenly in the data set, the first and the last among them.

    Args:
        mapped: bool (n, c), which classes of each picture are mapped.
        count: pictures of a class.

    Returns:
        {picture: its classes that show it}, pictures ascending.
    """
    chosen = defaultdict(list)
    for n in range(mapped.shape[1]):
        having = np.flatnonzero(mapped[:, n])
        for place in np.unique(np.linspace(0, len(having) - 1, min(count, len(having))).round().astype(int)):
            chosen[int(having[place])].append(n)
    return dict(sorted(chosen.items()))


def _mapped(source: RecordSource, maps: MapFolder, classes: int) -> np.ndarray:
    """Which classes of each picture are mapped, bool (n, c)."""
    mapped = np.zeros((len(source), classes), bool)
    for index, name in enumerate(source.ids):
        if maps.file(name).exists():
            mapped[index, maps.read_one(name, "classes")] = True
    return mapped


def _write_similarities(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    files: _Files,
    chosen: dict[int, list[int]],
    *,
    devices: Mesh,
) -> None:
    """Similarity maps of the pictures that lack any, in one small pass at scale 1."""
    shown = Subset(source, list(chosen))
    missing = [
        number
        for number, (name, of_picture) in enumerate(zip(shown.ids, chosen.values(), strict=True))
        if not files.complete(name, of_picture)
    ]
    if not missing:
        return
    network = inference_network(run.config, state, len(run.class_names), devices=devices)
    floor = floor_of(network_of(run.config, len(run.class_names)).backbone)
    centres = jnp.concatenate([prototypes.class_centres, prototypes.context_centres], axis=1)
    results = network.run(
        similarities,
        shown,
        scales=[1.0],
        batches=replace(run.config.inference, max_shapes=2),
        constants=[centres],
        description="prototypes",
        only=missing,
    )
    with closing(results):
        for number, record, outputs in results:
            if isinstance(record, UserError):  # mapped before, and not shown now
                continue
            for n in chosen[list(chosen)[number]]:
                write_atomically(
                    files.similarity(n, record.id), png(atlas(outputs[0]["similarity"][:, :, n], floor=floor))
                )


def similarities(model: Classifier, pictures: jax.Array, sizes: jax.Array, centres: jax.Array) -> Outputs:
    """Cosines float32 (b, h', w', c, k) with centres (c, k, d), of the features that LPCAM sees."""
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    return {"similarity": similarity_maps(straight + mirrored, centres)}


def floor_of(backbone: Backbone) -> float:
    """The least cosine that two features of a backbone can have."""
    return 0.0 if backbone.nonnegative else -1.0


def atlas(maps: np.ndarray, *, floor: float = 0.0) -> np.ndarray:
    """Maps below each other in one grey picture.

    Args:
        maps: float (h, w, m), cosines; clipped to [floor, 1].
        floor: the cosine that becomes black.

    Returns:
        uint8 (m (h + 2), w + 2): each map with its edge repeated once around it, so that a browser that enlarges it
        does not mix it with its neighbours.
    """
    grey = np.rint(255 * (np.clip(maps, floor, 1) - floor) / (1 - floor)).astype(np.uint8)
    return np.concatenate([np.pad(one, 1, mode="edge") for one in np.moveaxis(grey, -1, 0)])


def _sizes(source: RecordSource, files: _Files, chosen: dict[int, list[int]]) -> dict[int, tuple[int, int]]:
    """(H, W) of the chosen pictures that can be shown; one that was mapped may be gone by now."""
    sizes = {}
    for index, of_picture in chosen.items():
        if files.complete(source.ids[index], of_picture):
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
    stride: int,
    floor: float,
) -> MappedPicture:
    """A picture as the page wants it."""
    file = files.similarity(class_index, name)
    try:
        with Image.open(file) as picture:
            grey = np.asarray(picture)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}); delete it and run infer.py again.") from None
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
