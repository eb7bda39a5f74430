"""The commands, given what people give them: one line that says what is wrong, or the work goes on."""

import os
import re
import signal

import numpy as np
import pytest
from conftest import HANGS
from PIL import Image

from lpcam_jax.machine.programs import run_program
from lpcam_jax.training.run import Run

TINY_MODEL = ("--model.blocks", 1, 1, 1, 1, "--model.width", 4, "--model.stem-width", 4)
SMALL_TRAINING = (
    "--training.epochs",
    1,
    "--training.least-steps",
    1,
    "--training.batch-size",
    4,
    "--training.crop",
    64,
)
SMALL_REST = ("--training.long-side", 64, 80, "--prototypes.clusters", 2, "--inference.max-shapes", 1)
ONE_SCALE = ("--prototypes.cam-scales", 1.0, "--inference.scales", 1.0)
TINY = (*TINY_MODEL, *SMALL_TRAINING, *SMALL_REST, *ONE_SCALE)


def assert_one_line_error(finished, pattern: str):
    """Exit code 2, one line that begins with "error:" and says what the pattern asks for, no traceback."""
    assert finished.code == 2, finished
    errors = [line for line in re.split(r"[\r\n]+", finished.err) if "error" in line.lower()]
    assert len(errors) == 1, finished.err
    assert re.match(f"error: .*{pattern}", errors[0]), errors[0]
    assert finished.err.endswith(errors[0] + "\n")
    assert "Traceback" not in finished.err


