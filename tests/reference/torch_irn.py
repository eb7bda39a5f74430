"""IRN's paths, affinities and losses in plain torch: gathers of flat indices, in the reference's own order.

Independent of the package, so that the two can disagree. Channel-first, as the reference.
"""

import torch


def path_groups(radius):
    """Lists of paths by length, ascending; a path lists (y, x) cells, its destination first."""
    directions = [(0, x) for x in range(1, radius)]
    for y in range(1, radius):
        directions += [(y, x) for x in range(-radius + 1, radius) if x * x + y * y < radius**2]
    groups = {}
    for dy, dx in directions:
        rows, columns = range(min(0, dy), max(0, dy) + 1), range(min(0, dx), max(0, dx) + 1)
        path = [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 / (dx * dx + dy * dy) < 1]
        path.sort(key=lambda cell: -(abs(cell[0]) + abs(cell[1])))
        groups.setdefault(len(path), []).append(path)
    return [groups[length] for length in sorted(groups)]


def source_indices(radius, height, width):
    """Flat indices of the sources, row by row."""
    r = radius - 1
    rows, columns = torch.arange(height - r), torch.arange(r, width - r)
    return (rows[:, None] * width + columns[None]).reshape(-1)


def affinities(edge, radius):
    """1 - the max over each path, of edge (b, h, w); (b, directions, sources)."""
    _, height, width = edge.shape
    flat, source = edge.reshape(len(edge), -1), source_indices(radius, height, width)
    result = []
    for group in path_groups(radius):
        offsets = torch.tensor([[y * width + x for y, x in path] for path in group])
        index = offsets[:, :, None] + source  # (directions, cells, sources)
        values = flat[:, index.reshape(-1)].reshape(len(edge), *index.shape)
        result.append(1 - values.max(dim=2).values)
    return torch.cat(result, dim=1)


def pairs(grid, radius):
    """What is at the sources, (..., 1, sources), and at their destinations, (..., directions, sources)."""
    height, width = grid.shape[-2:]
    flat, source = grid.reshape(*grid.shape[:-2], -1), source_indices(radius, height, width)
    ends = [path[0][0] * width + path[0][1] for group in path_groups(radius) for path in group]
    return flat[..., source][..., None, :], flat[..., torch.tensor(ends)[:, None] + source]


def pair_labels(label, radius, num_classes):
    """bg_pos, fg_pos and neg of labels (b, h, w); num_classes counts the background."""
    start, end = pairs(label, radius)
    valid = (start < num_classes) & (end < num_classes)
    equal = start == end
    return valid & equal & (start == 0), valid & equal & (start > 0), valid & ~equal


def losses(edge, displacement, label, radius, num_classes):
    """The affinity half and the displacement half of the total; displacement is (b, 2, h, w)."""
    bg_pos, fg_pos, neg = (mask.to(edge.dtype) for mask in pair_labels(label, radius, num_classes))
    a = affinities(edge, radius)
    pos_loss, neg_loss = -torch.log(a + 1e-5), -torch.log(1 + 1e-5 - a)
    l_pos = 0.5 * (bg_pos * pos_loss).sum() / (bg_pos.sum() + 1e-5)
    l_pos = l_pos + 0.5 * (fg_pos * pos_loss).sum() / (fg_pos.sum() + 1e-5)
    l_neg = (neg * neg_loss).sum() / (neg.sum() + 1e-5)

    start, end = pairs(displacement, radius)
    delta = start - end  # (b, 2, directions, sources)
    target = torch.tensor([path[0] for group in path_groups(radius) for path in group], dtype=edge.dtype).T
    l_fg = (fg_pos[:, None] * (delta - target[None, :, :, None]).abs()).sum() / (2 * fg_pos.sum() + 1e-5)
    l_bg = (bg_pos[:, None] * delta.abs()).sum() / (2 * bg_pos.sum() + 1e-5)
    return (l_pos + l_neg) / 2, (l_fg + l_bg) / 2
