"""Matplotlib figures as files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine.files import write_atomically

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG.

    Args:
        path: The file; missing folders are created.
        figure: A bare `matplotlib.figure.Figure`, which draws with Agg and needs no display.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
