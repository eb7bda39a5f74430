"""A folder of saliency maps that U2-Net made, written picture by picture and resumable.

    ID.png            8-bit grey, of the picture's size: 255 where it is most salient
    protocol.json     which weights made them
    origins.N.jsonl   which pictures they were made from (`origins`)

It is read like a folder of another program (`refine.saliency_maps`).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import __version__
from ..data.records import Record, RecordSource
from ..machine.files import write_atomically
from ..refine.saliency_maps import SaliencyFolder
from ..saliency.maps import SIDE, SaliencyNetwork
from .folder import PictureResults, fingerprint, write_all


class SaliencyResults(PictureResults):
    """The folder, of one network.

    Args:
        directory: the folder; created if missing.
        network: the network.

    Raises:
        UserError: see `ResultFolder`.
    """

    pages = "none"

    def __init__(self, directory: str | Path, network: SaliencyNetwork):
        super().__init__(directory, {"version": __version__, "saliency": made_by(network)}, what="saliency maps")
        self._network = network

    def marker(self, name: str) -> Path:
        """Its map."""
        return self.directory / f"{name}.png"

    def make(self, source: RecordSource) -> list[str]:
        """Make the maps that this process's share of the pictures lacks.

        Args:
            source: the pictures.

        Returns:
            One line for every picture that could not be read.

        Raises:
            UserError: a map cannot be written, or is of another picture of the same name.
        """
        missing = self.missing(source)
        results = self._network.map_pictures(source, only=missing, among=self.share)
        return write_all(results, self._write) if missing else []

    def _write(self, _: int, record: Record, saliency: np.ndarray) -> None:
        buffer = io.BytesIO()
        Image.fromarray(saliency).save(buffer, "PNG")
        self.note_origin(record.id)
        write_atomically(self.marker(record.id), buffer.getvalue())


class MadeSaliency:
    """Saliency maps that are made when they are needed, `refine.saliency_maps.SaliencyMaps`.

    Args:
        weights: a file of a U2-Net.
        directory: the folder that they are kept in; created when they are made.

    Raises:
        UserError: the weights cannot be used.
    """

    def __init__(self, weights: str, directory: Path):
        self._network, self._directory = SaliencyNetwork.open(weights), directory
        self.protocol = made_by(self._network)

    def prepare(self, source: RecordSource) -> None:
        """Make the maps that are missing; pictures that cannot be read have none."""
        SaliencyResults(self._directory, self._network).make(source)

    def inputs(self, name: str) -> tuple[Path, ...]:
        """None: the maps depend on the picture and on the weights in the protocol."""
        return ()

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The map of one picture."""
        return SaliencyFolder(self._directory).read(name, size)


def made_by(network: SaliencyNetwork) -> dict[str, Any]:
    """What the maps depend on, as plain JSON values."""
    return {"network": "U2-Net", "weights": fingerprint(network.parameters), "side": SIDE}
