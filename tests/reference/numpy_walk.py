"""IRN's random walk with its dense matrix, and EDAM's saliency rule, in plain NumPy and float64.

Independent of the package, so that the two can disagree. Channel-first.
"""

import numpy as np


def path_cells(dy, dx):
    """The cells of the bounding box at a squared distance of less than 1 from the line."""
    rows, columns = range(min(0, dy), max(0, dy) + 1), range(min(0, dx), max(0, dx) + 1)
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 / (dy**2 + dx**2) < 1]


def transition(edge, radius, beta, doublings):
    """T^(2^doublings) of an edge map (h, w); (h w, h w)."""
    height, width = edge.shape
    padded = np.pad(edge, ((0, radius), (radius, radius)), constant_values=1.0)
    rows, columns = padded.shape
    matrix = np.eye(rows * columns)
    for dy in range(radius):
        for dx in range(-radius + 1, radius):
            if (dy == 0 and dx <= 0) or dy**2 + dx**2 >= radius**2:
                continue
            cells = path_cells(dy, dx)
            for y in range(rows - radius + 1):
                for x in range(radius - 1, columns - radius + 1):
                    value = 1 - max(padded[y + cy, x + cx] for cy, cx in cells)
                    i, j = y * columns + x, (y + dy) * columns + x + dx
                    matrix[i, j] = matrix[j, i] = value
    kept = np.arange(rows * columns).reshape(rows, columns)[:height, radius : radius + width].reshape(-1)
    matrix = matrix[np.ix_(kept, kept)] ** beta
    matrix = matrix / matrix.sum(axis=0, keepdims=True)
    for _ in range(doublings):
        matrix = matrix @ matrix
    return matrix


def random_walk(x, edge, radius=5, beta=10, doublings=8):
    """Maps x (n, h, w), weakened on edges, as row vectors times the matrix."""
    weak = x * (1 - edge)
    return (weak.reshape(len(x), -1) @ transition(edge, radius, beta, doublings)).reshape(x.shape)


def background_and_maps(maps, alpha):
    """bg = (1 - max_c map)^alpha in front of maps (n, H, W)."""
    return np.stack([(1 - np.max(maps, axis=0)) ** alpha, *maps])


def saliency_rule(scores, saliency, theta=0.2, alpha_s=1e-6, beta_s=0.99999):
    """The mask of CRF scores (n + 1, H, W) and 8-bit saliency (H, W)."""
    scores = scores.copy()
    low, high = scores < alpha_s, scores > beta_s
    scores[low], scores[high] = -2, 2
    scores[0] = np.where(saliency <= 100 * theta, 1, 0)
    return np.argmax(scores, axis=0)
