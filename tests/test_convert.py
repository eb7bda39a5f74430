"""`python -m lpcam_jax convert`: what is in the file is found, said and written, or one line says why not."""

import http.server
import json
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import HANGS
from flax import nnx
from safetensors.numpy import save_file
from test_commands import assert_one_line_error

from lpcam_jax.backbones.resnet import ResNet
from lpcam_jax.backbones.weights.resnet import load_deeplab

RNG = np.random.default_rng(0)


def resnet(blocks=(1, 1, 2, 1), width=2, stem=4, *, folded=False, expansion=4) -> dict[str, np.ndarray]:
    """A random ResNet of bottlenecks under torchvision's names, written as its constructor is."""
    arrays = {}

    def convolution(name: str, norm: str, outputs: int, inputs: int, side: int):
        arrays[f"{name}.weight"] = RNG.random((outputs, inputs, side, side), np.float32)
        if folded:
            arrays[f"{name}.bias"] = RNG.random(outputs, np.float32)
        else:
            for kind in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{norm}.{kind}"] = RNG.random(outputs, np.float32)
            arrays[f"{norm}.num_batches_tracked"] = np.array(7)

    convolution("conv1", "bn1", stem, 3, 7)
    inputs = stem
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for block in range(count):
            place = f"layer{stage + 1}.{block}"
            convolution(f"{place}.conv1", f"{place}.bn1", inner, inputs, 1)
            convolution(f"{place}.conv2", f"{place}.bn2", inner, inner, 3)
            convolution(f"{place}.conv3", f"{place}.bn3", expansion * inner, inner, 1)
            if block == 0:
                shortcut = f"{place}.downsample"
                convolution(shortcut if folded else f"{shortcut}.0", f"{shortcut}.1", expansion * inner, inputs, 1)
            inputs = expansion * inner
    arrays["fc.weight"], arrays["fc.bias"] = RNG.random((5, inputs), np.float32), RNG.random(5, np.float32)
    return arrays


def contents(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def convert(program, tmp_path):
    """Convert a file, or arrays that are written first, to the folder "out"."""

    def run(source, out="out"):
        if isinstance(source, dict):
            np.savez(tmp_path / "source.npz", **source)
            source = tmp_path / "source.npz"
        return program("lpcam_jax.__main__", "convert", source, "--out", tmp_path / out)

    return run


def test_a_resnet_50_is_found_and_written(convert, tmp_path):
    source = resnet((3, 4, 6, 3))
    finished = convert(source)
    assert finished.code == 0, finished.err
    counts = "265 entries loaded, 55 skipped (fc.weight, fc.bias, 53 num_batches_tracked), 1 new (head)"
    found = "ResNet-50 (blocks 3 4 6 3, width 2, stem 4), batch norm separate"
    flags = f"--model.weights {tmp_path / 'out' / 'backbone.npz'} --model.blocks 3 4 6 3 --model.width 2"
    assert f"{found}, {counts}\n" in finished.out
    assert f"{flags} --model.stem-width 4\n" in finished.out
    written = contents(tmp_path / "out" / "backbone.npz")
    wanted = {name: a for name, a in source.items() if not re.match(r"fc\.|.*num_batches_tracked", name)}
    assert set(written) == set(wanted)
    for name, array in written.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, wanted[name])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["architecture"] == {
        "blocks": [3, 4, 6, 3], "width": 2, "stem_width": 4, "folded": False, "deeplab": False, "classes": 5,
    }  # fmt: skip
    assert (report["loaded"], len(report["skipped"]), report["new"]) == (265, 55, ["head"])


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
def test_the_output_is_the_same_backbone_and_converts_to_itself(convert, tmp_path, folded, layout):
    source = resnet(folded=folded)
    finished = convert({f"module.{name}": array for name, array in source.items()})
    assert f"batch norm {'folded' if folded else 'separate'}, {40 if folded else 100} entries" in finished.out
    assert convert(tmp_path / "out" / "backbone.npz", "again").code == 0
    once, twice = (contents(tmp_path / folder / "backbone.npz") for folder in ("out", "again"))
    assert once.keys() == twice.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(array, twice[name])

    np.savez(tmp_path / "source.npz", **source)
    model = nnx.eval_shape(lambda: ResNet(blocks=(1, 1, 2, 1), width=2, stem_width=4, layout=layout, rngs=nnx.Rngs(0)))
    shapes = nnx.to_pure_dict(nnx.state(model))
    paths = tmp_path / "source.npz", tmp_path / "out" / "backbone.npz"
    before, after = (nnx.to_flat_state(nnx.State(load_deeplab(path, {"backbone": shapes}).backbone)) for path in paths)
    for (name, array), (_, other) in zip(before, after, strict=True):
        np.testing.assert_array_equal(array, other, err_msg=str(name))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_other_formats(convert, tmp_path, kind):
    source, path = resnet(), tmp_path / f"source.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(source, path)
    else:
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array) for name, array in source.items()}
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    finished = convert(path)
    assert finished.code == 0, finished.err
    for name, array in contents(tmp_path / "out" / "backbone.npz").items():
        np.testing.assert_array_equal(array, source[name])


