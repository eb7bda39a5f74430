"""Pseudo masks from a folder of heat maps, of any method: by a CRF, by saliency, or the seeds as they are.

    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --out pseudo_masks/
    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --method cam --background 0.2 --out pseudo_masks_cam/
    python -m lpcam_jax refine --images my/ --maps heatmaps_mine/ --out pseudo_masks_mine/

Needs no training. The labels of a picture are the classes of its maps; masks are scored where there are true ones. The
random walk of IRN is what `infer.py --ckpt RUN --maps DIR` does with a run of IRNet.
"""

from dataclasses import dataclass
from typing import Literal

import tyro

from ..data.pictures import Pictures, find_pictures
from ..data.records import RecordSource
from ..data.sources import first, pictures_of
from ..machine import devices
from ..machine.errors import UserError
from ..machine.locks import in_use
from ..refine.pictures import refinement
from ..results.masks import describe
from ..results.predictions import open_method, read_protocol
from ..results.refined_masks import refine_maps
from ..training.run import Run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Heat maps, their pictures, how they are refined, and where the masks go."""

    maps: str
    """folder of infer.py, or of maps (ID.npz: classes, and a float (n, H, W) array a method)"""
    out: str
    """folder for the masks; the same folder continues them"""
    ckpt: str = ""
    """a run of train.py on the data set of the maps, of any kind: it names the pictures and classes"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the data set of the run"""
    root: str = ""
    """where the run's data set is now; empty: where it was for training"""
    split: str = ""
    """which part of it, as --data.seeds of train.py; empty: that one"""
    limit: int | None = None
    """only the first pictures"""
    refine: Literal["crf", "none"] = "crf"
    """crf: a dense CRF moves the seeds to the edges of the photograph; none: the seeds as they are"""
    method: str = ""
    """which method's maps: cam, lpcam_f, lpcam, taught (LPCAM-T), amn, or the name of any other array; empty: the last
    in each file"""
    background: float = 0.3
    """seed threshold: where no map is above it there is background"""
    saliency: str = ""
    """with crf: a folder of 8-bit saliency maps, ID.png; then EDAM's rule makes the masks of maps, CRF and saliency"""


def main(words: list[str]) -> None:
    """Refine, score, print.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such maps or pictures, they do not fit, or the masks cannot be written.
    """
    arguments = tyro.cli(Arguments, args=words, prog="python -m lpcam_jax refine", description=__doc__)
    devices.start()
    how = refinement(arguments.refine, background=arguments.background, saliency=arguments.saliency)
    pictures = _pictures(arguments)
    with in_use(arguments.out, "refine", flag="--out"):
        metrics = refine_maps(arguments.maps, arguments.method, pictures, arguments.out, refinement=how)
    for line in describe(metrics):
        print(line)
    print(f"{metrics['pictures']} pictures are in {arguments.out}: look at index.html, use masks/.")


def _pictures(arguments: Arguments) -> RecordSource:
    """Those of the run, or those that are named, with the classes that the protocol of the maps names."""
    where = {"images": arguments.images, "root": arguments.root, "split": arguments.split, "limit": arguments.limit}
    if arguments.ckpt:
        run = Run.open(arguments.ckpt)
        return pictures_of(run.config, run.class_names, **where)
    if not arguments.images:
        raise UserError("the pictures are missing: give --ckpt, a run on their data set, or --images, their folder.")
    protocol = read_protocol(open_method(arguments.maps, arguments.method))
    if protocol is None:
        raise UserError(
            f"{arguments.maps} does not say its classes (there is no protocol.json of infer.py); give --ckpt, a run on "
            "their data set."
        )
    return first(Pictures(find_pictures(arguments.images), protocol["class_names"]), arguments.limit)
