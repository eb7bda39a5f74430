"""The protocol of a trained network's results, as stored in protocol.json and metrics.json."""

from typing import Any

from .. import __version__
from ..config import at_precision
from ..results.folder import fingerprint
from ..training.checkpoints import TrainState
from ..training.run import Run


def model_protocol(run: Run, state: TrainState, *arrays: Any, **entries: Any) -> dict[str, Any]:
    """Describe how the results of a trained network are made, as plain JSON values.

    Args:
        run: the run, with the inference settings.
        state: its parameters and batch statistics.
        arrays: other arrays that the results depend on, such as prototypes.
        entries: further entries for this kind of results.

    Returns:
        {"version", "model", "step", "class_names", **entries}; "model" is a fingerprint of state and arrays. And
        "longest", where pictures are shrunk for the network.
    """
    return {
        "version": __version__,
        "model": model_fingerprint(state, *arrays),
        "step": int(state.step),
        "class_names": list(run.class_names),
        **({} if (longest := run.config.data.longest) is None else {"longest": longest}),
        **entries,
    }


def model_fingerprint(state: TrainState, *arrays: Any) -> str:
    """What tells a trained network, with the other arrays of its model, from all others."""
    return fingerprint((state.parameters, state.batch_stats, *arrays))


def precision_of(run: Run) -> str:
    """Precision of the network during inference."""
    return at_precision(run.config).model.precision
