"""What a prototype looks like: the patches of the training pictures around the features nearest to it.

    prototypes.json        of every cluster: score, whether it was kept, share, and where its patches are from
    prototypes/STRIP.jpg   its patches side by side, the nearest first; see `strip_name`

Both lie in the run's directory. A run without them, or with those of other prototypes, is a whole run all the same.
"""

import io
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
from ...data.records import RecordSource
from ...machine.errors import UserError
from ...machine.files import write_atomically
from ...prototypes import Prototypes, class_scores
from ...results.folder import fingerprint
from .config import Clustering

PATCHES = 8  # a prototype
SIDE = 96  # pixels of a patch in its strip
_CELLS = 6  # feature positions that a patch is wide
_KINDS = ("class", "context")


class Nearest(NamedTuple):
    """The members of every cluster that are nearest to its centre, the nearest first.

    positions: int32 (c, k, m, 3), picture, row and column as in `FeatureSample.positions`; -1 where there are fewer
    cosines:   float32 (c, k, m), to the centre
    """

    positions: np.ndarray
    cosines: np.ndarray


def nearest_features(
    points: jax.Array, weights: jax.Array, positions: np.ndarray, clusters: KMeans, *, count: int = PATCHES
) -> Nearest:
    """The features that show what a cluster is: at most one a picture, so that they show it in many.

    Members of the cluster only: a small cluster would else be shown by features of its neighbours.

    Args:
        points: float (c, n, d), the clustered features.
        weights: float (c, n), 0: the point does not exist.
        positions: int (c, n, 3), where they come from.
        clusters: of the points, with a leading axis c.
        count: m.

    Returns:
        Nearest.
    """
    cosines = np.asarray(_cosine_to_own_mean(points, weights, clusters.means, clusters.assignment))
    assignment = np.asarray(clusters.assignment)
    classes, k, _ = clusters.means.shape
    found = Nearest(np.full((classes, k, count, 3), -1, np.int32), np.zeros((classes, k, count), np.float32))
    for n, cluster in np.ndindex(classes, k):
        members = np.flatnonzero((assignment[n] == cluster) & np.isfinite(cosines[n]))
        members = members[np.argsort(-cosines[n, members], kind="stable")]
        _, first = np.unique(positions[n, members, 0], return_index=True)  # of each picture its nearest
        members = members[np.sort(first)[:count]]
        found.positions[n, cluster, : len(members)] = positions[n, members]
        found.cosines[n, cluster, : len(members)] = cosines[n, members]
    return found


@jax.jit
def _cosine_to_own_mean(points, weights, means, assignment):
    """Cosine of every point to the mean of its cluster, (c, n); -inf for points that do not exist."""
    inverse = inverse_length(points)
    # The product with all means needs less memory than a gathered mean a point.
    products = jnp.einsum("cnd,ckd->cnk", points, unit(means), precision="highest")
    own = jnp.take_along_axis(products, assignment[..., None], axis=2)[..., 0]
    return jnp.where((weights > 0) & (inverse > 0), own * inverse, -jnp.inf)


