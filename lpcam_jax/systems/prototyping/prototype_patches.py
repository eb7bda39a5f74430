"""Picture patches that illustrate each prototype, around the features nearest to it.

    prototypes.json        for every cluster: score, whether it was selected, share, and the origin of its patches
    prototypes/STRIP.jpg   its patches side by side, nearest first; see `strip_name`

Both are in the run's directory. They are optional: a run without them, or with those of other prototypes, is valid.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from ...clustering import KMeans, inverse_length, unit
from ...config.common import Clustering
from ...data.records import RecordSource
from ...data.resizing import shrunk_size
from ...machine.errors import UserError
from ...machine.files import write_atomically
from ...prototypes import BOUNDS_OF_FEW, ENOUGH_CLASSES, Prototypes, own_scores
from ...report.overlays import jpeg
from ...results.folder import fingerprint

PATCHES = 8  # per prototype
SIDE = 96  # pixels along a side of a patch in its strip
_CELLS = 6  # feature positions along a side of a patch
_KINDS = ("class", "context")


class Nearest(NamedTuple):
    """The members of every cluster that are nearest to its centre, nearest first.

    Attributes:
        positions: int32 (c, k, m, 3), picture, row and column as in `FeatureSample.positions`; -1 in unused slots.
        cosines: float32 (c, k, m), cosine to the centre.
    """

    positions: np.ndarray
    cosines: np.ndarray


def nearest_features(
    points: np.ndarray, weights: np.ndarray, positions: np.ndarray, clusters: KMeans, *, count: int = PATCHES
) -> Nearest:
    """Find the features that represent each cluster, at most one per picture for variety.

    Only members of the cluster count: otherwise a small cluster would be represented by its neighbours' features. The
    features of one class at a time are on a device.

    Args:
        points: float (c, n, d), the clustered features, on the host.
        weights: float (c, n), 0 for padding points.
        positions: int (c, n, 3), their positions.
        clusters: the clusters of the points, with a leading axis c.
        count: m, features per cluster.

    Returns:
        Nearest.
    """
    assignment = np.asarray(clusters.assignment)
    classes, k, _ = clusters.means.shape
    nearest = Nearest(np.full((classes, k, count, 3), -1, np.int32), np.zeros((classes, k, count), np.float32))
    for n in range(classes):
        cosines = np.asarray(_cosine_to_own_mean(points[n], weights[n], clusters.means[n], assignment[n]))
        for cluster in range(k):
            members = np.flatnonzero((assignment[n] == cluster) & np.isfinite(cosines))
            members = members[np.argsort(-cosines[members], kind="stable")]
            _, first = np.unique(positions[n, members, 0], return_index=True)  # the nearest of each picture
            members = members[np.sort(first)[:count]]
            nearest.positions[n, cluster, : len(members)] = positions[n, members]
            nearest.cosines[n, cluster, : len(members)] = cosines[members]
    return nearest


@jax.jit
def _cosine_to_own_mean(points, weights, means, assignment):
    """Cosine of every point (n, d) to the mean of its cluster, (n,); -inf for padding points and zero vectors."""
    inverse = inverse_length(points)
    # The product with all means needs less memory than gathering a mean for every point.
    products = jnp.einsum("nd,kd->nk", points, unit(means), precision="highest")
    own = jnp.take_along_axis(products, assignment[:, None], axis=1)[:, 0]
    return jnp.where((weights > 0) & (inverse > 0), own * inverse, -jnp.inf)


def patch_box(size: tuple[int, int], row: int, column: int, *, stride: float) -> tuple[int, int, int, int]:
    """The square crop of a picture around a feature.

    Args:
        size: (H, W) of the picture.
        row: row of the feature on its grid.
        column: column of the feature on its grid.
        stride: pixels per feature position.

    Returns:
        (left, top, right, bottom) in pixels: six feature positions wide, but at most half of the picture's shorter
        side, to show a part and not the whole; shifted where needed to stay within the picture.
    """
    side = min(round(_CELLS * stride), max(min(size) // 2, 1))
    top, left = (
        min(max(round((at + 0.5) * stride - side / 2), 0), length - side)
        for at, length in zip((row, column), size, strict=True)
    )
    return left, top, left + side, top + side


def strip_name(class_index: int, cluster: int, *, context: bool) -> str:
    """Name of the file with a prototype's patches; made of numbers, since class names may not be valid file names."""
    return f"{class_index:04}_{_KINDS[context]}_{cluster:02}.jpg"


def strip_file(directory: Path, class_index: int, cluster: int, *, context: bool) -> Path:
    """Path of a prototype's strip of patches in a run, whether or not it exists."""
    return directory / "prototypes" / strip_name(class_index, cluster, context=context)