def without(source: dict, *names: str) -> dict:
    return {name: array for name, array in source.items() if not any(part in name for part in names)}


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        (without(resnet(), "conv3", "bn3"), r"no plain ResNet of bottlenecks: it has blocks of two convolutions \(Res"),
        ({"features.0.weight": np.zeros((8, 3, 3, 3))}, r"\(features.0.weight, ...\) is no conv1.weight, layer1"),
        (without(resnet(), "layer3.0"), r"is no layer3.*0?.conv1.weight"),
        (resnet(expansion=2), r"no plain ResNet of bottlenecks: its bottlenecks are wide \(2 of 4 channels"),
        (without(resnet(), "layer2.0.bn1.running_mean"), r"layer2.0.bn1.running_mean is missing. .*export its whole"),
        (without(resnet(), "downsample"), r"layer1.0.downsample.0.weight is missing"),
        (resnet() | {"layer1.0.conv1.bias": np.zeros(2)}, r"layer1.0.bn1.weight and layer1.0.conv1.bias are both"),
        (resnet() | {"bn1.running_var": np.full(4, -1.0)}, r"bn1.running_var holds a negative variance"),
        (resnet() | {"conv1.weight": np.zeros(4)}, r"conv1.weight has shape \(4,\)"),
        (resnet() | {"layer1.0.conv1.weight": np.zeros((0, 4, 1, 1))}, r"no plain ResNet"),
        ({}, r"is no conv1.weight"),
    ],
)  # fmt: skip
def test_other_networks(convert, tmp_path, source, pattern):
    assert_one_line_error(convert(source), pattern)
    assert not (tmp_path / "out").exists()


def test_other_words(convert, program, tmp_path):
    assert_one_line_error(convert(tmp_path / "nothing.pth"), r"nothing.pth does not exist; give an .npz, .pth")
    assert_one_line_error(convert("hf:nothing"), r"write hf:OWNER/NAME or hf:OWNER/NAME/FILE")
    (tmp_path / "file").write_text("")
    assert_one_line_error(convert(tmp_path / "file"), r"no known format of weights; give an .npz, .pth")
    assert_one_line_error(convert(resnet(), "file/out"), "a file stands where a folder is needed")
    finished = program("lpcam_jax.__main__", "convert", "--help")
    assert finished.code == 0
    assert "python -m lpcam_jax convert resnet50.pth --out weights/" in finished.out


# The Hub


def test_a_hub_without_its_client(convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    pattern = (
        r"pip install 'lpcam_jax\[hub\]', or fetch a/b.bin by hand from https://huggingface.co/me/net and give its"
    )
    assert_one_line_error(convert("hf:me/net/a/b.bin"), pattern)


def test_a_hub_that_is_not_there(start_program, tmp_path):
    pytest.importorskip("huggingface_hub")
    words = ("convert", "hf:me/net", "--out", tmp_path / "out")
    process = start_program("-m", "lpcam_jax", *words, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    out, err = process.communicate(timeout=HANGS)
    assert (process.returncode, out) == (2, "")
    advice = r"fetch model.safetensors by hand from https://huggingface.co/me/net and give its path\.\n"
    assert re.fullmatch(rf"error: hf:me/net cannot be downloaded \([^\n]*\); {advice}", err)


def test_a_file_of_a_hub_is_fetched_once(start_program, tmp_path):
    pytest.importorskip("huggingface_hub")
    source = resnet()
    save_file(source, tmp_path / "model.safetensors")
    content, asked = (tmp_path / "model.safetensors").read_bytes(), []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append((self.command, self.path.replace("0" * 40, "main")))
            self.send_response(200)
            self.send_header("ETag", '"a1b2"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
        command = ("-m", "lpcam_jax", "convert", "hf:me/net", "--out")
        first = start_program(*command, tmp_path / "out", **environment)
        _, err = first.communicate(timeout=HANGS)
        server.shutdown()
        thread.join()
    second = start_program(*command, tmp_path / "again", **environment)
    second.communicate(timeout=HANGS)
    assert (first.returncode, second.returncode) == (0, 0), err
    assert asked.count(("GET", "/me/net/resolve/main/model.safetensors")) == 1
    for name, array in contents(tmp_path / "again" / "backbone.npz").items():
        np.testing.assert_array_equal(array, source[name])
