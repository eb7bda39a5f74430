"""A finished run as a function from pictures to masks: `lpcam_jax.load` for notebooks and other programs.

Pictures are processed as by infer.py, with the same scales, mirror images and batches.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ...data.in_memory import Picture, PicturesInMemory, is_single
from ...machine.devices import mesh
from ...machine.programs import as_called
from ...results.counts import classes_in
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, trained_state
from .segment import segment_pictures


class Segmentation(NamedTuple):
    """The mask of a picture.

    Attributes:
        image: uint8 (H, W, 3), the picture as it was read: upright, RGB.
        mask: uint8 (H, W), 0 background, k + 1 class k of the run.
        classes: int (n,), the classes in the mask, ascending.
        names: names of these n classes.
    """

    image: np.ndarray
    mask: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]


def note_unfinished(run: Run, state: TrainState) -> None:
    """Say that the training of a run has stopped before its end; its masks would look like those of a finished one.

    Args:
        run: a run of a segmentation network.
        state: its newest checkpoint.
    """
    step, steps = int(state.step), run.config.training.steps
    if step < steps:
        goes_on = "" if run.is_packed else as_called("; train.py continues it")
        tqdm.write(f"note: {run.directory}: step {step:,} of {steps:,}{goes_on}", file=sys.stderr)


class TrainedSegmenter:
    """The segmentation network of a run, as returned by `lpcam_jax.load`.

    Attributes:
        config: the run's config.
        class_names: c names.
    """

    def __init__(self, run: Run):
        self.config, self.class_names = run.config, run.class_names
        devices = mesh()
        state = trained_state(run, devices=devices)
        note_unfinished(run, state)
        self._network = inference_network(run.config, state, len(run.class_names), devices=devices)

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Segmentation | list[Segmentation]:
        """Masks of one picture or several.

        Each shape (in steps of 32 pixels) is compiled once, so pictures of few different sizes are fastest.

        Args:
            pictures: one picture or a sequence of them, each a path, a PIL image, or uint8 (H, W, 3) RGB.

        Returns:
            Segmentation of the picture, or a list with the Segmentation of each.

        Raises:
            UserError: a picture cannot be read or is invalid.
        """
        if is_single(pictures):
            return self([pictures])[0]
        source = PicturesInMemory(pictures, self.class_names)
        results: list[Any] = [None] * len(source)
        for index, record, mask in segment_pictures(
            self._network, source, inference=self.config.inference, description=source.titled("masks")
        ):
            classes = classes_in(mask)
            results[index] = Segmentation(record.image, mask, classes, tuple(self.class_names[n] for n in classes))
        return results
