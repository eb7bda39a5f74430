"""The refinement that command-line flags describe."""

from pathlib import Path

from ..data.findings import shown
from ..machine.errors import UserError
from ..refine import Refine
from ..refine.pictures import Refinement
from ..refine.saliency_maps import SaliencyFolder, SaliencyMaps


def refinement(refine: Refine, *, background: float, out: str | Path, saliency: str = "") -> Refinement:
    """Make the refinement; nothing is written yet.

    Args:
        refine: "crf", "par" or "none".
        background: seed threshold.
        out: output folder; the maps that are made are kept in its saliency/.
        saliency: folder of saliency maps, or file of a U2-Net that makes them, only with "crf"; empty: none.

    Raises:
        UserError: there is no such folder or file, the file holds no U2-Net, or `refine` is not "crf".
    """
    if saliency and refine != "crf":
        raise UserError(f"--saliency {saliency}: goes with --refine crf, not with {refine}.")
    return Refinement(refine, background, _salient(saliency, Path(out)) if saliency else None)


def _salient(saliency: str, out: Path) -> SaliencyMaps:
    # Imported here, because a refinement without saliency needs no network.
    from ..saliency.weights import PUBLISHED
    from .saliency import MadeSaliency

    if Path(saliency).is_dir():
        return SaliencyFolder(saliency)
    if not (Path(saliency).exists() or saliency.startswith("hf:")):
        raise UserError(
            f"{shown(saliency)}: no such folder of saliency maps, nor file of weights that makes them; name a folder "
            f"with ID.png files, or {PUBLISHED}."
        )
    return MadeSaliency(saliency, out / "saliency")
