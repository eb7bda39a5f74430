"""The page of `demo-app`: a trained run in the browser, by Gradio.

picture, classes -> maps of all methods, drawn over the picture
threshold        -> seed;  by a CRF -> pseudo mask;  both drawn anew from the maps that are there
"""

import hashlib
import io
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config.registry import title
from ..data.masks import MAX_CLASSES
from ..data.pictures import read_picture
from ..machine.errors import UserError
from ..machine.files import write_atomically
from ..machine.programs import as_called
from ..refine.pictures import crf_labels, cut
from ..report.overlays import mask_panel, overlay, strip_panel
from ..report.palette import mask_png
from ..seeds import with_class_values
from ..systems.lpcam.trained_model import NamedMaps, TrainedModel
from ..systems.prototyping.prototype_patches import read_patches, strip_file
from ..training.run import Run

# Of no mode: otherwise Gradio converts the pictures that are uploaded, and others are mapped than by infer.py.
_PICTURE = {"type": "filepath", "image_mode": None, "sources": ["upload", "clipboard"], "label": "picture"}
_BUTTONS = ["download", "fullscreen"]
# How often Gradio looks for old files among those that were uploaded and made, and how old they are, in seconds.
_EMPTIED = 3600, 24 * 3600
# No font comes from elsewhere.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}


def app_of(run: Run) -> Any:
    """The page of a finished run.

    Args:
        run: of a classifier, or of a segmentation network.

    Returns:
        gradio.Blocks.

    Raises:
        UserError: Gradio is not installed; or the run is not finished, or of another kind.
    """
    gradio = _gradio()
    model = run.system.as_function(run)
    name = f"lpcam_jax: {run.directory.name}"
    with gradio.Blocks(title=name, analytics_enabled=False, delete_cache=_EMPTIED) as page:
        gradio.Markdown(f"### {_plain(run.directory.name)}\n{_plain(', '.join(run.class_names))}")
        if isinstance(model, TrainedModel):
            _maps(gradio, model, run)
        else:
            _masks(gradio, model)
        gradio.Markdown(f"lpcam_jax {__version__}. Pictures stay on the machine that serves this page.")
    return page


def listening_port(host: str, port: int) -> int:
    """The port to serve a page on: this one, or for 0 one that is free.

    Raises:
        UserError: nothing can listen there.
    """
    try:
        with socket.create_server((host, port)) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error}; choose another, such as --port 0.") from None


