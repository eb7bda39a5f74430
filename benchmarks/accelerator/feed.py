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
from lpcam_jax.config import Data
from lpcam_jax.data.pictures import Encoded, read_picture
from lpcam_jax.data.pipeline import Augmentation, training_batches
from lpcam_jax.data.records import Record
from lpcam_jax.data.resizing import resize_bicubic, resize_mask
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.data.sources import ENOUGH
from lpcam_jax.machine.threads import cores
from lpcam_jax.systems.deeplab.config import DeepLabTraining
from lpcam_jax.systems.deeplab.training import masked_crops
from lpcam_jax.systems.lpcam.config import LPCAMTraining
from lpcam_jax.systems.lpcam.training import labelled_crops

# Of a data set; each drawn scene is in it many times. (To shuffle a few records takes grain longer than to read them.)
_RECORDS = 1000


class Scenes:
    """Drawn scenes of one size, as JPEGs in the memory of the host, with labels and masks: a `RecordSource`."""

    class_names, has_masks = draws.CLASS_NAMES, True

    def __init__(self, count: int, size: tuple[int, int], *, enough: int | None = None):
        scenes, self._enough = Shapes(count), enough
        self._files, self._masks = [], []
        for number in range(count):
            file = io.BytesIO()
            Image.fromarray(resize_bicubic(scenes[number].image, size)).save(file, "JPEG", quality=92)
            self._files.append(Encoded(f"{number:04d}.jpg", file.getvalue()))
            self._masks.append(resize_mask(scenes[number].mask, size))
        self.ids = tuple(f"{number:04d}" for number in range(_RECORDS))
        self.labels = np.eye(draws.CLASSES, dtype=np.float32)[np.arange(_RECORDS) % draws.CLASSES]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        number = index % len(self._files)
        image = read_picture(self._files[number], enough=self._enough)
        return Record(self.ids[index], image, self.labels[index], self._masks[number])


def programs(sizes: Sizes) -> Programs:
    """By step: in one thread, without batches, and as train.py does it; and what large photographs take."""
    height, width = sizes.picture
    crops = {
        f"classifier, {sizes.crop}x{sizes.crop}": labelled_crops(LPCAMTraining(crop=sizes.crop)),
        f"DeepLabV2, {sizes.masked_crop}x{sizes.masked_crop}": masked_crops(DeepLabTraining(crop=sizes.masked_crop)),
    }
    for name, augmented in crops.items():
        what = f"crops of JPEGs of {width}x{height} for the {name}"
        yield f"{what}, one thread", partial(_alone, sizes, augmented, Scenes(sizes.pictures, sizes.picture))
        yield f"{what}, all threads", partial(_batches, sizes, augmented)
    height, width = sizes.photograph
    augmented = labelled_crops(LPCAMTraining(crop=sizes.crop))
    for how, enough in (("all pixels", None), ("enough pixels", ENOUGH * Data.longest)):
        what = f"crops of JPEGs of {width}x{height} for the classifier, decoded in {how}, one thread"
        yield what, partial(_alone, sizes, augmented, Scenes(2, sizes.photograph, enough=enough))


def _alone(sizes: Sizes, augmented: Augmentation, source: Scenes) -> Row:
    rng = np.random.default_rng(0)

    def run(times: int) -> None:
        for index in range(times * sizes.batch):
            augmented(source[index % len(source)], rng)

    return timed(run, least=sizes.seconds) | {"pictures": sizes.batch}


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
