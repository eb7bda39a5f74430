"""Results belong to the pictures, labels and files they were made of; what has changed is made again, and said."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpcam_jax.data.folder import Folder
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine import processes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.results.masks import MaskResults
from lpcam_jax.results.origins import Origins
from lpcam_jax.training.run import Run


def write_scenes(folder, numbers, *, labels=None):
    """Drawn scenes as a folder data set: images/NAME.png and labels.csv."""
    scenes = Shapes(40, seed=5)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["name,labels"]
    for place, number in enumerate(numbers):
        record = scenes[number]
        Image.fromarray(record.image).save(folder / "images" / f"p{place}.png")
        names = [name for name, there in zip(scenes.class_names, record.labels, strict=True) if there]
        lines.append(f"p{place},{';'.join((labels or {}).get(place, names))}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def infer(program, trained):
    def run(*words):
        finished = program("infer.py", "--ckpt", trained, *words)
        assert finished.code == 0, finished.err
        return finished.out + finished.err

    return run


def maps_of(out, name):
    return (out / "maps" / f"{name}.npz").read_bytes()


def test_pictures_of_the_same_names_from_elsewhere_are_refused(infer, program, trained, tmp_path):
    monday = write_scenes(tmp_path / "monday", (0, 1)) / "images"
    tuesday = write_scenes(tmp_path / "tuesday", (2, 3)) / "images"
    out = tmp_path / "out"
    infer("--images", monday, "--out", out)
    before = maps_of(out, "p0")
    finished = program("infer.py", "--ckpt", trained, "--images", tuesday, "--out", out)
    assert (finished.code, finished.err.splitlines()[-1].count("holds results of")) == (2, 1)
    assert str(monday / "p0.png") in finished.err
    assert str(tuesday / "p0.png") in finished.err
    assert maps_of(out, "p0") == before


def test_they_are_refused_where_only_a_page_is_missing_too(infer, program, trained, tmp_path):
    monday = write_scenes(tmp_path / "monday", (0, 1)) / "images"
    tuesday = write_scenes(tmp_path / "tuesday", (2, 3)) / "images"
    out = tmp_path / "out"
    infer("--images", monday, "--out", out, "--pages", "none")
    before = maps_of(out, "p0")
    finished = program("infer.py", "--ckpt", trained, "--images", tuesday, "--out", out)
    assert (finished.code, finished.err.splitlines()[-1].count("holds results of")) == (2, 1)
    assert maps_of(out, "p0") == before
    infer("--images", monday, "--out", out)
    assert (out / "overlays" / "p0.jpg").exists()
    assert maps_of(out, "p0") == before


def test_a_picture_replaced_under_its_name_is_mapped_again(infer, tmp_path):
    images = write_scenes(tmp_path / "mine", (0, 1, 2)) / "images"
    out = tmp_path / "out"
    infer("--images", images, "--out", out)
    before = {name: maps_of(out, name) for name in ("p0", "p1", "p2")}
    shutil.copy(images / "p2.png", images / "p1.png")
    said = infer("--images", images, "--out", out)
    assert "1 of 3 pictures have changed since, and are done again" in said
    assert maps_of(out, "p1") != before["p1"]
    assert [maps_of(out, name) == before[name] for name in ("p0", "p2")] == [True, True]
    assert "changed since" not in infer("--images", images, "--out", out)


def test_a_copy_of_the_data_set_elsewhere_is_the_same_data_set(infer, tmp_path):
    images = write_scenes(tmp_path / "mine", (0, 1)) / "images"
    out = tmp_path / "out"
    infer("--images", images, "--out", out)
    before = maps_of(out, "p0")
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    shutil.rmtree(images)
    said = infer("--images", moved, "--out", out)
    assert "changed since" not in said
    assert maps_of(out, "p0") == before


def test_a_picture_that_has_changed_and_cannot_be_read_has_no_old_result(infer, tmp_path):
    images = write_scenes(tmp_path / "mine", (0, 1)) / "images"
    out = tmp_path / "out"
    infer("--images", images, "--out", out)
    (images / "p1.png").write_bytes(b"no picture")
    infer("--images", images, "--out", out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pictures"] == 1
    assert "p1.png" in metrics["skipped"][0]
    assert not (out / "maps" / "p1.npz").exists()


@pytest.fixture(scope="module")
def own_run(program, recipe, tmp_path_factory):
    """A run on a folder data set; look, do not touch."""
    root = write_scenes(tmp_path_factory.mktemp("own") / "data", range(16))
    workdir = root.parent / "run"
    words = ("--data.source", "folder", "--data.root", root, "--training.epochs", 1, "--workdir", workdir)
    finished = program("train.py", recipe, *words)
    assert finished.code == 0, finished.err
    return root, workdir, words


def test_corrected_labels_give_new_maps(own_run, program, tmp_path):
    root, workdir, _ = own_run
    corrected, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(root, corrected)
    infer = ("infer.py", "--ckpt", workdir, "--root", corrected, "--out", out)
    assert program(*infer).code == 0
    with np.load(out / "maps" / "p3.npz") as arrays:
        before = set(arrays["names"].tolist())
    text = (corrected / "labels.csv").read_text().splitlines()
    text[4] = "p3,owl" if before != {"owl"} else "p3,fox"
    (corrected / "labels.csv").write_text("\n".join(text) + "\n")
    finished = program(*infer)
    assert finished.code == 0, finished.err
    assert "1 of 16 pictures have changed since" in finished.out + finished.err
    with np.load(out / "maps" / "p3.npz") as arrays:
        assert set(arrays["names"].tolist()) == {text[4].split(",")[1]}


def test_a_finished_run_says_that_pictures_were_added(own_run, program, recipe, tmp_path):
    root, workdir, words = own_run
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    more = write_scenes(tmp_path / "data", range(20))
    words = ["--data.root", more, *[word for word in words[2:] if word != root][1:]]
    words[words.index(workdir)] = copy
    words = ["--data.source", "folder", *words]
    finished = program("train.py", recipe, *words)
    assert finished.code == 2
    assert "was trained on" in finished.err.splitlines()[-1]
    before = (copy / "prototypes.npz").read_bytes()
    finished = program("train.py", recipe, *words, "--stages", "prototypes")
    assert finished.code == 0, finished.err
    assert (copy / "prototypes.npz").read_bytes() != before
    assert Run.open(copy).steps() == Run.open(workdir).steps()


@pytest.mark.parametrize("files", [(), (".lpcam_jax.lock",), (".lpcam_jax.lock", "protocol.json"), ("notes.txt",)])
def test_a_folder_without_a_result_is_begun_or_goes_on(tmp_path, files):
    """Such as one of a program that was killed before it had written the protocol, or right after."""
    source, out = Shapes(3, seed=1), tmp_path / "out"

    def missing():
        protocol = {"class_names": list(source.class_names)}
        return MaskResults(out, protocol, title="Masks", caption="mask").missing(source)

    assert missing() == [0, 1, 2]
    for name in {"protocol.json"} - {*files}:
        (out / name).unlink()
    for name in {*files} - {"protocol.json"}:
        (out / name).write_text("")
    assert missing() == [0, 1, 2]
    assert (out / "protocol.json").exists()


@pytest.mark.parametrize("last", ["0", "1"])
def test_the_newest_line_counts_whichever_process_wrote_it(tmp_path, monkeypatch, last):
    before, now = Shapes(2, seed=1), Shapes(2, seed=2)
    for process, source in ((1 - int(last), before), (int(last), now)):
        monkeypatch.setattr(processes, "part", lambda process=process: (process, 2))
        Origins(tmp_path).note(source, 0)
    monkeypatch.setattr(processes, "part", lambda: (0, 1))
    assert Origins(tmp_path).changed(now, [0]) == []
    with pytest.raises(UserError, match="drawn with seed 2, not of scene 0 drawn with seed 1"):
        Origins(tmp_path).changed(before, [0])


def test_lines_of_before_say_no_time(tmp_path):
    old, new = Shapes(1, seed=1), Shapes(1, seed=2)
    origins, file = Origins(tmp_path), tmp_path / "origins.0.jsonl"
    origins.note(old, 0)
    name, place, stamp, digest, _ = json.loads(file.read_text())
    file.write_text(json.dumps([name, place, stamp, digest]) + "\n")
    assert Origins(tmp_path).changed(old, [0]) == []
    Origins(tmp_path).note(new, 0)
    assert Origins(tmp_path).changed(new, [0]) == []


def test_files_that_were_copied_are_read_once_and_not_at_every_start(tmp_path, monkeypatch):
    root = write_scenes(tmp_path / "data", (0, 1))
    Origins(tmp_path).note(Folder(root), 1)
    for file in (root / "images").iterdir():
        os.utime(file, (1, 1))
    assert Origins(tmp_path).changed(Folder(root), [1]) == []
    reads, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.suffix) or real(path))
    assert Origins(tmp_path).changed(Folder(root), [1]) == []
    assert ".png" not in reads


def test_origins_survive_a_line_cut_short(tmp_path):
    source = Shapes(3, seed=1)
    origins = Origins(tmp_path)
    for index in range(3):
        origins.note(source, index)
    file = tmp_path / "origins.0.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    again = Origins(tmp_path)
    assert again.changed(source, range(3)) == [2]  # nothing is known of the last: it is made again
    again.note(source, 2)
    assert Origins(tmp_path).changed(source, range(3)) == []
    assert Origins(tmp_path / "new").changed(source, range(3)) == []