def serve(page: Any, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        page: gradio.Blocks.
        host: address to listen on.
        port: port to listen on.
    """
    options = {"server_name": host, "server_port": port, "share": False, "prevent_thread_lock": True}
    page.launch(**options, quiet=True, theme=_gradio().themes.Base(**_FONTS), footer_links=[])
    print(as_called(f"http://{host}:{port} shows the page; Ctrl-C ends it."), flush=True)
    page.block_thread()
    page.close(verbose=False)  # browsers that still show it: without this, the server never ends, and its files stay


def _maps(gradio: Any, model: TrainedModel, run: Run) -> None:
    """Heat maps, seeds, pseudo masks and prototypes of a classifier; no masks of more classes than these number."""
    names, background = list(run.class_names), run.config.inference.background
    are_numbered = len(names) <= MAX_CLASSES
    with gradio.Row():
        with gradio.Column(scale=1):
            picture = gradio.Image(**_PICTURE)
            classes = gradio.Dropdown(names, multiselect=True, label="classes (none: those it predicts)")
            button = gradio.Button("Map", variant="primary")
            settings = {"value": background, "step": 0.01, "label": "seed threshold", "visible": are_numbered}
            threshold = gradio.Slider(0.01, 0.99, **settings)
            refined = gradio.Checkbox(label="by a CRF: the pseudo mask", visible=are_numbered)
            found = gradio.Label(num_top_classes=5, label="probabilities")
        with gradio.Column(scale=3):
            heat = gradio.Gallery(label="heat maps", columns=3, object_fit="contain", height="auto", buttons=_BUTTONS)
            mask = gradio.Image(label="mask", format="png", buttons=_BUTTONS, visible=are_numbered)
            with gradio.Row():
                files = [gradio.File(label="maps (.npz)"), gradio.File(label="mask (.png)", visible=are_numbered)]
            strips = gradio.Image(label="what the prototypes are made of", format="png", buttons=_BUTTONS)
    mapped = gradio.State()

    def draw(path: str | None, chosen: list[str]) -> tuple:
        if not path:
            raise gradio.Error("There is no picture yet: drop one on the left.")
        maps: NamedMaps = _told(gradio, path, lambda: model(path, classes=chosen or None))
        pictures = [
            (overlay(maps.image, stack[..., k]), f"{title(method)}: {name}")
            for k, name in enumerate(maps.names)
            for method, stack in maps.maps.items()
        ]
        patches = _strips(model, run, maps.classes.tolist())
        arrays = {method: np.moveaxis(stack, -1, 0).astype(np.float16) for method, stack in maps.maps.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, classes=maps.classes, names=np.array(maps.names), **arrays)
        return maps, maps.probabilities, pictures, patches, _file(files[0], "maps.npz", buffer.getvalue())

    def cut_out(maps: NamedMaps | None, background: float, by_crf: bool) -> tuple:
        if maps is None:
            return None, None
        *_, last = maps.maps.values()
        labels = cut(np.moveaxis(last, -1, 0), background)
        if by_crf:
            [labels] = crf_labels(maps.image, [labels], len(maps.classes) + 1)
        return _drawn(with_class_values(labels, maps.classes), maps.image, model.class_names, files[1])

    drawn = button.click(draw, [picture, classes], [mapped, found, heat, strips, files[0]])
    if are_numbered:
        inputs, outputs = [mapped, threshold, refined], [mask, files[1]]
        drawn.success(cut_out, inputs, outputs)
        threshold.release(cut_out, inputs, outputs)
        refined.change(cut_out, inputs, outputs)


def _masks(gradio: Any, model: Any) -> None:
    """Masks of a segmentation network."""
    with gradio.Row():
        with gradio.Column(scale=1):
            picture = gradio.Image(**_PICTURE)
            button = gradio.Button("Segment", variant="primary")
        with gradio.Column(scale=3):
            mask = gradio.Image(label="mask", format="png", buttons=_BUTTONS)
            file = gradio.File(label="mask (.png)")

    def segment(path: str | None) -> tuple:
        if not path:
            raise gradio.Error("There is no picture yet: drop one on the left.")
        found = _told(gradio, path, lambda: model(path))
        return _drawn(found.mask, found.image, model.class_names, file)

    button.click(segment, [picture], [mask, file])


def _drawn(mask: np.ndarray, image: np.ndarray, class_names: Sequence[str], file: Any) -> tuple[np.ndarray, str]:
    """A mask over its picture with a legend, and the file with its values for a gradio.File."""
    return mask_panel(image, mask, None, class_names, caption="mask"), _file(file, "mask.png", mask_png(mask))


def _strips(model: TrainedModel, run: Run, classes: Sequence[int]) -> np.ndarray | None:
    """Patches of the kept prototypes of these classes and their contexts; None for a packed run, which has none."""
    stored, strips = read_patches(run.directory, model.prototypes), []
    for n in classes if stored else ():
        for context, kind in ((False, "class"), (True, "context")):
            for cluster, prototype in enumerate(stored["classes"][n][kind]):
                file = strip_file(run.directory, n, cluster, context=context)
                if prototype["kept"]:
                    caption = f"{run.class_names[n]}: {'its context' if context else 'a part of it'}"
                    with suppress(UserError):  # what is not there or cannot be read is left out
                        strips.append((caption, read_picture(file)))
    return strip_panel(strips) if strips else None


def _file(shown: Any, name: str, content: bytes) -> str:
    """A file to download from a gradio.File, in Gradio's own folder, which is emptied in time."""
    path = Path(shown.GRADIO_CACHE) / hashlib.sha256(content).hexdigest() / name
    write_atomically(path, content)
    return str(path)


def _told(gradio: Any, path: str, work: Callable[[], Any]) -> Any:
    """Do some work; what is wrong with the picture is shown on the page, by its name there."""
    try:
        return work()
    except UserError as error:
        raise gradio.Error(str(error).replace(path, Path(path).name)) from None


def _plain(text: str) -> str:
    """Text as Markdown shows it letter by letter."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|~&$^" else letter for letter in text)


def _gradio() -> Any:
    """The package; UserError if it is not installed."""
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            f"demo-app needs Gradio ({error}): pip install 'lpcam_jax[app]', or pip install gradio."
        ) from None
    return gradio
