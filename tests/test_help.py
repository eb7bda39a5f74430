"""Every example that --help shows works as pasted, one after the other, in a folder that holds what they name."""

import importlib
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_commands import picture
from test_convert import resnet
from test_saliency_command import thin_u2net
from tiny_benchmarks import voc_archives

from lpcam_jax.__main__ import COMMANDS

REPOSITORY = Path(__file__).parents[1]

# A recipe as it is, of a tiny network that is hardly trained. Its width is that of the weights in the folder.
TINY = """


_whole = get_config


def get_config():
    from dataclasses import replace

    config = _whole()
    model = replace(
        config.model, blocks=(1, 1, 1, 1), width=4, stem_width=4, layout="torchvision", stem_pool="symmetric"
    )
    if hasattr(config, "prototypes"):
        prototypes = replace(config.prototypes, cam_scales=(1.0,), clusters=2, sample=64)
        inference = replace(config.inference, scales=(1.0,), max_shapes=1)
        training = replace(config.training, epochs=1, least_steps=1, batch_size=4, crop=48, long_side=(48, 64))
        config = replace(config, prototypes=prototypes, inference=inference)
    elif hasattr(config, "labels"):
        small = {"radius": 3} if hasattr(config.training, "radius") else {}
        training = replace(config.training, epochs=1, least_steps=1, batch_size=2, crop=64, **small)
    else:
        training = replace(config.training, steps=2, batch_size=2, accumulate=1, crop=48, validate_every=2)
    data = replace(config.data, scenes=16)
    return replace(config, data=data, model=model, training=training)
"""

# What an example needs that a test cannot have.
NOT_RUN = {"hf:": "the network", "runs/paper": "a chain on the archives of VOC", "demo-app": "somebody who ends it"}
# Of what an example has too much for a test.
LESS = {"chain": ["--dry-run"], "faithfulness": ["--side", "32", "--steps", "2"], "sweep": ["--limit", "8"]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory: recipes, pictures and weights under the names of the examples."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    for recipe in (tmp_path / "configs").glob("*.py"):
        if "def get_config" in (text := recipe.read_text()):  # a chain's stages are such
            recipe.write_text(text + TINY)
    for number in range(20):  # ten of each class, so that check-data has nothing to say
        picture(tmp_path / "my_data" / "images" / f"{number}.jpg", seed=number)
    for number in range(3):
        picture(tmp_path / "my" / f"{number}.jpg", seed=number)
    rows = [f"{number},{['cat', 'dog'][number % 2]}" for number in range(20)]
    (tmp_path / "my_data" / "labels.csv").write_text("\n".join(["name,labels", *rows]))
    voc_archives(tmp_path / "DIR")
    weights = resnet((1, 1, 1, 1), width=4, stem=4)
    tame = {key: np.ones_like(a) if key.endswith("running_var") else a / 10 for key, a in weights.items()}
    for name in ("resnet50.pth", "resnet101_caffe.pth", "deeplabv1_resnet101-coco.pth"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, **tame)
    with (tmp_path / "u2netp.onnx").open("wb") as file:
        np.savez(file, **thin_u2net())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples(text: str) -> list[list[str]]:
    """The words of every command line in a help text; a backslash goes on in the next line, `> file` is the shell's."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition(" > ")[0]) for line in lines if line.startswith("    python ")]


def run(program, words: list[str]):
    """`python train.py ...` or `python -m lpcam_jax ...`, in this process."""
    assert words[0] == "python"
    if words[1] == "-m":
        return program(f"{words[2]}.__main__", *words[3:])
    return program(words[1], *words[2:])


@pytest.mark.rest
@pytest.mark.minutes
def test_every_example_of_every_help_works_as_pasted(program, folder):
    done = []  # some are shown twice
    commands = [f"lpcam_jax.commands.{name.replace('-', '_')}" for name in COMMANDS]
    for name in (*commands, "lpcam_jax.__main__"):
        found = examples(importlib.import_module(name).__doc__)
        assert found, f"{name} shows no example"
        for words in found:
            if words not in done and not any(what in word for word in words for what in NOT_RUN):
                done.append(words)
                less = [flag for name, flags in LESS.items() if name in words for flag in flags]
                finished = run(program, [*words, *less])
                assert finished.code == 0, f"{' '.join(words)}: {finished.err}"


@pytest.mark.parametrize("words", [["train.py"], ["infer.py"], *(["lpcam_jax.__main__", name] for name in COMMANDS)])
def test_help_shows_the_examples(program, words):
    finished = program(*words, "--help")
    assert finished.code == 0
    name = words[-1].removesuffix(".py")
    called = f"python {name}.py" if name in ("train", "infer") else f"python -m lpcam_jax {name}"
    assert called in finished.out
    if name != "infer":  # whose flags are those of a classifier
        assert len(finished.out.splitlines()) < 60, "a screen and a half"


def test_help_of_a_recipe_has_all_its_flags(program):
    without, finished = (program("train.py", *recipe, "--help").out for recipe in ((), ("configs/shapes_irn.py",)))
    assert "--labels.foreground" in finished
    assert "--labels.foreground" not in without
    assert "train.py RECIPE --help" in without
    assert "shapes_irn" in without
    assert "shapes_chain" not in without
