"""A packed run: used like the run it was made of, from a folder and from the Hub, with the same bits."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from test_commands import assert_one_line_error

import lpcam_jax as lp
from lpcam_jax.config.json import read_config
from lpcam_jax.machine import hub
from lpcam_jax.machine.errors import UserError
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

KINDS = ("classifier", "segmentation", "irn", "mctformer")


@pytest.fixture(scope="module")
def pack(program, tiny_runs, tmp_path_factory):
    """`pack(kind)`: a folder with the packed run of that kind; look, do not touch."""
    folder, made = tmp_path_factory.mktemp("packed"), set()

    def packed(kind: str) -> Path:
        if kind not in made:
            words = ("export", "--format", "hub", "--ckpt", tiny_runs.run(kind).directory, "--out", folder / kind)
            finished = program("lpcam_jax.__main__", *words)
            assert finished.code == 0, finished.err
            made.add(kind)
        return folder / kind

    return packed


@pytest.fixture
def on_the_hub(pack, tmp_path, monkeypatch):
    """The packed classifier as hf:me/net, downloaded before; there is no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    cache, commit = tmp_path / "hub", "0" * 40
    repository = cache / "models--me--net"
    shutil.copytree(pack("classifier"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return repository / "snapshots" / commit


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.rest) for kind in KINDS[1:])])
def test_the_network_has_the_same_bits(tiny_runs, pack, mesh, kind):
    """Of a run with a running mean, too: that is what is used, and what is packed."""
    states = [trained_state(Run.open(folder), devices=mesh) for folder in (tiny_runs.run(kind).directory, pack(kind))]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for before, after in zip(*map(jax.tree.leaves, states), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_maps_have_the_same_bits(trained, pack):
    before, after = lp.load(trained)(picture()), lp.load(pack("classifier"))(picture())
    assert before.probabilities == after.probabilities
    for method, maps in before.maps.items():
        np.testing.assert_array_equal(maps, after.maps[method])


@pytest.mark.rest
def test_infer_goes_on_where_it_was_with_the_packed_run(program, mapped, pack, tmp_path):
    """It has the same fingerprint, so its results are of the same model."""
    out = shutil.copytree(mapped.directory, tmp_path / "maps")
    name = sorted(path.name for path in (out / "maps").iterdir())[0]
    (out / "maps" / name).unlink()
    finished = program("infer.py", "--ckpt", pack("classifier"), "--out", out)
    assert finished.code == 0, finished.err
    assert (out / "maps" / name).read_bytes() == (mapped.directory / "maps" / name).read_bytes()


def test_what_is_packed(trained, pack):
    folder = pack("classifier")
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors", "prototypes.npz"]
    assert read_config(folder) == read_config(trained)
    assert all(array.dtype == np.float32 for array in load_file(folder / "model.safetensors").values())


def test_absolute_paths_are_only_names(trained, program, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    values = json.loads((run / "config.json").read_text())
    values["config"]["data"] |= {"root": "/home/anna/animals", "masks": "my/masks"}
    (run / "config.json").write_text(json.dumps(values))
    words = ("export", "--format", "hub", "--ckpt", run, "--out", tmp_path / "packed")
    assert program("lpcam_jax.__main__", *words).code == 0
    assert not any("anna" in file.read_text(errors="ignore") for file in (tmp_path / "packed").iterdir())
    data = read_config(tmp_path / "packed")[0].data
    assert (data.root, data.masks) == ("animals", "my/masks")


# The model card


def test_the_card_has_the_numbers_of_the_run_and_its_results(trained, mapped, program, tmp_path):
    words = ("export", "--format", "hub", "--ckpt", trained, "--results", mapped.directory, "--out", tmp_path / "net")
    assert program("lpcam_jax.__main__", *words).code == 0
    card = (tmp_path / "net" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: lpcam_jax\n")
    assert "hf:OWNER/net" in card
    validation = [
        json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines() if "validation" in line
    ]
    assert f"mAP {100 * validation[-1]['validation_map']:.1f} %" in card
    metrics = json.loads((mapped.directory / "metrics.json").read_text())
    assert f"{100 * metrics['scores']['lpcam']['best']['miou']:.1f}" in card


def test_results_of_another_model_are_refused(trained, mapped, program, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    metrics = json.loads((mapped.directory / "metrics.json").read_text())
    metrics["protocol"]["model"] = "0" * 16
    (results / "metrics.json").write_text(json.dumps(metrics))
    words = ("export", "--format", "hub", "--ckpt", trained, "--results", results, "--out", tmp_path / "net")
    assert_one_line_error(program("lpcam_jax.__main__", *words), "was made by another model")
    assert not (tmp_path / "net").exists()


# What is refused


def test_nothing_that_is_there_is_lost(trained, program, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    words = ("export", "--format", "hub", "--ckpt", trained, "--out")
    assert_one_line_error(program("lpcam_jax.__main__", *words, tmp_path), "is not empty; choose a new folder")
    refused = program("lpcam_jax.__main__", *words, tmp_path / "README.md")
    assert_one_line_error(refused, "README.md is a file; choose a new folder")
    assert os.listdir(tmp_path) == ["README.md"]


def test_a_packed_run_is_not_trained_further(recipe, pack, program):
    folder = pack("classifier")
    before = sorted(os.listdir(folder))
    assert_one_line_error(program("train.py", recipe, "--workdir", folder), "packed run, which is not trained further")
    assert sorted(os.listdir(folder)) == before


def with_eight_bits(file):
    """One of its arrays in a kind of floats that NumPy does not have."""
    arrays = load_file(file)
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    name = min(arrays)
    content = save(arrays | {name: arrays[name].astype(np.uint8)}, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].replace(b'"U8"', b'"F8_E4M3"')
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (with_eight_bits, r"model\.safetensors holds no numbers in .*; pack or download it again"),
        (lambda file: file.write_bytes(file.read_bytes()[:-4]), r"model\.safetensors.*; (pack or )?download it again"),
        (lambda file: save_file({"a": np.zeros(1)}, file), r"is not that of a packed run"),
        (
            lambda file: save_file({"a": np.zeros(1)}, file, {"step": "6"}),
            r"another model than its config\.json: .*\d more",
        ),
    ],
)
def test_a_damaged_file(pack, program, tmp_path, change, pattern):
    folder = shutil.copytree(pack("classifier"), tmp_path / "packed")
    change(folder / "model.safetensors")
    assert_one_line_error(program("infer.py", "--ckpt", folder, "--out", tmp_path / "out"), pattern)


def test_a_run_without_prototypes_is_not_packed(trained, program, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "prototypes.npz").unlink()
    words = ("export", "--format", "hub", "--ckpt", run, "--out", tmp_path / "packed")
    assert_one_line_error(program("lpcam_jax.__main__", *words), "has no prototypes yet")


# The Hub, as a download leaves it on this disk


def test_an_address_is_used_like_the_folder(on_the_hub, trained):
    assert hub.folder_of("hf:me/net") == on_the_hub
    np.testing.assert_array_equal(
        lp.load("hf:me/net")(picture()).maps["lpcam"], lp.load(trained)(picture()).maps["lpcam"]
    )


def test_files_that_are_not_here_yet_are_downloaded(on_the_hub, pack, monkeypatch):
    """The client itself is taken at its word: which files it is asked for, is what matters."""
    import huggingface_hub

    for name in ("model.safetensors", "prototypes.npz"):
        (on_the_hub / name).unlink()
    asked = []

    def download(repository, *, allow_patterns):
        asked.append((repository, sorted(allow_patterns)))
        return str(shutil.copytree(pack("classifier"), on_the_hub, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Path(hub.folder_of("hf:me/net")) == on_the_hub == Path(hub.folder_of("hf:me/net"))
    assert asked == [("me/net", ["config.json", "model.safetensors", "prototypes.npz"])]


@pytest.mark.rest
def test_weights_and_the_networks_settings_come_from_an_address(on_the_hub, program, tmp_path):
    small = ("--data.scenes", 12, "--training.epochs", 1, "--training.batch-size", 4, "--training.crop", 48)
    words = ("shapes", *small, "--model.weights", "hf:me/net", "--stages", "classifier", "--workdir", tmp_path / "run")
    finished = program("train.py", *words)
    assert finished.code == 0, finished.err
    assert read_config(tmp_path / "run")[0].model.width == read_config(on_the_hub)[0].model.width
    assert "weights hf:me/net: its backbone" in finished.err + finished.out


@pytest.mark.parametrize("text", ['{"architecture": "resnet50", "num_classes": 1000}', "[" * 100_000], ids=range(2))
def test_a_repository_that_holds_something_else(on_the_hub, program, tmp_path, text):
    (on_the_hub / "config.json").write_text(text)
    assert not hub.is_run("hf:me/net")
    assert_one_line_error(program("infer.py", "--ckpt", "hf:me/net", "--out", tmp_path), "hf:me/net holds no run")


@pytest.mark.parametrize("address", ["hf:user/a--b", "hf:user/a..b", "hf:-user/a", "hf:user/a.git", f"hf:a/{'b' * 97}"])
def test_addresses_that_there_cannot_be(address):
    with pytest.raises(UserError, match=r"is not a file on the Hub; write hf:OWNER/NAME or hf:OWNER/NAME/FILE\.$"):
        hub.is_run(address)


def test_an_address_that_cannot_be_reached(on_the_hub, program, tmp_path):
    pattern = r"hf:me/other/config\.json cannot be downloaded .*by hand"
    assert_one_line_error(program("infer.py", "--ckpt", "hf:me/other", "--out", tmp_path), pattern)
