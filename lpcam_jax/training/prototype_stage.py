"""After the classifier: its local features, clustered, selected, stored with the run.

pictures -> CAM (several scales) -> split of the features (scale 1, no mirror image) -> bounded sample
         -> spherical k-means of every class and every context -> selection by the classifier
         -> patches of the pictures that show what each centre is (`prototype_patches`)
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..class_activation import cam, resize_nearest
from ..clustering import cluster_classes
from ..config import Config
from ..data.records import RecordSource
from ..devices import jit_forward
from ..errors import UserError
from ..inference import features_of_both, on_picture
from ..local_features import FeatureSample, split
from ..models.folding import fold_batch_norm
from ..passes import Pass, run_passes
from ..prototypes import Prototypes, class_scores, select_prototypes
from .checkpoints import Run, TrainState
from .prototype_patches import nearest_features, write_patches
from .state import graph_of


def make_prototypes(run: Run, state: TrainState, source: RecordSource, *, devices: Mesh) -> Prototypes:
    """Cluster the features of a run's pictures and add the prototypes, and what they look like, to the run.

    Args:
        run: directory and config.
        state: the trained classifier.
        source: labelled pictures.
        devices: the mesh.

    Returns:
        Prototypes of every class; what was selected is printed, a line a class.

    Source: paper section 3.2; reference step "make_lpcam".
    """
    settings, weights = run.config.prototypes, np.asarray(state.parameters["head"])
    (sample,) = sample_features(run.config, state, source, thresholds=(settings.threshold,), devices=devices)
    keys = jax.random.split(jax.random.key(run.config.seed))
    clusters, nearest = [], []
    with tqdm(total=2 * len(source.class_names), desc="clustering", unit="class") as bar:
        for context in (False, True):
            points, point_weights = map(jnp.asarray, sample.points(context=context))
            result = cluster_classes(
                keys[int(context)],
                points,
                point_weights,
                k=settings.clusters,
                update=settings.update,
                restarts=settings.restarts,
            )
            clusters.append(result)
            nearest.append(nearest_features(points, point_weights, sample.positions(context=context), result))
            bar.update(len(source.class_names))
    prototypes = select_prototypes(
        *(one.means for one in clusters), weights, mu_f=settings.mu_f, context=settings.context
    )
    for line in selection_report(source.class_names, prototypes, weights, mu_f=settings.mu_f):
        tqdm.write(line)
    write_patches(run.directory, run.config, source, prototypes, weights, [one.counts for one in clusters], nearest)
    run.save_prototypes(prototypes, step=int(state.step))
    return prototypes


def sample_features(
    config: Config, state: TrainState, source: RecordSource, *, thresholds: Sequence[float], devices: Mesh
) -> list[FeatureSample]:
    """The bounded sample of every class's features and its context's (`local_features`), at each threshold.

    Args:
        config: of the run.
        state: the trained classifier.
        source: labelled pictures; those that cannot be read are left out and named.
        thresholds: tau, one for each sample.
        devices: the mesh.

    Returns:
        A FeatureSample for each threshold.
    """
    settings = config.prototypes
    graph, *_ = graph_of(config, len(source.class_names))
    graph, *folded = fold_batch_norm(graph, state.parameters, state.batch_stats)

    def network(parameters, batch_stats, pictures, sizes, *, keep_features):
        model = nnx.merge(graph, parameters, batch_stats)
        straight, mirrored, _ = features_of_both(model, pictures, sizes)
        weights = model.head[...]
        outputs = {"cam": cam(straight, weights) + cam(mirrored, weights)}
        if keep_features:
            outputs["features"] = straight
        return outputs | {"grid": model.backbone.grid_sizes(sizes)}

    compiled = {keep: jit_forward(partial(network, keep_features=keep)) for keep in (False, True)}
    at_scale = {keep: partial(function, *folded) for keep, function in compiled.items()}
    scales = sorted({1.0, *settings.cam_scales})
    passes = [Pass(scale, at_scale[scale == 1.0]) for scale in scales]
    dimension = state.parameters["head"].shape[0]
    samples = [
        FeatureSample(len(source.class_names), dimension, size=settings.sample, seed=config.seed) for _ in thresholds
    ]
    size = sum(sample.nbytes for sample in samples) / 2**20
    tqdm.write(f"features: at most {settings.sample} a class and set, {size:,.0f} MiB when full")
    skipped: list[str] = []
    drawn = draw_pictures(source.labels, settings.pictures, seed=config.seed)
    only = np.flatnonzero(drawn.any(axis=1))
    if not len(only):
        raise UserError(f"none of the {len(source)} pictures to cluster has a class; choose others with --data.seeds.")
    results = run_passes(
        passes,
        source,
        batches=config.inference,
        devices=devices,
        description="features",
        skipped=skipped,
        only=[int(index) for index in only],
    )
    read = 0
    for index, record, outputs in results:
        read += 1
        features = outputs[scales.index(1.0)]["features"]
        for n in np.flatnonzero(drawn[index]):
            maps = [
                one["cam"][..., n : n + 1]
                for one, scale in zip(outputs, scales, strict=True)
                if scale in settings.cam_scales
            ]
            picture_map = on_picture(maps, record.image.shape[:2], stride=config.model.output_stride)
            on_grid = resize_nearest(picture_map, features.shape[:2])[..., 0]
            for sample, threshold in zip(samples, thresholds, strict=True):
                for context, chosen in enumerate(split(on_grid, threshold=threshold)):
                    for _ in range(drawn[index, n]):
                        sample.add(index, features, int(n), chosen, context=bool(context))
    for line in skipped:
        tqdm.write(f"skipped: {line}")
    if not read:
        raise UserError(f"none of the {len(only)} pictures with a class could be read; see the lines above.")
    return samples


def draw_pictures(labels: np.ndarray, count: int | None, *, seed: int) -> np.ndarray:
    """How often the features of each picture are used for each class.

    Args:
        labels: 0/1 (n, c).
        count: pictures drawn for each class among those that have it, with replacement; None: each once.
        seed: of the draw.

    Returns:
        int (n, c).

    Source: reference step "make_lpcam" on COCO: 100 pictures a class, and one drawn twice counts twice.
    """
    if count is None:
        return labels.astype(int)
    drawn = np.zeros(labels.shape, int)
    for n in range(labels.shape[1]):
        having = np.flatnonzero(labels[:, n])
        if len(having):
            np.add.at(drawn[:, n], np.random.default_rng([seed, n]).choice(having, count), 1)
    return drawn


def selection_report(
    class_names: tuple[str, ...], prototypes: Prototypes, weights: np.ndarray, *, mu_f: float
) -> list[str]:
    """What was selected, a line a class; a class that had to fall back, or has nothing, says so.

    Args:
        class_names: c names.
        prototypes: of the classes.
        weights: float (d, c), the classifier's head.
        mu_f: score a class prototype should have passed.

    Returns:
        c lines.
    """
    scores = np.asarray(class_scores(prototypes.class_centres, weights))
    lines = []
    for n, name in enumerate(class_names):
        kept, context = np.asarray(prototypes.class_mask[n]), np.asarray(prototypes.context_mask[n])
        line = f"{name}: {kept.sum()} class and {context.sum()} context prototypes"
        if not kept.any():
            line += "; no feature belongs to this class: its LPCAM will be empty (is it in any picture?)"
        elif not (scores[n, kept, n] > mu_f).any():
            line += f"; none scored above {mu_f:g}, the best ({scores[n, kept, n].max():.2f}) is used"
        lines.append(line)
    return lines
