"""python -m lpcam_jax doctor: one screen that is true."""

import tomllib
from importlib import metadata
from pathlib import Path

import jax
import pytest

from lpcam_jax import __version__
from lpcam_jax.commands.doctor import EXTRAS
from lpcam_jax.machine.installation import requirements, within

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


@pytest.fixture
def required(monkeypatch):
    """`required("numpy>=99", ...)`: from now on the installed package says that it needs these."""

    def write(*lines):
        monkeypatch.setattr(metadata, "requires", lambda name: list(lines))

    return write


def test_one_screen(program):
    finished = program("lpcam_jax.__main__", "doctor")
    assert finished.code == 0
    assert len(finished.out.splitlines()) <= 24
    assert f"lpcam_jax {__version__}" in finished.out
    assert f"{jax.device_count()} x cpu" in finished.out
    assert jax.config.jax_compilation_cache_dir in finished.out


def test_what_is_missing_or_too_old_is_named_with_what_to_do(program, required):
    numpy = metadata.version("numpy")
    required(
        "jax>=0.4", "numpy<99,>=98", "not-there>=1", 'not-there-either>=1; extra == "hub"', 'numpy; extra == "lint"'
    )
    finished = program("lpcam_jax.__main__", "doctor")
    assert finished.code == 0
    assert f"WRONG: numpy {numpy} is installed, <99,>=98 is needed: pip install 'numpy<99,>=98'" in finished.out
    assert "WRONG: not-there is missing, >=1 is needed" in finished.out
    assert "WRONG: jax" not in finished.out
    [hub] = [line for line in finished.out.splitlines() if "hub  " in line]
    assert "hf:OWNER/NAME; needs not-there-either: pip install 'lpcam_jax[hub]'" in hub
    [lint] = [line for line in finished.out.splitlines() if "lint" in line]
    assert lint.endswith("installed")


def test_every_extra_says_what_it_is_for():
    assert list(EXTRAS) == sorted(EXTRAS, key=list(PYPROJECT["project"]["optional-dependencies"]).index)
    assert EXTRAS.keys() == PYPROJECT["project"]["optional-dependencies"].keys()


def test_our_own_requirements_are_understood():
    known = requirements()
    assert {one.name for one in known if not one.extra} >= {"jax", "flax", "etils"}
    assert {one.extra for one in known} <= {"", *EXTRAS}
    assert all(one.fits for one in known if not one.extra)


@pytest.mark.parametrize(
    ("version", "versions", "fits"),
    [
        ("0.10.2", "<0.13,>=0.10.2", True),
        ("0.9.9", "<0.13,>=0.10.2", False),
        ("0.13.0", "<0.13,>=0.10.2", False),
        ("0.12.9.dev20260101", "<0.13,>=0.10.2", True),
        ("3.0", "<3", False),
        ("2.13.0+cpu", "==2.13.0", True),
        ("1.1.0", "==1.1", True),
        ("7", "", True),
    ],
)
def test_versions(version, versions, fits):
    assert within(version, versions) == fits
