"""What is installed here, what is missing for what, and the machine: versions, devices, memory, compiled programs.

    python -m lpcam_jax doctor

Nothing is changed.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

from .. import __version__
from ..config.command_line import parse_flags
from ..data import formats
from ..data.annotations import layouts
from ..machine import devices, installation, threads
from ..machine.errors import UserError

# What each extra of pyproject.toml is for.
EXTRAS = {
    "tensorboard": "the curves of training in TensorBoard, too",
    "hub": "weights and models on the Hugging Face Hub, hf:OWNER/NAME",
    "app": "demo-app, a page in the browser that maps pictures",
    "onnx": "export --format onnx",
    "formats": "pictures in HEIC and JPEG XL",
    "test": "to run the tests",
    "parity": "to compare networks with those of torch in the tests",
    "bench": "to compare the CRF with the usual one",
    "lint": "to check the style of the code",
    "docs": "to build the documentation as a site",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """None."""


def main(words: list[str]) -> None:
    """Print one screen.

    Args:
        words: the command line after the command's name.
    """
    parse_flags(Arguments, words, command="doctor", description=__doc__)
    required = installation.requirements()
    for title, lines in {
        "package": _package(required),
        "devices": _devices(),
        "machine": _machine(),
        "compiled": _compiled(),
        "formats": _formats(),
        "extras": _extras(required),
    }.items():
        for number, line in enumerate(lines):
            print(f"{'' if number else title:<10}{line}")


def _package(required: list[installation.Requirement]) -> Iterator[str]:
    """Its version and place, those of what it always needs, and what of it is wrong."""
    yield f"lpcam_jax {__version__} in {Path(__file__).parents[1]}, Python {platform.python_version()}"
    needed = [one for one in required if not one.extra]
    versions = [f"{one.name} {one.installed}" for one in needed if one.fits]
    for start in range(0, len(versions), 5):
        yield ", ".join(versions[start : start + 5])
    if not required:
        yield "not installed, so nothing is known of what it needs: pip install -e ."
    for one in needed:
        if not one.fits:
            found = f"{one.installed} is installed" if one.installed else "is missing"
            yield f"WRONG: {one.name} {found}, {one.versions} is needed: pip install '{one.name}{one.versions}'"


def _devices() -> Iterator[str]:
    try:
        devices.start()
    except UserError as error:
        yield f"WRONG: {error}"
        return
    for kind in sorted({device.device_kind for device in jax.devices()}):
        count = sum(device.device_kind == kind for device in jax.devices())
        yield f"{count} x {kind} ({jax.default_backend()})"
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia/version").exists():
        yield 'there is an NVIDIA driver, but JAX does not use it: pip install "jax[cuda13]"'


def _machine() -> Iterator[str]:
    memory = ""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB of memory"
    yield f"{threads.cores()} cores{memory}, {platform.system()} {platform.machine()}"


def _compiled() -> Iterator[str]:
    """The compilation cache, which may be deleted at any time."""
    folder = Path(jax.config.jax_compilation_cache_dir)
    sizes = [file.stat().st_size for file in folder.glob("*") if file.is_file()]
    yield f"{len(sizes)} files, {sum(sizes) / 2**20:.0f} MiB in {folder}; they may be deleted at any time"


def _formats() -> Iterator[str]:
    """What is read and written."""
    from .export import FORMATS

    yield f"pictures: {', '.join(formats.FORMATS)}"
    yield f"labels: {', '.join(layouts.LAYOUTS)}"
    yield f"export: {', '.join(FORMATS)}"


def _extras(required: list[installation.Requirement]) -> Iterator[str]:
    """Each extra: whether all of it is installed, and what it is for."""
    for extra, purpose in EXTRAS.items():
        packages = [one for one in required if one.extra == extra]
        missing = [one.name for one in packages if not one.fits]
        state = f"needs {', '.join(missing)}: pip install 'lpcam_jax[{extra}]'" if missing else "installed"
        if packages:
            yield f"{extra:<12}{purpose}; {state}"
