"""LPCAM's equation in torch: as the reference computes it, in one product, and collapsed; and plain CAM."""

from collections.abc import Callable

import torch
from torch.nn.functional import cosine_similarity, normalize

from benchmarks import draws
from benchmarks.contestant import Ready


def loop(blocks: int) -> Ready:
    """As the reference does: the cosine of each prototype, repeated to the block's shape, with the block (NCHW)."""
    centres = _centres()

    def one(block, centre):
        return cosine_similarity(block, centre[:, None, None].expand_as(block), dim=0)

    def maps(block):
        kinds = [[torch.stack([one(block, c) for c in of_class]).mean(0) for of_class in kind] for kind in centres]
        return torch.relu(torch.stack(kinds[0]) - torch.stack(kinds[1]))

    features = torch.from_numpy(draws.features(blocks)).permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def run():
        return torch.stack([maps(block) for block in features])

    return Ready(run, lambda result: {"maps": result.permute(0, 2, 3, 1).numpy()})


def product(blocks: int) -> Ready:
    """One product with all prototypes, then the means."""
    both = normalize(_centres(), dim=-1).flatten(0, 2).T.contiguous()

    def maps(features):
        means = (normalize(features, dim=-1) @ both).unflatten(-1, (2, draws.CLASSES, -1)).mean(-1)
        return torch.relu(means[..., 0, :] - means[..., 1, :])

    return _on_features(blocks, maps)


def collapsed(blocks: int) -> Ready:
    """One direction a class, made once, on features of length one."""
    of_class, of_context = normalize(_centres(), dim=-1).mean(2)
    directions = (of_class - of_context).T.contiguous()
    return _on_features(
        blocks, lambda features: torch.relu(features @ directions / features.norm(dim=-1, keepdim=True))
    )


def plain(blocks: int) -> Ready:
    """CAM."""
    head = torch.from_numpy(draws.head())
    return _on_features(blocks, lambda features: torch.relu(features @ head), name="cam")


def _centres() -> torch.Tensor:
    """(class or context, c, k, d)."""
    return torch.stack([torch.from_numpy(kind) for kind in draws.prototypes()])


def _on_features(blocks: int, maps: Callable, name: str = "maps") -> Ready:
    """Features lie in memory as after a network in channels last, torch's fastest: (b, h, w, d)."""
    features = torch.from_numpy(draws.features(blocks))

    @torch.inference_mode()
    def run():
        return maps(features)

    return Ready(run, lambda result: {name: result.numpy()})
