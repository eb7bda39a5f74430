"""The package as it is installed: recipes by name, how programs were called, and the wheel alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_commands import SMALL_TRAINING, TINY_MODEL, assert_one_line_error

from lpcam_jax import __version__
from lpcam_jax.config.recipes import load_recipe, recipes
from lpcam_jax.machine.programs import as_called, called

REPOSITORY = Path(__file__).parents[1]
SOURCES = (
    "lpcam_jax",
    "configs",
    "setup.py",
    "pyproject.toml",
    "requirements.txt",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


# Recipes


def test_recipes_are_found_by_name():
    files = (REPOSITORY / "configs").rglob("*.py")
    assert recipes().keys() == {file.relative_to(REPOSITORY / "configs").as_posix()[:-3] for file in files}
    assert load_recipe("shapes") == load_recipe(str(REPOSITORY / "configs" / "shapes.py"))


def test_a_recipe_that_loads_its_sibling():
    assert load_recipe("voc_animals_plus") != load_recipe("voc_animals")


def test_configs_name_py_is_the_packages_where_there_is_no_such_folder(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("configs/shapes.py") == load_recipe("shapes")
    (tmp_path / "configs").mkdir()  # one's own, which lacks it
    assert_one_line_error(program("train.py", "configs/shapes.py", "--workdir", "run"), "did you mean shapes?")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes.py").write_text((REPOSITORY / "configs" / "voc12.py").read_text())
    assert load_recipe("shapes.py") == load_recipe("voc12")
    (tmp_path / "folder").mkdir()  # a folder is no recipe
    assert load_recipe("folder").data.source == "folder"


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("foldr", "--workdir", "run"), r"there is no recipe foldr; did you mean folder\?"),
        (("--workdir", "run", "foldr"), r"there is no recipe foldr; did you mean folder\?"),
        (("--distributed", "folder", "--workdir", "run"), "give the recipe first"),
        (
            ("folder", "--workdir", "run", "--traning.epochs", "3"),
            r"no flag --traning\.epochs; did you mean --training\.e",
        ),
        (("folder", "--wrokdir", "run"), r"no flag --wrokdir; did you mean --workdir\?"),
        (("--workdir", "run", "folder", "--crop=3"), r"no flag --crop; did you mean --training\.crop\?"),
    ],
)
def test_a_word_that_is_nearly_right(program, words, pattern):
    assert_one_line_error(program("train.py", *words), pattern)


def test_a_command_that_is_nearly_right(program):
    assert_one_line_error(program("lpcam_jax.__main__", "trian"), r"no command 'trian'; did you mean train\? There are")


# How it was called


@pytest.mark.parametrize(
    ("argv0", "name"),
    [
        ("train.py", "train.py"),
        ("/usr/bin/lpcam", "lpcam train"),
        ("lpcam_jax/__main__.py", "python -m lpcam_jax train"),
    ],
)
def test_usage_shows_how_a_command_was_called(monkeypatch, argv0, name):
    monkeypatch.setattr(sys, "argv", [argv0])
    assert called("train") == name


def test_commands_in_texts_are_those_of_lpcam_where_it_was_called(monkeypatch):
    text = "python train.py configs/folder.py; train.py, then python -m lpcam_jax refine of infer.py, not my/train.py"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["lpcam"])
    assert as_called(text) == "lpcam train folder; lpcam train, then lpcam refine of lpcam infer, not my/train.py"


# The wheel


def run(*words, **options) -> str:
    """What a program prints; it must end well."""
    finished = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel from a source distribution from the sources; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    sources = folder / "sources"
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        sources.mkdir(exist_ok=True)
        copy(REPOSITORY / name, sources / name)
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=sources)
    [packed] = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", folder, packed)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.mark.rest
def test_what_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {file.relative_to(REPOSITORY) for file in REPOSITORY.glob("lpcam_jax/**/*") if file.is_file()}
    expected = {file.as_posix() for file in package if "__pycache__" not in file.parts}
    expected |= {f"lpcam_jax/recipes/{name}.py" for name in recipes()}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("/LICENSE") for name in names)


@pytest.mark.rest
@pytest.mark.minutes
def test_the_wheel_alone_trains_and_infers_from_an_empty_folder(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel)
    lpcam = site / "bin" / "lpcam"
    environment = {"cwd": here, "env": {**os.environ, "PYTHONPATH": str(site)}}
    assert run(lpcam, "--version", **environment) == f"lpcam_jax {__version__}\n"
    assert f"in {site / 'lpcam_jax'}, " in run(lpcam, "doctor", **environment)  # and not what the tests import
    assert "    lpcam train shapes --workdir runs/demo\n" in run(lpcam, "--help", **environment)
    small = (*TINY_MODEL, *SMALL_TRAINING, "--training.long-side", "64", "80", "--prototypes.clusters", "2")
    scales = ("--prototypes.cam-scales", "1", "--inference.scales", "1", "--inference.max-shapes", "1")
    words = ("shapes", "--data.scenes", "12", *small, *scales, "--workdir", "run")
    assert run(lpcam, "train", *words, **environment).endswith("lpcam infer --ckpt run --out heatmaps/\n")
    run(lpcam, "infer", "--ckpt", "run", "--out", "heatmaps", "--limit", "2", "--refine", "none", **environment)
    assert (here / "heatmaps" / "index.html").is_file()
    assert (here / "heatmaps" / "prototypes.html").is_file()
    finished = subprocess.run(
        [lpcam, "infer", "--ckpt", "no", "--out", "x"], capture_output=True, text=True, **environment
    )
    assert finished.stderr.endswith("lpcam train --workdir makes one.\n")
