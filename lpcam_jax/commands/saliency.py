"""Saliency maps of pictures, made by U2-Net from its published weights: what stands out, whatever it is.

    python -m lpcam_jax saliency --images 'my/*.jpg' --weights u2netp.onnx --out saliency/
    python -m lpcam_jax saliency --ckpt runs/demo --weights u2netp.onnx --out saliency_demo/

Needs no training and no labels. The maps are for `--saliency DIR` of infer.py and of `python -m lpcam_jax refine`;
there, `--saliency u2netp.onnx` makes them on the way. The same command resumes stopped work.
"""

from dataclasses import dataclass

from ..config.command_line import parse_flags
from ..data.records import RecordSource
from ..data.sources import first, pictures_of
from ..data.unlabelled import Pictures, find_unlabelled
from ..machine import devices
from ..machine.errors import UserError
from ..machine.locks import in_use
from ..results.folder import all_skipped
from ..training.run import Run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pictures, weights, and output folder."""

    out: str
    """folder for the maps, ID.png; give the same folder again to resume"""
    weights: str = ""
    """file of a U2-Net, small or large: u2netp.pth, u2netp.onnx, or another with the published names"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the data set of the run"""
    ckpt: str = ""
    """a run of train.py, of any kind, whose data set has the pictures"""
    root: str = ""
    """current folder of the run's data set; empty: the one used for training"""
    split: str = ""
    """split of that data set, in the syntax of --data.seeds of train.py; empty: the run's --data.seeds"""
    limit: int | None = None
    """use only the first LIMIT pictures"""


def main(words: list[str]) -> None:
    """Make the maps.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: there are no such weights or pictures, or the maps cannot be written.
    """
    arguments = parse_flags(Arguments, words, command="saliency", description=__doc__)
    from ..results.saliency import SaliencyResults
    from ..saliency.maps import SaliencyNetwork
    from ..saliency.weights import PUBLISHED

    if not arguments.weights:
        raise UserError(f"the weights are missing: give --weights, the path of {PUBLISHED}.")
    devices.start()
    pictures = _pictures(arguments)
    network = SaliencyNetwork.open(arguments.weights)
    with in_use(arguments.out, "saliency", flag="--out"):
        skipped = all_skipped(SaliencyResults(arguments.out, network).make(pictures), pictures)
    print(f"{len(pictures) - len(skipped)} saliency maps are in {arguments.out}: use them with --saliency.")


def _pictures(arguments: Arguments) -> RecordSource:
    """Those of --images, or of the run's data set."""
    where = {"images": arguments.images, "root": arguments.root, "split": arguments.split, "limit": arguments.limit}
    if arguments.ckpt:
        run = Run.open(arguments.ckpt)
        return pictures_of(run.config, run.class_names, **where)
    if not arguments.images:
        raise UserError("the pictures are missing: give --images, or --ckpt, a run on their data set.")
    if named := [f"--{flag}" for flag in ("root", "split") if where[flag]]:
        raise UserError(f"{' and '.join(named)}: of the data set of a run; give --ckpt, too, or omit it.")
    return first(Pictures(find_unlabelled(arguments.images), ()), arguments.limit)
