"""Config of segmenting whole pictures."""

from dataclasses import dataclass
from typing import Literal

from ...config.common import Batches
from ...config.numbers import OptionalPixelRange, Scales


@dataclass(frozen=True, kw_only=True)
class SegmentationInference(Batches):
    """How pictures are segmented."""

    scales: Scales = (1.0,)
    """picture scales over which probabilities are averaged"""
    fit: OptionalPixelRange = None
    """short and long side, in pixels: every picture is first enlarged or shrunk, in proportion, until it fits both;
    none: pictures keep their size, up to --data.longest"""
    fusion: Literal["mean", "maximum"] = "mean"
    """of the probabilities of all scales and mirror images; the maximum is MCTformer's"""
    crf: Literal["", "deeplabv2", "mctformer"] = ""
    """a CRF that moves the masks to edges of colour, with the parameters of this network's authors; empty: none.
    Validation is without"""
    mirror: bool = False
    """average over mirror images as well"""
