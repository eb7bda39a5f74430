"""Training pictures a second that the host makes for the device: JPEGs read, augmented and put into batches.

What a step takes is in the rows of the steps: a feed that is slower than these keeps the device waiting.
"""

import io
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from benchmarks import draws
from benchmarks.accelerator.part import Programs, Row, timed
from benchmarks.accelerator.sizes import Sizes
from lpcam_jax.data.pictures import Encoded, read_picture
from lpcam_jax.data.pipeline import Augmentation, training_batches
from lpcam_jax.data.records import Record
from lpcam_jax.data.resizing import resize_bicubic, resize_mask
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine.threads import cores
from lpcam_jax.systems.deeplab.config import DeepLabTraining
from lpcam_jax.systems.deeplab.training import masked_crops
from lpcam_jax.systems.lpcam.config import LPCAMTraining
from lpcam_jax.systems.lpcam.training import labelled_crops


class Scenes:
    """Drawn scenes of one size, as JPEGs in the memory of the host, with labels and masks: a `RecordSource`."""

    class_names, has_masks = draws.CLASS_NAMES, True

    def __init__(self, count: int, size: tuple[int, int]):
        scenes = Shapes(count)
        self._files, self._masks = [], []
        for number in range(count):
            file = io.BytesIO()
            Image.fromarray(resize_bicubic(scenes[number].image, size)).save(file, "JPEG", quality=92)
            self._files.append(Encoded(f"{number:04d}.jpg", file.getvalue()))
            self._masks.append(resize_mask(scenes[number].mask, size))
        self.ids = tuple(f"{number:04d}" for number in range(count))
        self.labels = np.eye(draws.CLASSES, dtype=np.float32)[np.arange(count) % draws.CLASSES]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        return Record(self.ids[index], read_picture(self._files[index]), self.labels[index], self._masks[index])


def programs(sizes: Sizes) -> Programs:
    """By step: in one thread, without batches, and as train.py does it."""
    height, width = sizes.picture
    crops = {
        f"classifier, {sizes.crop}x{sizes.crop}": labelled_crops(LPCAMTraining(crop=sizes.crop)),
        f"DeepLabV2, {sizes.masked_crop}x{sizes.masked_crop}": masked_crops(DeepLabTraining(crop=sizes.masked_crop)),
    }
    for name, augmented in crops.items():
        what = f"crops of JPEGs of {width}x{height} for the {name}"
        yield f"{what}, one thread", partial(_alone, sizes, augmented)
        yield f"{what}, all threads", partial(_batches, sizes, augmented)


def _alone(sizes: Sizes, augmented: Augmentation) -> Row:
    source, rng = Scenes(sizes.pictures, sizes.picture), np.random.default_rng(0)

    def run(times: int) -> None:
        for _ in range(times):
            for index in range(len(source)):
                augmented(source[index], rng)

    return timed(run, least=sizes.seconds) | {"pictures": sizes.pictures}


def _batches(sizes: Sizes, augmented: Augmentation) -> Row:
    """More than are read ahead are taken each turn, so that those which are there already do not count as made."""
    source = Scenes(sizes.pictures, sizes.picture)
    feed: Iterator = training_batches(source, augmented, batch_size=sizes.batch, seed=0)
    batches = 16

    def run(times: int) -> None:
        for _ in range(times * batches):
            next(feed)

    made = {"pictures": batches * sizes.batch, "facts": {"cores": cores()}}
    return timed(run, least=sizes.seconds) | made
