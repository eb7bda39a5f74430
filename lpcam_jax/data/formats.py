"""Which files are pictures: the formats that can be read here, and those that cannot."""

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from PIL import Image

# An explicit list, because Pillow by default also hands PostScript files to an interpreter.
_OF_PILLOW = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "QOI")
# Format: the module that reads it, the package that has the module, the format's extensions.
_OF_PLUGINS = {
    "HEIF": ("pillow_heif", "pillow-heif", {".heic", ".heics", ".heif", ".heifs", ".hif"}),
    "JXL": ("pillow_jxl", "pillow-jxl-plugin", {".jxl"}),
}


def _formats() -> tuple[str, ...]:
    """The formats of Pillow that are read, and those whose plugin is installed."""
    Image.init()
    for module, _, _ in _OF_PLUGINS.values():
        try:
            plugin = import_module(module)
        except ImportError:
            continue
        if register := getattr(plugin, "register_heif_opener", None):
            register()
    return tuple(name for name in (*_OF_PILLOW, *_OF_PLUGINS) if name in Image.OPEN)


FORMATS = _formats()
SUFFIXES = frozenset(  # MPO is several JPEGs in a file, which the reader of JPEG reads
    suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")
)

# fmt: off
# Pictures that Pillow does not know, or that it knows and that are not read.
_NO_PICTURES = {".h5", ".hdf", ".pdf", ".mpg", ".mpeg"}
_OF_OTHERS = {
    ".ai", ".arw", ".cdr", ".cr2", ".cr3", ".crw", ".dcm", ".dng", ".exr", ".flif", ".fpx", ".hdr", ".jls", ".jxr",
    ".kra", ".nef", ".nii", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".svg", ".wdp",
    ".x3f", ".xcf",
}
UNREAD = (
    (Image.registered_extensions().keys() | _OF_OTHERS).union(*(suffixes for *_, suffixes in _OF_PLUGINS.values()))
    - SUFFIXES - _NO_PICTURES
)
# What often lies beside pictures; nobody takes it for one, so it is not reported.
COMPANIONS = frozenset({
    ".aae", ".cache", ".cfg", ".css", ".csv", ".data", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb", ".js",
    ".json", ".jsonl", ".log", ".mat", ".md", ".names", ".npy", ".npz", ".ods", ".onnx", ".parquet", ".pdf", ".pkl",
    ".pt", ".pth", ".py", ".rst", ".safetensors", ".sh", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".xmp",
    ".yaml", ".yml",
})
# fmt: on

_BEGINNINGS = {
    rb"\xff\xd8\xff": ".jpg",
    rb"\x89PNG": ".png",
    rb"GIF8": ".gif",
    rb"RIFF....WEBP": ".webp",
    rb"II\*\0|MM\0\*": ".tif",
    rb"....ftypavi[fs]": ".avif",
    rb"....ftyp(hei[cxs]|hev[cx]|mif1|msf1)": ".heic",
    rb"\0\0\0\x0cJXL |\xff\x0a": ".jxl",
}


def suffix_of_content(path: Path) -> str:
    """The extension that a file should have by its first bytes; "" if they are not a picture's."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            beginning = file.read(16)
    except OSError:
        return ""
    return next((end for begin, end in _BEGINNINGS.items() if re.match(begin, beginning, re.DOTALL)), "")


def how_to_read(suffixes: Iterable[str]) -> str:
    """What to do with pictures of these extensions, which are not read."""
    packages = [package for _, package, known in _OF_PLUGINS.values() if known & set(suffixes)]
    install = f"pip install {' '.join(packages)}, or " if packages else ""
    return f"{install}convert them to JPEG or PNG"
