"""The fully connected CRF in plain NumPy and double precision, with the whole N x N kernels in memory.

Independent of the package, so that the two can disagree. Energies and probabilities are label-first as in pydensecrf,
(n, H, W), images (H, W, 3).
"""

import numpy as np


def unary_from_labels(labels, n, gt_prob):
    """-log p at the label, -log((1 - p) / (n - 1)) elsewhere; label 0 is an ordinary label."""
    energy = np.full((n, *labels.shape), -np.log((1 - gt_prob) / (n - 1)))
    for label in range(n):
        energy[label][labels == label] = -np.log(gt_prob)
    return energy


def unary_from_softmax(probabilities):
    """U = -log(clip(p, 1e-5, 1))."""
    return -np.log(np.clip(probabilities, 1e-5, 1.0))


def kernel(features):
    """exp(-||f_i - f_j||^2 / 2), i = j included, of features (N, d)."""
    difference = features[:, None, :] - features[None, :, :]
    return np.exp(-0.5 * (difference**2).sum(-1))


def normalize(k):
    """D^-1/2 K D^-1/2 with D = K.1 + 1e-20."""
    d = k.sum(1) + 1e-20
    return k / np.sqrt(np.outer(d, d))


def softmax(scores):
    """Over the labels, the first axis."""
    scores = np.exp(scores - scores.max(0))
    return scores / scores.sum(0)


def dense_crf(image, energy, sxy_gaussian, w_gaussian, sxy_bilateral, srgb, w_bilateral, iterations):
    """Q <- softmax(-U + sum_k w_k K~_k Q), from softmax(-U), so many times."""
    n, height, width = energy.shape
    y, x = np.indices((height, width))
    place = np.stack([x.ravel(), y.ravel()], 1).astype(np.float64)
    color = image.reshape(-1, 3).astype(np.float64)
    smooth = normalize(kernel(place / sxy_gaussian))
    appearance = normalize(kernel(np.concatenate([place / sxy_bilateral, color / srgb], 1)))
    energy = energy.reshape(n, -1).astype(np.float64)
    q = softmax(-energy)
    for _ in range(iterations):
        q = softmax(-energy + w_gaussian * (q @ smooth) + w_bilateral * (q @ appearance))
    return q.reshape(n, height, width)
