"""What a recipe can say: one frozen dataclass per part of a run.

A file under `configs/` returns the config of a system, whose `kind` the registry knows; the command line overrides
single fields (`--data.root DIR`); the resolved config is stored with the checkpoint. The defaults are the references'
recipes for VOC 2012.
"""

from .amn import AMNConfig, AMNInference, AMNModel, AMNTraining
from .backbones import BackboneConfig, ResNetConfig
from .classifier import Clustering, LPCAMConfig, LPCAMInference, LPCAMTraining
from .common import Batches, Data, SureLabels, at_precision
from .irn import IRNConfig, IRNInference, IRNTraining
from .json import from_json, to_json
from .numbers import check_numbers
from .segmentation import DeepLabConfig, DeepLabInference, DeepLabModel, DeepLabTraining

__all__ = [
    "AMNConfig",
    "AMNInference",
    "AMNModel",
    "AMNTraining",
    "BackboneConfig",
    "Batches",
    "Clustering",
    "Data",
    "DeepLabConfig",
    "DeepLabInference",
    "DeepLabModel",
    "DeepLabTraining",
    "IRNConfig",
    "IRNInference",
    "IRNTraining",
    "LPCAMConfig",
    "LPCAMInference",
    "LPCAMTraining",
    "ResNetConfig",
    "SureLabels",
    "at_precision",
    "check_numbers",
    "from_json",
    "to_json",
]
