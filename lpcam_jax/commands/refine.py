"""Pseudo masks from a folder of heat maps of any method: by a CRF, by PAR, by CRF and saliency, or unrefined.

    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --out pseudo_masks_crf/
    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --method cam --background 0.2 --out pseudo_masks_cam/
    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --refine par --out pseudo_masks_par/
    python -m lpcam_jax refine --images my/ --maps heatmaps_mine/ --out pseudo_masks_mine/

Needs no training. The labels of a picture are the classes of its maps; pseudo masks are scored if there are true masks.
For IRN's random walk, use `infer.py --ckpt RUN --maps DIR` with a run of IRNet.
"""

from dataclasses import dataclass

from ..config.command_line import parse_flags
from ..data.records import RecordSource
from ..data.sources import first, pictures_of
from ..data.unlabelled import Pictures, find_unlabelled
from ..machine import devices
from ..machine.errors import UserError
from ..machine.locks import in_use
from ..refine import Refine
from ..report.names import written
from ..results.masks import describe
from ..results.predictions import open_method, read_protocol
from ..results.refined_masks import refine_maps
from ..results.refinement import refinement
from ..results.shown import Pages, look_at
from ..training.run import Run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Heat maps, their pictures, the refinement, and output folder."""

    maps: str
    """output folder of infer.py, or folder of maps (ID.npz: classes, and a float (n, H, W) array per method)"""
    out: str
    """folder for the masks; give the same folder again to resume"""
    ckpt: str = ""
    """a run of train.py, of any kind, on the data set of the maps; determines pictures and classes"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the data set of the run"""
    root: str = ""
    """current folder of the run's data set; empty: the one used for training"""
    split: str = ""
    """split of that data set, in the syntax of --data.seeds of train.py; empty: the run's --data.seeds"""
    limit: int | None = None
    """use only the first LIMIT pictures"""
    pages: Pages = "sample"
    """which pictures have overlays and a place in the gallery, index.html: sample, at most 2,000; all; or none"""
    refine: Refine = "crf"
    """crf: a dense CRF aligns the seeds with the edges of the picture; par: seeds of maps averaged over pixels that are
    near and of a similar colour (pixel-adaptive refinement), in less time; none: the unrefined seeds"""
    method: str = ""
    """method of the maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), amn, or the name of another array;
    empty: the last in each file"""
    background: float = 0.3
    """seed threshold: pixels where no map is above it are background"""
    saliency: str = ""
    """with crf: pseudo masks follow EDAM's rule, from maps, CRF and saliency: a folder of 8-bit saliency maps, ID.png,
    or a file of U2-Net's weights, such as u2netp.onnx, which makes them, into saliency/ of the output folder"""


def main(words: list[str]) -> None:
    """Refine the maps, score the masks and print the scores.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such maps or pictures, they do not match, or the masks cannot be written.
    """
    arguments = parse_flags(Arguments, words, command="refine", description=__doc__)
    devices.start()
    options = {"background": arguments.background, "saliency": arguments.saliency, "out": arguments.out}
    rule = refinement(arguments.refine, **options)
    pictures = _pictures(arguments)
    with in_use(arguments.out, "refine", flag="--out"):
        options = {"refinement": rule, "pages": arguments.pages}
        metrics = refine_maps(arguments.maps, arguments.method, pictures, arguments.out, **options)
    for line in describe(metrics):
        print(line)
    print(f"{written(metrics['pictures'], 'picture')} in {arguments.out}: {look_at(arguments.out)}use masks/.")


def _pictures(arguments: Arguments) -> RecordSource:
    """The pictures of the run or, without a run, those of --images with the classes in the protocol of the maps."""
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
    return first(Pictures(find_unlabelled(arguments.images), protocol["class_names"]), arguments.limit)
