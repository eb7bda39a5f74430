"""Config of segmenting whole pictures."""

from dataclasses import dataclass

from ...config.common import Batches
from ...config.numbers import Scales


@dataclass(frozen=True, kw_only=True)
class SegmentationInference(Batches):
    """How pictures are segmented."""

    scales: Scales = (1.0,)
    """picture scales over which probabilities are averaged"""
    mirror: bool = False
    """average over mirror images as well"""