def picture(path, *, size=(60, 40), seed=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """A data set of six pictures, of two classes."""
    root = tmp_path / "my_data"
    rows = [f"{i},{['cat', 'dog', 'cat dog'][i % 3]}" for i in range(6)]
    for i in range(6):
        picture(root / "images" / f"{i}.jpg", seed=i)
    (root / "labels.csv").write_text("\n".join(["name,labels", *rows]))
    return root


# train.py


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, r"there is no recipe .*recipe.py\. Give the path of a file, or one of .*folder"),
        ("def get_config(): raise ValueError('no\\nluck')", r"cannot be used: ValueError: no.*luck"),
        ("def get_config(: pass", r"cannot be used: SyntaxError"),
        ("from lpcam_jax import nothing", r"cannot be used: ImportError"),
        ("x = 1", r"cannot be used: AttributeError"),
        (
            "def get_config(): return {}",
            r"returns dict, not the config of a system: classifier, irn, psa, amn, mctformer, edam, segmentation, "
            r"upernet",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used(program, tmp_path, content, pattern):
    path = tmp_path / "recipe.py"
    if content:
        path.write_text(content)
    assert_one_line_error(program("train.py", path, "--workdir", tmp_path / "run"), pattern)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stages", ["classifer", "classifier,masks", ""])
def test_an_unknown_stage(program, recipe, tmp_path, stages):
    finished = program("train.py", recipe, "--workdir", tmp_path / "run", "--stages", stages)
    assert_one_line_error(finished, r"this recipe has no stage '.*'; it has classifier, prototypes")


@pytest.mark.parametrize(
    ("labels", "words", "pattern"),
    [
        ("", (), r"labels.csv: the first line is"),
        ("name,labels\n", (), r"no picture after the header"),
        ("name,labels\n0,\n", (), r"no picture has a label"),
        ("name,labels\n0,cat\n8,dog\n9,dog\n", (), r"2 of 3 pictures are not in .*images: 8, 9"),
        (None, ("--data.classes", "cat", "walrus"), r"walrus"),
        (None, ("--limit", 0), r"--limit is 0; use at least one picture"),
    ],
)
def test_a_data_set_that_cannot_be_used(program, folder, tmp_path, labels, words, pattern):
    if labels is not None:
        (folder / "labels.csv").write_text(labels)
    words = ("--data.root", folder, "--workdir", tmp_path / "run", *TINY, *words)
    assert_one_line_error(program("train.py", "configs/folder.py", *words), pattern)


@pytest.mark.parametrize("root", [(), ("--data.root", "no/such/folder")])
def test_no_data_set(program, tmp_path, root):
    words = ("--workdir", tmp_path / "run", *root)
    assert_one_line_error(program("train.py", "configs/folder.py", *words), "folder")


@pytest.mark.rest
def test_a_run_as_weights_brings_its_network(program, trained, folder, tmp_path):
    words = (*SMALL_TRAINING, *SMALL_REST, *ONE_SCALE, "--training.least-steps", 4, "--workdir", tmp_path / "run")
    finished = program("train.py", "configs/folder.py", "--data.root", folder, "--model.weights", trained, *words)
    assert finished.code == 0, finished.err
    assert f"weights {trained}: its backbone" in finished.out
    run, theirs = Run.open(tmp_path / "run"), Run.open(trained)
    assert (run.config.model.blocks, run.config.model.width) == (theirs.config.model.blocks, theirs.config.model.width)
    assert run.steps()[-1] == 4  # an epoch is one step
    words = ("--model.weights", trained, "--model.width", 8, "--workdir", tmp_path / "other")
    finished = program("train.py", "configs/folder.py", "--data.root", folder, *words)
    assert_one_line_error(finished, r".* has another backbone: use --model.blocks 1 1 1 1 --model.width 4")


def test_weights_that_are_no_npz_file(program, recipe, tmp_path):
    path = tmp_path / "weights.npz"
    path.write_text("these are no weights")
    words = ("--workdir", tmp_path / "run", "--model.weights", path)
    assert_one_line_error(program("train.py", recipe, *words), r"weights.npz is not a readable npz file")


def test_weights_that_are_not_there(program, recipe, tmp_path):
    for name in ("nowhere.npz", "elsewhere.npz"):  # another setting is no complaint: the run has not begun
        words = ("--workdir", tmp_path / "run", "--model.weights", name)
        assert_one_line_error(program("train.py", recipe, *words), rf"weights file {name} does not exist")


def test_weights_of_another_network(program, recipe, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    words = ("--workdir", tmp_path / "run", "--model.weights", path)
    assert_one_line_error(program("train.py", recipe, *words), r"does not hold this backbone: .*conv1")


def test_a_workdir_below_a_file(program, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    finished = program("train.py", recipe, "--workdir", tmp_path / "file" / "run")
    assert_one_line_error(finished, "a file stands where a folder is needed")


def test_prototypes_of_a_run_without_a_classifier(program, recipe, tmp_path):
    finished = program("train.py", recipe, "--workdir", tmp_path, "--stages", "prototypes")
    assert_one_line_error(finished, r"has no checkpoint yet; run train.py")


def test_a_picture_that_cannot_be_read_ends_training_with_its_name(program, folder, tmp_path):
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:600])
    words = ("--data.root", folder, "--workdir", tmp_path / "run", *TINY)
    assert_one_line_error(program("train.py", "configs/folder.py", *words), r"\d.jpg: damaged picture")


@pytest.mark.rest
def test_a_folder_of_pictures_with_a_table_of_labels(program, folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    finished = program("train.py", "configs/folder.py", "--data.root", folder, "--workdir", run, *TINY)
    assert finished.code == 0, finished.err
    assert "cat:" in finished.out
    finished = program("infer.py", "--ckpt", run, "--out", out)
    assert finished.code == 0, finished.err
    assert len(list(out.glob("maps/*.npz"))) == 6
    assert "mIoU" not in finished.out  # there are no masks


# infer.py


def test_a_run_that_is_not_there(program, tmp_path):
    finished = program("infer.py", "--ckpt", tmp_path / "nothing", "--out", tmp_path / "out")
    assert_one_line_error(finished, r"holds no run \(no config.json\)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"config": {', "Expecting property name"),
        ("[]", "its class_names are no list of texts"),
        ('{"class_names": "cat", "config": {"data": {}}}', "its class_names are no list of texts"),
        ('{"class_names": [1, 2], "config": {"data": {}}}', "its class_names are no list of texts"),
        ('{"class_names": ["cat"], "config": {"data": "x"}}', "Data is no object"),
        ('{"class_names": ["cat"], "config": {"data": {}, "model": [1]}}', "BackboneConfig is no object"),
        ('{"class_names": ["cat"], "config": []}', "list"),
        ("[" * 100_000, "recursion"),
    ],
    ids=range(8),
)
def test_a_run_whose_config_is_damaged(program, tmp_path, text, reason):
    (tmp_path / "config.json").write_text(text)
    finished = program("infer.py", "--ckpt", tmp_path, "--out", tmp_path / "out")
    assert_one_line_error(finished, rf"config.json cannot be read \(.*{reason}.*\); train again")


@pytest.mark.parametrize(
    ("split", "words", "pattern"),
    [
        ("val", (), r"val: this data set has no splits; write all\."),
        ("val[:3]", (), r"val\[:3\]: .* write all\[:3\]\."),
        ("all[30:]", (), r"all\[30:\]: the slice is empty; all holds 24 pictures"),
        ("all[3]", (), r"all\[3\]: \[3\] is not a slice; write all\[:80%\]"),
        ("val", ("--images", "*.jpg"), r"--split val: --images has no splits; omit one of the two"),
    ],
)
def test_a_split_that_there_is_not(program, trained, tmp_path, split, words, pattern):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--split", split, *words)
    assert_one_line_error(finished, pattern)
    assert not (tmp_path / "out").exists()


def test_a_slice_is_mapped(program, trained, tmp_path):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path, "--split", "all[2:5]")
    assert finished.code == 0, finished.err
    assert {path.stem for path in tmp_path.glob("maps/*.npz")} == {f"scene_{n:05}" for n in (2, 3, 4)}


