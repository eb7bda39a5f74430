"""What starting a program imports: a person who asks for --help waits for JAX at the most."""

import subprocess
import sys
from pathlib import Path

import pytest

from lpcam_jax.__main__ import COMMANDS

HEAVY = {"flax", "optax", "orbax", "grain", "tensorflow_datasets", "matplotlib", "scipy", "torch", "pycocotools"}
# Runs a program with --help, whatever it prints, and then names the heavy packages that it has imported.
PROBE = """
import contextlib, io, runpy, sys
sys.argv = {words!r}
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    {run}
print(*sorted({heavy!r} & sys.modules.keys()))
print(*sorted(name for name in sys.modules if name.startswith("lpcam_jax.systems.")))
"""
PROGRAMS = {
    "train.py": "runpy.run_path('train.py', run_name='__main__')",
    "infer.py": "runpy.run_path('infer.py', run_name='__main__')",
    "lpcam_jax": "runpy.run_module('lpcam_jax', run_name='__main__')",
}
REPOSITORY = Path(__file__).parents[1]


def python(code: str) -> str:
    """What a new interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def test_commands_import_nothing_heavy_before_their_flags_are_known():
    modules = [f"lpcam_jax.commands.{name.replace('-', '_')}" for name in COMMANDS]
    heavy = python(f"import sys, {', '.join(modules)}; print(*sorted({HEAVY!r} & sys.modules.keys()))")
    assert heavy == "\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_neither_heavy_packages_nor_other_systems(program):
    code = PROBE.format(words=[program, "--help"], run=PROGRAMS[program], heavy=HEAVY)
    heavy, systems, _ = python(code).split("\n")
    assert not heavy
    others = ("irn", "amn", "deeplab", "mctformer", "edam", "segmentation", "upernet")
    assert not any(name.startswith(f"lpcam_jax.systems.{kind}") for kind in others for name in systems.split())
