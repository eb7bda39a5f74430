"""How the results of a trained network are made: what protocol.json and metrics.json say."""

from typing import Any

from .. import __version__
from ..config import at_precision
from ..results.folder import fingerprint
from ..training.checkpoints import TrainState
from ..training.run import Run


def model_protocol(run: Run, state: TrainState, *arrays: Any, **entries: Any) -> dict[str, Any]:
    """How the results of a trained network are made, as plain JSON values; other parameters give another `model`.

    Args:
        run: its config, with the settings of inference, and class names.
        state: its parameters and statistics.
        arrays: what else the results depend on, such as prototypes.
        entries: of this kind of results.

    Returns:
        {"version", "model", "step", "class_names", entries}.
    """
    return {
        "version": __version__,
        "model": fingerprint((state.parameters, state.batch_stats, *arrays)),
        "step": int(state.step),
        "class_names": list(run.class_names),
        **entries,
    }


def precision_of(run: Run) -> str:
    """Of the convolutions, where results are computed."""
    return at_precision(run.config).model.precision
