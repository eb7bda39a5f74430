"""Validation of networks that segment: mIoU."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.records import RecordSource
from ...machine import processes
from ...machine.devices import local_mesh
from ...machine.errors import UserError
from ...metrics import iou
from ...results.counts import picture_confusion
from ...training.checkpoints import TrainState
from ...training.loop import Validation
from ...training.state import graph_of, in_use, network_in_training
from .segment import segment_pictures


def make_validation(config: Any, validation: RecordSource) -> Validation | None:
    """Validation by mIoU, including the background, with the inference settings but the CRF; compiled once.

    Args:
        config: the run's config.
        validation: pictures, segmented whole; those that cannot be read are left out.

    Returns:
        Validation that measures the mIoU; NaN if no pixel is labelled. Each process computes its share. None
        without pictures, or without true masks.
    """
    if not (len(validation) and validation.has_masks):
        return None
    devices, classes = local_mesh(), len(validation.class_names) + 1
    graph, *_ = graph_of(config, len(validation.class_names))

    def measure(state: TrainState) -> float:
        matrix = np.zeros((classes, classes))
        results = segment_pictures(
            network_in_training(config, graph, in_use(state), devices=devices),
            validation,
            inference=replace(config.inference, crf=""),
            description="validation",
            only=processes.share(range(len(validation))),
        )
        for _, record, mask in results:
            if not isinstance(record, UserError) and record.mask is not None:
                matrix += picture_confusion(record.mask, mask, classes)
        matrix = np.sum(processes.gather(matrix), axis=0)
        return float(np.nanmean(iou(matrix.astype(np.float32)))) if matrix.any() else math.nan

    return Validation(config.training.validate_every, measure, "mIoU")
