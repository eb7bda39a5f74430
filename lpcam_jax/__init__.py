"""From image-level labels to heat maps to segmentation masks, in JAX.

The functions a notebook composes; the files they come from read, in this order, like the paper.
"""

from .class_activation import cam, fuse, normalize, resize_bilinear, resize_nearest
from .clustering import KMeans, cluster_classes, inverse_length, kmeans, kmeans_plus_plus, unit
from .local_features import FeatureSample, split
from .metrics import SeedScores, average_precision, confusion_matrix, iou, seed_scores, threshold_sweep
from .prototype_activation import directions, lpcam, similarity_maps, without_context
from .prototypes import Prototypes, class_scores, select_prototypes
from .seeds import bounding_boxes, confident_labels, seed_mask

__version__ = "0.1.0"

__all__ = [
    "FeatureSample",
    "KMeans",
    "Prototypes",
    "SeedScores",
    "average_precision",
    "bounding_boxes",
    "cam",
    "class_scores",
    "cluster_classes",
    "confident_labels",
    "confusion_matrix",
    "directions",
    "fuse",
    "inverse_length",
    "iou",
    "kmeans",
    "kmeans_plus_plus",
    "lpcam",
    "normalize",
    "resize_bilinear",
    "resize_nearest",
    "seed_mask",
    "seed_scores",
    "select_prototypes",
    "similarity_maps",
    "split",
    "threshold_sweep",
    "unit",
    "without_context",
]
