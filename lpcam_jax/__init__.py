"""From image-level labels to heat maps to segmentation masks, in JAX.

These are the building blocks for notebooks; their modules follow the order of the paper. `load` opens a run of
train.py. Docstrings name Chen and Sun's paper (CVPR 2023) as "paper", and the authors' code,
github.com/zhaozhengChen/LPCAM, as "reference", with its steps.
"""

from pathlib import Path
from typing import Any

from .class_activation import cam, fuse, normalize, resize_bilinear, resize_nearest
from .clustering import KMeans, cluster_classes, inverse_length, kmeans, kmeans_plus_plus, unit
from .local_features import FeatureSample, split
from .machine.errors import UserError
from .metrics import (
    SeedScores,
    average_precision,
    confusion_matrix,
    iou,
    mean_average_precision,
    seed_scores,
    threshold_sweep,
)
from .prototype_activation import directions, evidence, lpcam, similarity_maps, without_context
from .prototypes import Prototypes, class_scores, own_scores, select_prototypes
from .seeds import (
    bounding_boxes,
    confident_labels,
    ir_labels,
    largest_component,
    otsu_threshold,
    percentile_threshold,
    seed_mask,
    with_class_values,
)

__version__ = "0.2.0"

__all__ = [
    "FeatureSample",
    "KMeans",
    "Prototypes",
    "SeedScores",
    "UserError",
    "average_precision",
    "bounding_boxes",
    "cam",
    "class_scores",
    "cluster_classes",
    "confident_labels",
    "confusion_matrix",
    "directions",
    "evidence",
    "fuse",
    "inverse_length",
    "iou",
    "ir_labels",
    "kmeans",
    "kmeans_plus_plus",
    "largest_component",
    "load",
    "lpcam",
    "mean_average_precision",
    "normalize",
    "otsu_threshold",
    "own_scores",
    "percentile_threshold",
    "resize_bilinear",
    "resize_nearest",
    "seed_mask",
    "seed_scores",
    "select_prototypes",
    "similarity_maps",
    "split",
    "threshold_sweep",
    "unit",
    "with_class_values",
    "without_context",
]


def load(directory: str | Path, **inference: Any) -> Any:
    """Load a finished run as a function of pictures: `load("runs/demo")("cat.jpg").maps["lpcam"]`.

    Args:
        directory: the --workdir of a run of train.py, a packed run, or "hf:OWNER/NAME" of the Hub: of a classifier,
            with its prototypes, or of a segmentation network.
        inference: settings that replace the run's, as infer.py's flags --inference.* do: `affinity=5` makes LPCAM-A's
            maps, too, `scales=(1.0, 0.5)` is faster.

    Returns:
        What the run's system makes of it; call it on pictures. Of a classifier, a `TrainedModel`, whose results have
        maps; it has class_names, config, head (d, c), prototypes and features(picture). Of a segmentation network, a
        `TrainedSegmenter`, whose results have a mask (H, W); it has class_names and config.

    Raises:
        UserError: there is no such run, it has no checkpoint or no prototypes yet, or its kind is no function of
            pictures (IRN, psa, AMN, MCTformer, EDAM: use infer.py), or a setting is outside its limits. A segmentation
            network that is not finished is loaded with a note.
        TypeError: its system has no setting of that name.
    """
    from dataclasses import replace

    from .config.numbers import check_numbers
    from .training.run import Run

    run = Run.open(directory)
    if inference:
        run = run.with_inference(replace(run.config.inference, **inference))
        check_numbers(run.config)
    return run.system.as_function(run)
