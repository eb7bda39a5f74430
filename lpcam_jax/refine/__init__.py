"""From heat maps to pseudo masks: dense CRF, pixel-adaptive refinement, random walks among similar pixels, saliency."""

from typing import Literal

Refine = Literal["crf", "par", "none"]