def test_maps_of_predicted_classes_and_of_labels_do_not_mix(program, trained, tmp_path):
    picture(tmp_path / "scene_00000.png")
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--images", tmp_path)
    assert finished.code == 0, finished.err
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--limit", 1)
    assert_one_line_error(finished, "holds heat maps of another model or protocol")


def test_an_output_below_a_file(program, trained, tmp_path):
    (tmp_path / "file").write_text("")
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "file" / "out")
    assert_one_line_error(finished, "a file stands where a folder is needed")


def test_an_output_that_is_a_file(program, trained, tmp_path):
    (tmp_path / "file").write_text("")
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "file")
    assert_one_line_error(finished, "a file stands where a folder is needed")


@pytest.mark.parametrize("pattern", ["*.jpg", "nowhere", ""])
def test_no_picture_matches(program, trained, tmp_path, pattern):
    words = ("--out", tmp_path / "out", "--images", f"{tmp_path}/{pattern}")
    assert_one_line_error(program("infer.py", "--ckpt", trained, *words), "no (such )?picture")


def test_damaged_pictures_are_skipped_and_counted_and_strange_ones_mapped(program, trained, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    picture(images / "good.jpg")
    picture(images / "cmyk.jpg", mode="CMYK")
    picture(images / "dot.png", size=(1, 1))
    picture(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:900])
    (images / "empty.jpg").touch()
    finished = program("infer.py", "--ckpt", trained, "--out", out, "--images", images)
    assert finished.code == 0, finished.err
    assert {path.stem for path in out.glob("maps/*.npz")} == {"good", "cmyk", "dot"}
    assert len(re.findall(r"skipped: .*(cut|empty)\.jpg", finished.out)) == 2
    assert "2 pictures were skipped" in finished.out
    assert "3 pictures are in" in finished.out


def test_only_damaged_pictures(program, trained, tmp_path):
    (tmp_path / "empty.jpg").touch()
    words = ("--out", tmp_path / "out", "--images", tmp_path)
    finished = program("infer.py", "--ckpt", trained, *words)
    assert_one_line_error(finished, "none of the 1 pictures could be read")


def test_a_limit_maps_the_first_pictures(program, trained, tmp_path):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path, "--limit", 3)
    assert finished.code == 0, finished.err
    assert len(list(tmp_path.glob("maps/*.npz"))) == 3


def test_a_process_of_its_own_ends_with_code_2_and_one_line(start_program, tmp_path):
    process = start_program("infer.py", "--ckpt", tmp_path, "--out", tmp_path / "out")
    out, err = process.communicate(timeout=HANGS)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]* holds no run [^\n]*\n", err)


def ctrl_c():
    raise KeyboardInterrupt


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("main", "code"), [(ctrl_c, 130), (sigterm, 143)])
def test_whoever_is_told_to_stop_says_how_to_go_on(capsys, main, code):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert end.value.code == code
    assert capsys.readouterr().err == "stopped; the same command continues where it was.\n"
    assert signal.getsignal(signal.SIGTERM) == before
