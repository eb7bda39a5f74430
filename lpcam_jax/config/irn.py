"""IRNet, trained from heat maps, and the pseudo masks made with it. The defaults are IRN's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Literal

from .common import Batches, Data, Model


@dataclass(frozen=True, kw_only=True)
class SureLabels:
    """Which pixels of a heat map are learned from: those whose label two thresholds agree on, each after a CRF."""

    method: str = "lpcam"
    """whose maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; the two
    thresholds below are those of lpcam"""
    foreground: float = 0.45
    """a pixel has a class when it still has one at this threshold"""
    background: float = 0.25
    """it is background when it is at this one; all others are unsure, and not learned from"""


@dataclass(frozen=True, kw_only=True)
class IRNTraining:
    """How IRNet is trained; its backbone stays as it is."""

    epochs: int = 3
    least_steps: int = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: int = 32
    crop: int = 512
    """side of the square crop, a multiple of 4; smaller pictures are padded with zeros after normalisation"""
    scale_range: tuple[float, float] = (0.5, 1.5)
    """each picture is resized by a number between these before cropping"""
    radius: int = 10
    """pairs of positions closer than this are compared; in fours of pixels"""
    displacement: bool = True
    """train the displacement branch, too. Only IRN's instance masks need it: it shares nothing that learns with the
    edge branch, whose masks are the same without"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    """of the edge branch"""
    displacement_multiplier: float = 10.0
    """the displacement branch learns this many times faster"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay in this place; 0.9 would be ten times too hot"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    checkpoint_every: int = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class Refinement(Batches):
    """How heat maps become pseudo masks."""

    method: str = ""
    """whose maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; empty: those
    that IRNet was trained on, or else the last in each file: lpcam or, where a run was taught, taught"""
    background: float | None = None
    """where no map is above it there is background; none: 0.35 after the random walk, else 0.3"""
    radius: int = 5
    """random walk: how far a step reaches; in fours of pixels"""
    power: float = 1.0
    """random walk: power of the maps before it; with AMN's, its authors take 1.3"""
    beta: float = 10.0
    """random walk: power of the affinities; the higher, the harder edges hold"""
    steps: int = 256
    """random walk: how many steps are taken"""


@dataclass(frozen=True, kw_only=True)
class IRNConfig:
    """IRNet, trained from heat maps, and the pseudo masks made with it."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    labels: SureLabels = field(default_factory=SureLabels)
    training: IRNTraining = field(default_factory=IRNTraining)
    inference: Refinement = field(default_factory=Refinement)
    seed: int = 0
    """of everything random: initialisation, order, crops"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""
