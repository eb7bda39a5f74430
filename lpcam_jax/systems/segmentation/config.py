"""Config of segmenting whole pictures."""

from dataclasses import dataclass

from ...config.common import Batches
from ...config.numbers import OptionalPixelRange, Scales


@dataclass(frozen=True, kw_only=True)
class SegmentationInference(Batches):
    """How pictures are segmented."""

    scales: Scales = (1.0,)
    """picture scales over which probabilities are averaged"""
    fit: OptionalPixelRange = None
    """short and long side, in pixels: every picture is first enlarged or shrunk, in proportion, until it fits both;
    none: pictures keep their size"""
    mirror: bool = False
    """average over mirror images as well"""