def patch_box(size: tuple[int, int], row: int, column: int, *, stride: int) -> tuple[int, int, int, int]:
    """The square of a picture around a feature.

    Args:
        size: (H, W) of the picture.
        row: of the feature on its grid.
        column: likewise.
        stride: pixels a feature position.

    Returns:
        (left, top, right, bottom) in pixels, within the picture: six feature positions wide, but at most half of the
        picture's shorter side, for a part is to be seen and not the whole; shifted where it would leave the picture.
    """
    side = min(_CELLS * stride, max(min(size) // 2, 1))
    top, left = (
        min(max(round((at + 0.5) * stride - side / 2), 0), length - side)
        for at, length in zip((row, column), size, strict=True)
    )
    return left, top, left + side, top + side


def strip_name(class_index: int, cluster: int, *, context: bool) -> str:
    """Name of the file with a prototype's patches; of numbers, for a class may have any name."""
    return f"{class_index:04}_{_KINDS[context]}_{cluster:02}.jpg"


def strip_file(directory: Path, class_index: int, cluster: int, *, context: bool) -> Path:
    """Where in a run the patches of a prototype are, or would be."""
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
) -> None:
    """Cut the patches out of their pictures and write the files of this module.

    Args:
        directory: of the run.
        settings: how they were selected.
        source: the pictures that were clustered; one that cannot be read again is left out and named.
        prototypes: of c classes, with k clusters each.
        weights: float (d, c), the classifier's head.
        counts: features of the clusters, float (c, k), of the classes and of the contexts.
        nearest: of the clusters of the classes and of the contexts.
        stride: pixels a feature position.

    Raises:
        UserError: the files cannot be written.
    """
    index = directory / "prototypes.json"
    index.unlink(missing_ok=True)  # it never speaks of strips of other prototypes
    patches = _cut(source, nearest, stride=stride)
    centres = prototypes.class_centres, prototypes.context_centres
    masks = prototypes.class_mask, prototypes.context_mask
    classes = [{"name": name} for name in source.class_names]
    for context, kind in enumerate(_KINDS):
        scores, kept = np.asarray(class_scores(centres[context], weights)), np.asarray(masks[context])
        total = np.maximum(np.asarray(counts[context]).sum(axis=1, keepdims=True), 1)
        shares = np.asarray(counts[context]) / total
        for n, one in enumerate(classes):
            one[kind] = [
                {
                    "score": float(scores[n, cluster, n]),
                    "kept": bool(kept[n, cluster]),
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
                for cluster in range(kept.shape[1])
            ]
            for cluster in range(kept.shape[1]):
                places = [(context, n, cluster, slot) for slot in range(PATCHES)]
                strip = [patches[place][1] for place in places if place in patches]
                if strip:
                    file = strip_file(directory, n, cluster, context=bool(context))
                    write_atomically(file, jpeg(np.concatenate(strip, axis=1)))
    values = {
        "prototypes": fingerprint(prototypes),
        "mu_f": settings.mu_f,
        "context": list(settings.context),
        "classes": classes,
    }
    write_atomically(index, json.dumps(values, indent=1).encode())


def read_patches(directory: Path, prototypes: Prototypes) -> dict[str, Any] | None:
    """What `write_patches` wrote of these prototypes.

    Args:
        directory: of the run.
        prototypes: of the run.

    Returns:
        {"mu_f", "context": [low, mu_b], "classes": [{"name", "class": [P for every cluster], "context": [P]}]}, P is
        {"score", "kept", "share", "patches": [{"id", "box", "cosine"}]}; None where nothing is known of them.
    """
    try:
        values = json.loads((directory / "prototypes.json").read_bytes())
        return values if values.pop("prototypes") == fingerprint(prototypes) else None
    except (OSError, ValueError, KeyError):
        return None


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _cut(source: RecordSource, nearest: Sequence[Nearest], *, stride: int) -> dict[tuple, tuple]:
    """(context, class, cluster, slot) -> (box, patch uint8 (SIDE, SIDE, 3)); every picture is read once."""
    wanted = defaultdict(list)
    for context, one in enumerate(nearest):
        for place in np.argwhere(one.positions[..., 0] >= 0):
            picture, row, column = one.positions[tuple(place)].tolist()
            wanted[picture].append(((context, *place.tolist()), row, column))

    def cut(picture):
        try:
            image = source[picture].image
        except UserError as error:
            return error
        boxes = [patch_box(image.shape[:2], row, column, stride=stride) for _, row, column in wanted[picture]]
        return [(box, _square(image, box)) for box in boxes]

    patches = {}
    with ThreadPoolExecutor(4) as pool:
        results = tqdm(pool.map(cut, wanted), total=len(wanted), desc="patches", unit="img")
        for of_picture, result in zip(wanted.values(), results, strict=True):
            if isinstance(result, UserError):
                tqdm.write(f"skipped: {result}")
                continue
            patches.update((place, patch) for (place, _, _), patch in zip(of_picture, result, strict=True))
    return patches


def _square(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    patch = Image.fromarray(image).crop(box)
    return np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
