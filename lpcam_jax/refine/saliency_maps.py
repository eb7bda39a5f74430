"""Saliency maps made by another program: a folder of 8-bit grey pictures, ID.png, one for each photograph."""

from pathlib import Path

import numpy as np

from ..data.masks import check_size
from ..data.pictures import read_picture, shown
from ..machine.errors import UserError


class SaliencyFolder:
    """A folder of saliency maps.

    Args:
        directory: the folder.

    Raises:
        UserError: it does not exist.
    """

    def __init__(self, directory: str | Path):
        if not Path(directory).is_dir():
            raise UserError(f"{shown(directory)}: no such folder of saliency maps; name one with ID.png files.")
        self.directory = Path(directory)

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The map of one picture.

        Args:
            name: its id.
            size: its (H, W).

        Returns:
            uint8 (H, W), 255 where the picture is most salient.

        Raises:
            UserError: the file cannot be read, is in colour, or has another size.
        """
        file = self.directory / f"{name}.png"
        picture = read_picture(file, upright=False)
        if (picture != picture[..., :1]).any():
            raise UserError(f"{shown(file)}: the saliency map is a colour picture; save it as 8-bit grey.")
        check_size(picture[..., 0], size, file)
        return picture[..., 0]
