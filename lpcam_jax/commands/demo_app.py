"""A page in the browser that maps, or segments, the pictures one drops on it, with a trained run.

    python -m lpcam_jax demo-app --ckpt runs/demo

Upload a picture, choose classes or take the predicted ones, and see all heat maps, the seed at any threshold, the
pseudo mask by a CRF, the patches that the prototypes of a class are made of, and download maps and mask. With the run
of a segmentation network, its masks. Needs Gradio (pip install 'lpcam_jax[app]'). The page is for this machine alone
unless --host says otherwise; Ctrl-C ends it.
"""

from dataclasses import dataclass

from ..config.command_line import parse_flags
from ..machine import devices
from ..machine.errors import UserError
from ..training.run import Run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A run, and where the page is served."""

    ckpt: str
    """the --workdir of a finished run of train.py, or a packed run: its folder, or hf:OWNER/NAME: a classifier or a
    segmentation network"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 shows the page to every machine of the network, without a password"""
    port: int = 7860
    """port to listen on; 0: any that is free"""


def main(words: list[str]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        words: the command line after the command's name.

    Raises:
        UserError: Gradio is not installed, the run cannot be used, or the port is taken.
    """
    arguments = parse_flags(Arguments, words, command="demo-app", description=__doc__)
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port {arguments.port}: give one in 0..65535.")
    from ..app.page import app_of, listening_port, serve

    port = listening_port(arguments.host, arguments.port)
    devices.start()
    serve(app_of(Run.open(arguments.ckpt)), arguments.host, port)
