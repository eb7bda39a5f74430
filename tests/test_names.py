"""Names of files that are not UTF-8, from the pictures to everything that is made of them."""

import contextlib
import io
import json
import os
import re
import sys
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_benchmarks as tiny
from conftest import HANGS, Finished
from PIL import Image
from test_prepared import write_data_set
from test_saliency_command import thin_u2net
from tiny_recipes import CLASSIFIER

from lpcam_jax.__main__ import main
from lpcam_jax.data.prepared import Prepared
from lpcam_jax.machine.files import write_json
from lpcam_jax.machine.programs import run_program
from lpcam_jax.report.page import write_page

pytestmark = [
    pytest.mark.rest,
    pytest.mark.skipif(sys.platform != "linux", reason="a file system that takes any bytes for a name"),
]

NAME, ODD_CLASS = os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xe9t\xe9")
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}  # most terminals; Python is lenient in the locale C, which tests may have


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes, one with such a name, of six pictures each, of which two have such a name; with masks."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number, folder in enumerate(("cat", ODD_CLASS)):
        (root / folder).mkdir()
        (root / "masks" / folder).mkdir(parents=True)
        for name in (NAME, *"12345"):
            Image.fromarray(rng.integers(0, 256, (64, 72, 3), dtype=np.uint8)).save(root / folder / f"{name}.jpg")
            mask = np.zeros((64, 72), np.uint8)
            mask[8:40, 10:50] = number + 1
            Image.fromarray(mask).save(root / "masks" / folder / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def recipe(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    text = CLASSIFIER.replace('source="shapes", scenes=24', 'source="folder", held_out=0.2').replace(
        "epochs=3", "epochs=1"
    )
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(data, recipe, program, tmp_path_factory):
    """A run, its heat maps."""
    folder = tmp_path_factory.mktemp("results")
    run, maps = folder / "run", folder / "maps"
    for words in (
        ("train.py", recipe, "--data.root", data, "--workdir", run),
        ("infer.py", "--ckpt", run, "--out", maps),
    ):
        ended = program(*words)
        assert ended.code == 0, ended.err
    return run, maps


def in_strict_terminal(*words) -> Finished:
    """Run a command in this process, which prints as under STRICT."""
    streams, code = [io.TextIOWrapper(io.BytesIO(), "utf-8", "strict") for _ in range(2)], 0
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            run_program(lambda: main([*map(str, words)]))
        except SystemExit as end:
            code = end.code or 0
    for stream in streams:
        stream.flush()
    return Finished(code, *(stream.buffer.getvalue().decode() for stream in streams))


def test_check_data_lists_them(data):
    ended = in_strict_terminal("check-data", data)
    assert ended.code == 1, ended.err  # few pictures of each
    assert "12 pictures, 2 classes" in ended.out
    assert r"\udce9t\udce9" in ended.out


def data_of(page):
    return json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_heat_maps_and_their_page(finished):
    _, maps = finished
    page = (maps / "index.html").read_text(encoding="utf-8")
    [entry] = [one for one in data_of(page)["entries"] if one["id"] == r"cat/caf\udce9"]
    path = unquote_to_bytes(entry["path"])
    assert path == b"cat/caf\xe9"
    assert os.path.exists(os.fsencode(maps) + b"/gallery/photo/" + path + b".jpg")
    assert os.path.exists(os.fsencode(maps) + b"/overlays/" + path + b".jpg")
    metrics = json.loads((maps / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["protocol"]["class_names"] == ["cat", ODD_CLASS]
    assert f"cat/{NAME}" in metrics["pseudo_masks"]["miou_of_pictures"]


def test_training_and_inference_in_a_terminal_that_is_strict(data, recipe, start_program, tmp_path):
    for words in (
        ("train.py", recipe, "--data.root", data, "--workdir", tmp_path / "run"),
        ("infer.py", "--ckpt", tmp_path / "run", "--out", tmp_path / "maps"),
    ):
        process = start_program(*words, **STRICT)
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err
        assert r"\udce9t\udce9" in out
    assert (tmp_path / "maps" / "metrics.json").exists()


def test_a_picture_that_cannot_be_read_is_named(data, finished, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / f"{NAME}.jpg").write_bytes(b"nothing")
    (pictures / "whole.jpg").write_bytes((data / "cat" / "1.jpg").read_bytes())
    ended = in_strict_terminal("infer", "--ckpt", finished[0], "--images", pictures, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert r"caf\udce9.jpg': not a picture" in ended.out
    assert r"caf\\udce9.jpg" in (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["coco", "labelme", "irn"])
def test_exports(data, finished, program, tmp_path, kind):
    out = tmp_path / ("out.json" if kind == "coco" else "out")
    source = ("--maps", finished[1]) if kind == "irn" else ("--masks", finished[1], "--images", data)
    if kind == "labelme":
        source = source[:2]
    ended = program("lpcam_jax.__main__", "export", "--format", kind, *source, "--out", out)
    assert ended.code == 0, ended.err
    if kind == "coco":
        document = json.loads(out.read_text(encoding="utf-8"))
        assert f"cat/{NAME}.jpg" in [picture["file_name"] for picture in document["images"]]
        assert [category["name"] for category in document["categories"]] == ["cat", ODD_CLASS]
    else:
        assert os.path.exists(os.fsencode(out) + b"/cat/caf\xe9" + (b".npy" if kind == "irn" else b".json"))


@pytest.mark.parametrize(
    "words",
    [
        ("seeds", "--maps", "{maps}", "--out", "{out}"),
        ("refine", "--ckpt", "{run}", "--maps", "{maps}", "--refine", "none", "--out", "{out}"),
        ("evaluate", "{recipe}", "--data.root", "{data}", "--predictions", "{maps}", "--out", "{out}"),
        ("saliency", "--ckpt", "{run}", "--weights", "{weights}", "--out", "{out}"),
        ("faithfulness", "--ckpt", "{run}", "--maps", "{maps}", "--limit", "1", "--steps", "2", "--out", "{out}"),
    ],
    ids=lambda words: words[0],
)
def test_commands(data, recipe, finished, tmp_path, words):
    places = {"run": finished[0], "maps": finished[1], "recipe": recipe, "data": data, "out": tmp_path / "out"}
    places["weights"] = tmp_path / "u2netp.npz"
    np.savez(places["weights"], **thin_u2net())
    ended = in_strict_terminal(*(word.format(**places) for word in words))
    assert ended.code == 0, ended.err
    assert (tmp_path / "out").is_dir()


def test_results_may_be_in_a_folder_with_such_a_name(data, finished, program, tmp_path):
    """Predictions, and the data set itself, too."""
    moved, out = tmp_path / NAME, tmp_path / ODD_CLASS
    os.symlink(data, moved)
    ended = program("infer.py", "--ckpt", finished[0], "--root", moved, "--limit", 1, "--out", out)
    assert ended.code == 0, ended.err
    assert (out / "index.html").exists()


def test_a_workdir_with_such_a_name_is_refused_before_training(data, recipe, program, tmp_path):
    ended = program("train.py", recipe, "--data.root", data, "--workdir", tmp_path / NAME)
    assert ended.code == 2
    assert re.fullmatch(r"error: '.*/caf\\udce9' is not UTF-8, and checkpoints .*--workdir\.\n", ended.err)
    assert not (tmp_path / NAME / "config.json").exists()


def test_json_in_one_line(tmp_path):
    write_json(tmp_path / "a.json", {"name": [NAME]}, indent=None)
    assert (tmp_path / "a.json").read_bytes() == rb'{"name": ["caf\udce9"]}'


def test_a_page_shows_them_as_a_terminal_does(tmp_path):
    names = [NAME, "猫", "\\", "😀", "\u2028"]
    write_page(tmp_path / "page.html", "gallery.html", title=NAME, summary=[f"of {NAME}"], data={"names": names})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert r"<p>of caf\udce9</p>" in page
    assert data_of(page) == {"names": [r"caf\udce9", *names[1:]]}


def test_names_in_a_data_set_of_tfds(tmp_path):
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        "file_name": tfds.features.Text(),
    }
    example = {"image": tiny.jpeg(0), "label": 1, "file_name": b"caf\xe9.jpg"}
    folder = write_data_set(tmp_path, features, [example])
    assert Prepared(folder, "train").ids == [NAME]
    assert Prepared(folder, "train").ids == [NAME]  # from the index that was stored
