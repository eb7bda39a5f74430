"""What a recipe can say: one frozen dataclass per part of a run.

A file under `configs/` returns a `Config` (a classifier and its prototypes), an `IRNConfig` (IRNet), an `AMNConfig`
(AMN) or a `SegmentationConfig` (DeepLab); the command line overrides single fields (`--data.root DIR`); the resolved
config is stored with the checkpoint. The defaults are the references' recipes for VOC 2012.
"""

import dataclasses
from typing import Any, get_origin, get_type_hints

from .amn import AMNConfig, AMNInference, AMNModel, AMNTraining
from .classifier import Config, Inference, Prototypes, Training
from .common import Batches, Data, Model
from .irn import IRNConfig, IRNTraining, Refinement, SureLabels
from .segmentation import DeepLab, SegmentationConfig, SegmentationInference, SegmentationTraining

__all__ = [
    "KINDS",
    "AMNConfig",
    "AMNInference",
    "AMNModel",
    "AMNTraining",
    "AnyConfig",
    "Batches",
    "Config",
    "Data",
    "DeepLab",
    "IRNConfig",
    "IRNTraining",
    "Inference",
    "Model",
    "Prototypes",
    "Refinement",
    "SegmentationConfig",
    "SegmentationInference",
    "SegmentationTraining",
    "SureLabels",
    "Training",
    "at_precision",
    "from_json",
    "kind_of",
    "to_json",
    "with_network_of",
]

AnyConfig = Config | IRNConfig | AMNConfig | SegmentationConfig
KINDS: dict[str, type[AnyConfig]] = {
    "classifier": Config,
    "irn": IRNConfig,
    "amn": AMNConfig,
    "segmentation": SegmentationConfig,
}


def kind_of(config: AnyConfig) -> str:
    """What a run of this config trains, a key of KINDS."""
    return next(kind for kind, its_type in KINDS.items() if isinstance(config, its_type))


def at_precision(config: AnyConfig, batches: Batches) -> AnyConfig:
    """The config with the precision that results are to have, if any is asked for."""
    if not batches.precision:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, precision=batches.precision))


def with_network_of(model: Model, other: Model) -> Model:
    """The model with what stored parameters fix, depth, widths, layout and input, taken from another."""
    fixed = ("blocks", "width", "stem_width", "layout", "stem_pool", "channel_order", "mean", "std")
    return dataclasses.replace(model, **{name: getattr(other, name) for name in fixed})


def to_json(config: AnyConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any], kind: type = Config) -> Any:
    """Rebuild a config from `to_json`; unknown fields raise ValueError, absent ones take the default."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    return kind(**{name: _value(value, hints[name]) for name, value in values.items()})


def _value(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint)
    if get_origin(hint) is tuple:
        return tuple(value)
    return value
