"""The reference's steps "make_cam" and "make_lpcam" as one lean torch script: photographs to maps, nothing else.

    python -m benchmarks.peers.infer_torch --pictures 40 --out OUT [--compile] [--limit 2]

Worker processes decode and resize ahead; a picture and its mirror image are one batch a scale, channels last; LPCAM by
one direction a class. Writes the same npz as infer.py.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from benchmarks import draws
from benchmarks.peers.resnet import drawn, normalized

SCALES = (1.0, 0.5, 1.5, 2.0)


class Photographs(torch.utils.data.Dataset):
    """(id, classes, (H, W), the picture at every scale)."""

    def __init__(self, folder: Path, limit: int | None):
        with (folder / "labels.csv").open() as file:
            rows = list(csv.reader(file))[1:]
        self.rows, self.folder = rows[:limit], folder / "images"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        name, labels = self.rows[index]
        picture = Image.open(self.folder / f"{name}.jpg").convert("RGB")
        sizes = [tuple(int(np.round(length * scale)) for length in picture.size) for scale in SCALES]
        scaled = [np.array(picture.resize(size, Image.Resampling.BICUBIC)) for size in sizes]
        classes = [draws.CLASS_NAMES.index(label) for label in labels.split()]
        return name, classes, picture.size[::-1], [torch.from_numpy(one) for one in scaled]


def main() -> None:
    """Map all photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    (arguments.out / "maps").mkdir(parents=True)

    network = drawn().to(memory_format=torch.channels_last)
    of_class, of_context = (normalize(torch.from_numpy(kind), dim=-1).mean(1) for kind in draws.prototypes())
    kernels = torch.cat([of_class, of_class - of_context])[:, :, None, None]
    head = network.fc.weight[:, :, None, None]

    def maps_at_scale(picture):
        images = normalized(torch.stack([picture, picture.flip(1)]))
        features = network.features(images)["layer4"]
        cam = torch.relu(torch.conv2d(features, head))
        both = features[:1] + features[1:].flip(3)
        found = torch.relu(torch.conv2d(both, kernels) / both.norm(dim=1, keepdim=True))
        return torch.cat([cam[:1] + cam[1:].flip(3), found], dim=1)

    if arguments.compile:
        maps_at_scale = torch.compile(maps_at_scale, dynamic=True)
    photographs = Photographs(draws.photographs(arguments.pictures), arguments.limit)
    loader = torch.utils.data.DataLoader(photographs, batch_size=None, num_workers=1, prefetch_factor=4)
    with torch.inference_mode():
        for name, classes, (height, width), scaled in loader:
            extent = (-(-height // 16) * 16, -(-width // 16) * 16)
            rows = [n + kind * draws.CLASSES for kind in range(3) for n in classes]
            maps = sum(
                interpolate(maps_at_scale(one)[:, rows], extent, mode="bilinear")[0, :, :height, :width]
                for one in scaled
            )
            cam, lpcam_f, lpcam = maps.split(len(classes))
            methods = {"cam": (cam, 1e-5), "lpcam_f": (lpcam_f, 0.0), "lpcam": (lpcam, 0.0)}
            arrays = {}
            for method, (of_method, epsilon) in methods.items():
                top = of_method.amax(dim=(1, 2), keepdim=True)
                arrays[method] = (of_method / (top + epsilon)).nan_to_num(0).numpy().astype(np.float16)
            names = np.array([draws.CLASS_NAMES[n] for n in classes])
            np.savez(arguments.out / "maps" / f"{name}.npz", classes=np.int16(classes), names=names, **arrays)


if __name__ == "__main__":
    main()
