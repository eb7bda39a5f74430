"""The validation of networks that classify: mAP, the mean over classes of the average precision."""

import math
from typing import Any

import numpy as np

from ..data.records import RecordSource
from ..inference.forward import Function
from ..inference.passes import finish_each
from ..machine import processes
from ..machine.devices import local_mesh
from ..machine.errors import UserError
from ..metrics import mean_average_precision
from ..training.checkpoints import TrainState
from ..training.loop import Validation
from ..training.state import graph_of, network_in_training


def mean_precision(
    function: Function, config: Any, validation: RecordSource, *, every: int, fit: tuple[int, int] | None = None
) -> Validation | None:
    """Validation by mAP; compiled once.

    Args:
        function: (network, pictures, sizes) -> "logits" (b, c).
        config: the run's config.
        validation: labelled pictures, used whole; those that cannot be read are left out.
        every: steps between validations.
        fit: short and long side that they are brought to, see `plan.Pass`; None: the first inference scale.

    Returns:
        Validation that measures the mAP; NaN if no class occurs. Each process computes its share of the pictures. None
        without pictures.
    """
    if not len(validation):
        return None
    devices, classes = local_mesh(), len(validation.class_names)
    graph, *_ = graph_of(config, classes)

    def measure(state: TrainState) -> float:
        results = network_in_training(config, graph, state, devices=devices).run(
            function,
            validation,
            scales=(1.0,) if fit else config.inference.scales[:1],
            fit=fit,
            batches=config.inference,
            description="validation",
            only=processes.share(range(len(validation))),
        )
        rows = [
            np.concatenate([record.labels, logits])
            for _, record, logits in finish_each(results, lambda _, outputs: outputs[0]["logits"])
            if not isinstance(record, UserError)
        ]
        rows = np.concatenate(processes.gather(np.array(rows, np.float32).reshape(-1, 2 * classes)))
        if not len(rows):
            return math.nan
        return float(mean_average_precision(*np.split(rows, 2, axis=1)))

    return Validation(every, measure, "mAP")
