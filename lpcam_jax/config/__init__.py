"""Parts of configs shared by several systems; each system's own config is in its folder.

A recipe, a file under `configs/`, returns the config of a system, found by its `kind` in the registry; the command line
overrides single fields (`--data.root DIR`); the resolved config is stored with the run. The defaults are the
references' recipes for VOC 2012.
"""

from .common import Batches, Clustering, Data, RunConfig, SureLabels, at_precision
from .json import from_json, to_json
from .numbers import check_numbers

__all__ = [
    "Batches",
    "Clustering",
    "Data",
    "RunConfig",
    "SureLabels",
    "at_precision",
    "check_numbers",
    "from_json",
    "to_json",
]