def write_patches(
    directory: Path,
    settings: Clustering,
    source: RecordSource,
    prototypes: Prototypes,
    weights: np.ndarray,
    counts: Sequence[np.ndarray],
    nearest: Sequence[Nearest],
    *,
    stride: int,
    longest: int | None,
    bias: np.ndarray | None = None,
) -> None:
    """Crop the patches from their pictures and write the files of this module.

    Args:
        directory: directory of the run.
        settings: selection bounds.
        source: the pictures that were clustered; those that cannot be read any more are left out and reported.
        prototypes: the prototypes of c classes, with k clusters each.
        weights: float (d, c), the classifier's head.
        counts: number of features of each cluster, float (c, k), for the classes and for the contexts.
        nearest: nearest features, for the classes and for the contexts.
        stride: pixels per feature position.
        longest: pixels of the longest side to which larger pictures were shrunk, `Data.longest`.
        bias: float (c,), of the head; None: there is none.

    Raises:
        UserError: the files cannot be written.
    """
    index = directory / "prototypes.json"
    index.unlink(missing_ok=True)  # so that it never refers to strips of other prototypes
    patches = _cut(source, nearest, stride=stride, longest=longest)
    centres = prototypes.class_centres, prototypes.context_centres
    masks = prototypes.class_mask, prototypes.context_mask
    classes = [{"name": name} for name in source.class_names]
    for context, kind in enumerate(_KINDS):
        scores = np.asarray(own_scores(centres[context], centres[0], weights, bias=bias))
        selected = np.asarray(masks[context])
        total = np.maximum(np.asarray(counts[context]).sum(axis=1, keepdims=True), 1)
        shares = np.asarray(counts[context]) / total
        for n, entry in enumerate(classes):
            entry[kind] = [
                {
                    "score": float(scores[n, cluster]),
                    "kept": bool(selected[n, cluster]),
                    "share": float(shares[n, cluster]),
                    "patches": [
                        {
                            "id": source.ids[nearest[context].positions[n, cluster, slot, 0]],
                            "box": patches[context, n, cluster, slot][0],
                            "cosine": float(nearest[context].cosines[n, cluster, slot]),
                        }
                        for slot in range(PATCHES)
                        if (context, n, cluster, slot) in patches
                    ],
                }
                for cluster in range(selected.shape[1])
            ]
            for cluster in range(selected.shape[1]):
                places = [(context, n, cluster, slot) for slot in range(PATCHES)]
                strip = [patches[place][1] for place in places if place in patches]
                if strip:
                    file = strip_file(directory, n, cluster, context=bool(context))
                    write_atomically(file, jpeg(np.concatenate(strip, axis=1)))
    chosen = settings.mu_f, settings.context
    mu_f, context_bounds = chosen if len(classes) >= ENOUGH_CLASSES else BOUNDS_OF_FEW
    values = {
        "prototypes": fingerprint(prototypes),
        "mu_f": mu_f,
        "context": list(context_bounds),
        "classes": classes,
    }
    write_atomically(index, json.dumps(values, indent=1).encode())


def read_patches(directory: Path, prototypes: Prototypes) -> dict[str, Any] | None:
    """Read what `write_patches` wrote for these prototypes.

    Args:
        directory: directory of the run.
        prototypes: the run's prototypes.

    Returns:
        {"mu_f", "context": [low, mu_b], "classes": [{"name", "class": [P for every cluster], "context": [P]}]}, P is
        {"score", "kept", "share", "patches": [{"id", "box", "cosine"}]}; None if nothing is stored for them.
    """
    try:
        values = json.loads((directory / "prototypes.json").read_bytes())
        return values if values.pop("prototypes") == fingerprint(prototypes) else None
    except (OSError, ValueError, KeyError):
        return None


def _cut(source: RecordSource, nearest: Sequence[Nearest], *, stride: int, longest: int | None) -> dict[tuple, tuple]:
    """(context, class, cluster, slot) -> (box, patch uint8 (SIDE, SIDE, 3)); every picture is read once."""
    requests = defaultdict(list)
    for context, features in enumerate(nearest):
        for place in np.argwhere(features.positions[..., 0] >= 0):
            picture, row, column = features.positions[tuple(place)].tolist()
            requests[picture].append(((context, *place.tolist()), row, column))

    def cut(picture):
        try:
            image = source[picture].image
        except UserError as error:
            return error
        pixels = stride * max(image.shape[:2]) / max(shrunk_size(image.shape[:2], longest))
        boxes = [patch_box(image.shape[:2], row, column, stride=pixels) for _, row, column in requests[picture]]
        return [(box, _square(image, box)) for box in boxes]

    patches = {}
    with ThreadPoolExecutor(4) as pool:
        results = tqdm(pool.map(cut, requests), total=len(requests), desc="patches", unit="img")
        for of_picture, result in zip(requests.values(), results, strict=True):
            if isinstance(result, UserError):
                tqdm.write(f"skipped: {result}")
                continue
            patches.update((place, patch) for (place, _, _), patch in zip(of_picture, result, strict=True))
    return patches


def _square(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    patch = Image.fromarray(image).crop(box)
    return np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
