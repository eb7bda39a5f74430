"""The steps of the official LPCAM code in plain NumPy, one function per step, in the reference's own order.

Independent of the package, so that the two can disagree. Arrays are channel-first as in the reference: features (C, h,
w), maps (n, H, W), classifier weights (N, C). The features of a picture are a list over scales of pairs (features of
the picture, features of its mirror image).
"""

import numpy as np


def ceil_div(size, stride):
    """Sizes of the stride-4 and stride-16 grids: (H - 1) // stride + 1."""
    return (size - 1) // stride + 1


def resize_bilinear(maps, height, width):
    """Half-pixel centres, no antialiasing, of (..., h, w), as torch with align_corners=False."""

    def taps(size_in, size_out):
        source = np.maximum((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0.0)
        low = np.floor(source).astype(int)
        return low, np.minimum(low + 1, size_in - 1), source - low

    top, bottom, down = taps(maps.shape[-2], height)
    left, right, across = taps(maps.shape[-1], width)
    rows = maps[..., top, :] * (1 - down)[:, None] + maps[..., bottom, :] * down[:, None]
    return rows[..., left] * (1 - across) + rows[..., right] * across


def resize_nearest(maps, height, width):
    """torch's nearest, index floor(i * in / out), of (..., h, w)."""
    rows = [i * maps.shape[-2] // height for i in range(height)]
    columns = [j * maps.shape[-1] // width for j in range(width)]
    return maps[..., rows, :][..., columns]


def mirror(maps):
    """Left to right."""
    return maps[..., ::-1]


# Class activation maps


def scale_cam(pair, weights):
    """A_s: relu(W f(x)) + flip(relu(W f(flip x))), the relu before the sum; (N, h, w)."""
    picture, mirrored = (np.maximum(np.einsum("nc,chw->nhw", weights, features), 0) for features in pair)
    return picture + mirror(mirrored)


def sum_over_scales(maps, height, width):
    """The maps of all scales at stride 4, and at full size by way of the stride-16 canvas."""
    strided, high = 0.0, 0.0
    for one in maps:
        strided = strided + resize_bilinear(one, ceil_div(height, 4), ceil_div(width, 4))
        high = high + resize_bilinear(one, 16 * ceil_div(height, 16), 16 * ceil_div(width, 16))[..., :height, :width]
    return strided, high


def cam(pairs, weights, labels, height, width):
    """Keys, strided CAM and high-res CAM of the ground-truth classes, each over its maximum + 1e-5."""
    keys = np.flatnonzero(labels)
    strided, high = sum_over_scales([scale_cam(pair, weights) for pair in pairs], height, width)
    strided, high = strided[keys], high[keys]
    strided = strided / (strided.max(axis=(1, 2), keepdims=True) + 1e-5)
    high = high / (high.max(axis=(1, 2), keepdims=True) + 1e-5)
    return keys, strided, high


# Prototypes


def draw_pictures(labels, count, draw):
    """COCO: `count` of each class's pictures with replacement, classes in order; labels is (pictures, N).

    `draw(pictures, count)` is the reference's generator. A picture drawn twice is listed twice, so it counts twice.
    """
    return [list(draw(np.flatnonzero(labels[:, n]), count)) for n in range(labels.shape[1])]


def split_features(features, saved_cam, tau):
    """Rows of `features` where the saved high-res CAM of one class is > tau, and where it is < tau."""
    on_grid = resize_nearest(saved_cam, *features.shape[1:])
    return features[:, on_grid > tau].T, features[:, on_grid < tau].T


def cluster(rows, centres, tol=5.0):
    """kmeans_pytorch 0.3: cosine assignment, means of the raw rows, until (sum_k shift_k)^2 < tol."""
    centres = centres.copy()
    unit_rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    iterations = 0
    while True:
        unit_centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        assignment = np.argmin(1 - unit_rows @ unit_centres.T, axis=1)
        previous = centres.copy()
        for k in range(len(centres)):
            assert (assignment == k).any(), "an empty cluster, on which the reference never ends"
            centres[k] = rows[assignment == k].mean(axis=0)
        shift = sum(np.linalg.norm(centres[k] - previous[k]) for k in range(len(centres)))
        iterations += 1
        if shift**2 < tol:
            return centres, assignment, iterations


def scores(centres, weights):
    """P: softmax over the CLASSES of the raw centres' logits, (K, N)."""
    logits = centres @ weights.T
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


VOC_BOUNDS = {"mu_f": 0.9, "low": 0.05, "mu_b": 0.9}
COCO_BOUNDS = {"mu_f": 0.9, "low": 0.0, "mu_b": 0.5}


def select(f_centres, b_centres, weights, n, bounds, fallback=True):
    """class prototypes (> mu_f, else the arg-max rows if `fallback`) and context prototypes of class n.

    The reference has the fallback on COCO only; on VOC a class without prototypes crashes in a later step.
    """
    p_class, p_context = scores(f_centres, weights)[:, n], scores(b_centres, weights)[:, n]
    kept = p_class > bounds["mu_f"]
    if fallback and not kept.any():
        kept = np.abs(p_class - p_class.max()) < 1e-6
    return f_centres[kept], b_centres[(p_context > bounds["low"]) & (p_context < bounds["mu_b"])]


# LPCAM


def cosine(features, prototype):
    """torch's cosine_similarity at every position, eps 1e-8 on the product of the norms; (h, w)."""
    norms = np.linalg.norm(features, axis=0) * np.linalg.norm(prototype)
    return np.einsum("chw,c->hw", features, prototype) / np.maximum(norms, 1e-8)


def scale_lpcam(pair, class_prototypes, context_prototypes):
    """a_s: mean class cosine less mean context cosine; without context neither subtraction nor relu."""
    features = pair[0] + mirror(pair[1])
    foreground = sum(cosine(features, prototype) for prototype in class_prototypes) / len(class_prototypes)
    if len(context_prototypes) == 0:
        return foreground
    background = sum(cosine(features, prototype) for prototype in context_prototypes) / len(context_prototypes)
    return np.maximum(foreground - background, 0)


def lpcam(pairs, prototypes, labels, height, width, combine="mean", with_context=True):
    """Keys, strided and high-res maps of the ground-truth classes, each over its maximum (no epsilon).

    `prototypes` is a list over classes of (class prototypes, context prototypes). The scales are combined by their
    "mean" on VOC and by their "sum" on COCO. Without context it is LPCAM-F.
    """
    keys = np.flatnonzero(labels)
    strided, high = [], []
    for n in keys:
        class_prototypes, context_prototypes = prototypes[n]
        context_prototypes = context_prototypes if with_context else context_prototypes[:0]
        maps = [scale_lpcam(pair, class_prototypes, context_prototypes) for pair in pairs]
        low_map, high_map = sum_over_scales(maps, height, width)
        divisor = len(pairs) if combine == "mean" else 1
        strided.append(low_map / divisor)
        high.append(high_map / divisor)
    return keys, [one / one.max() for one in strided], [one / one.max() for one in high]


# Seeds and their scores


def seed(keys, maps, threshold):
    """Arg-max of [threshold, maps...], ties to the earlier channel, mapped through [0, keys + 1]."""
    channels = np.concatenate([np.full((1, *maps.shape[1:]), threshold, maps.dtype), maps])
    return np.concatenate([[0], np.asarray(keys, int) + 1])[np.argmax(channels, axis=0)]


def confusion(masks, truths, number):
    """Counts (ground truth, prediction) over all pictures; 255 in the ground truth (-1) is not counted."""
    counts = np.zeros((number, number), int)
    for mask, truth in zip(masks, truths, strict=True):
        truth = np.where(truth == 255, -1, truth.astype(int))
        np.add.at(counts, (truth[truth >= 0], mask[truth >= 0]), 1)
    return counts


def seed_report(counts):
    """IoU of every class, mIoU, FP and FN over the union in the foreground, precision and recall.

    Classes that are in neither mask nor ground truth are NaN and left out of every mean. Whether Table 1 takes its
    precision and recall over 20 or 21 classes is not known: both lists are whole.
    """
    diagonal, truth, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    union = truth + predicted - diagonal
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = diagonal / union
        false_positive, false_negative = 1 - truth / union, 1 - predicted / union
        precision, recall = diagonal / predicted, diagonal / truth
    return {
        "iou": iou,
        "miou": np.nanmean(iou),
        "fp": np.nanmean(false_positive[1:]),
        "fn": np.nanmean(false_negative[1:]),
        "precision": precision,
        "recall": recall,
        # of the pixels predicted as foreground, the share whose ground truth is background ("cam eval")
        "background_share": (predicted[1:].sum() - counts[1:, 1:].sum()) / predicted[1:].sum(),
    }
