"""export --format stablehlo and onnx: a network as one program, called where this package is not known."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_commands import picture
from test_heatmaps import arrays_of, strictly_parsed
from tiny_networks import BACKBONES, Random, TinyNetwork, backbone, network

from lpcam_jax.data.pictures import read_picture
from lpcam_jax.data.unlabelled import Pictures
from lpcam_jax.prototype_activation import directions
from lpcam_jax.systems.lpcam.maps import map_pictures
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes, save_prototypes
from lpcam_jax.systems.segmentation.segment import segment_pictures
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import inference_network, network_of, trained_state

SIDE = (50, 70)  # no multiple of the stride
FORMATS = ("stablehlo", "onnx")

# In a process of its own, which has never heard of this package.
LOAD = """
import json, sys
import numpy as np
lines = json.load(open("model.json"))["load"]
exec("\\n".join(lines[:2]))
everything = np.load("pictures.npy")
for count in (len(everything), 1):
    pictures = everything[:count]
    exec(lines[2])
    np.savez(f"results_{count}.npz", **results)
assert "lpcam_jax" not in sys.modules
"""


@pytest.fixture(params=FORMATS)
def format(request) -> str:
    if request.param == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    return request.param


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    for seed in range(3):
        picture(tmp_path / "pictures" / f"{seed}.png", size=SIDE[::-1], seed=seed)
    return sorted((tmp_path / "pictures").iterdir())


@pytest.fixture
def called(program, format, pictures, tmp_path):
    """`called(run)`: what the program of a run makes of the pictures, and what is said of it."""

    def call(run: Path) -> tuple[dict[str, np.ndarray], dict]:
        np.save(tmp_path / "pictures.npy", np.stack([read_picture(path) for path in pictures]))
        words = ("--format", format, "--ckpt", run, "--side", *SIDE, "--out", tmp_path / "model")
        finished = program("lpcam_jax.__main__", "export", *words)
        assert finished.code == 0, finished.err
        loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
        assert loaded.returncode == 0, loaded.stderr
        found = arrays_of(tmp_path / "results_3.npz")
        for name, array in arrays_of(tmp_path / "results_1.npz").items():
            assert array.shape == found[name][:1].shape
            np.testing.assert_allclose(array, found[name][:1], atol=1e-5)
        return found, strictly_parsed(tmp_path / "model.json")

    return call


def test_a_classifier_maps_as_infer_does(called, trained, pictures, mesh, tmp_path):
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    state, plain = trained_state(run, devices=mesh), load_prototypes(run)
    taught = directions(plain)[::-1]  # anything but LPCAM's
    save_prototypes(run, plain._replace(taught=taught), step=int(state.step))
    found, about = called(run.directory)

    classes = len(run.class_names)
    results = map_pictures(
        inference_network(run.config, state, classes, devices=mesh),
        load_prototypes(run),
        Pictures(pictures, run.class_names),
        stride=network_of(run.config, classes).backbone.strides[-1],
        inference=replace(run.config.inference, scales=(1.0,), probability=0.0),
    )
    assert found["lpcam"].dtype == np.float32
    assert found["lpcam"].max() > 0.5
    for index, _, expected in results:
        assert len(expected.classes) == classes
        for method in ("cam", "lpcam", "taught"):
            np.testing.assert_allclose(np.moveaxis(found[method][index], -1, 0), expected.maps[method], atol=5e-4)
        np.testing.assert_allclose(found["probabilities"][index], expected.probabilities, atol=1e-6)

    assert about["class_names"] == list(run.class_names)
    assert list(about["outputs"]) == ["cam", "lpcam", "taught", "probabilities"]
    assert about["outputs"]["lpcam"].startswith(f"float32 (b, {SIDE[0]}, {SIDE[1]}, {classes})")
    assert about.get("platforms", ["cpu", "cuda", "tpu"]) == ["cpu", "cuda", "tpu"]
    assert "without" not in about


def test_a_run_whose_seeds_are_lpcam_a_s_is_told_that_the_program_has_none(program, trained, tmp_path):
    config = json.loads((shutil.copytree(trained, tmp_path / "run") / "config.json").read_text())
    config["config"]["inference"]["affinity"] = 5
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    words = ("--format", "stablehlo", "--ckpt", tmp_path / "run", "--side", 32, 32, "--out", tmp_path / "model")
    finished = program("lpcam_jax.__main__", "export", *words)
    assert finished.code == 0, finished.err
    assert "It is without LPCAM-A, in which the labels of a picture compete; infer.py makes it." in finished.out
    assert "LPCAM-A" in strictly_parsed(tmp_path / "model.json")["without"]


def test_a_segmentation_program_names_what_it_is_without(program, tiny_runs, tmp_path):
    shutil.copytree(tiny_runs.run("segmentation").directory, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["config"]["inference"] |= {"scales": [0.5, 1.5], "fit": [32, 64], "crf": "deeplabv2"}
    config["config"]["training"]["steps"] += 1
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    words = ("--format", "stablehlo", "--ckpt", tmp_path / "run", "--side", 32, 32, "--out", tmp_path / "model")
    finished = program("lpcam_jax.__main__", "export", *words)
    assert finished.code == 0, finished.err
    assert (
        "It is without the scales 0.5, 1.5, the fit to sides of 32 and 64 pixels, the CRF deeplabv2; infer.py"
        in finished.out
    )
    assert strictly_parsed(tmp_path / "model.json")["without"].startswith("the scales 0.5, 1.5")
    assert re.search(r"note: .*run: step \d+ of \d+", finished.err), "it is not finished"


@pytest.mark.parametrize("kind", ["segmentation", "upernet"])
def test_a_segmentation_network_segments_as_infer_does(kind, called, tiny_runs, pictures, mesh):
    run = Run.open(tiny_runs.run(kind).directory)
    found, about = called(run.directory)
    assert list(about["outputs"]) == ["probabilities", "mask"]
    np.testing.assert_allclose(found["probabilities"].sum(axis=-1), 1, atol=1e-5)
    network = inference_network(run.config, trained_state(run, devices=mesh), len(run.class_names), devices=mesh)
    inference = replace(run.config.inference, scales=(1.0,), fit=None, crf="")
    results = segment_pictures(network, Pictures(pictures, run.class_names), inference=inference)
    for index, _, mask in results:
        # Where two classes are all but equally probable, rounding decides.
        best = np.sort(found["probabilities"][index], axis=-1)
        sure = best[..., -1] - best[..., -2] > 1e-4
        assert sure.any()
        np.testing.assert_array_equal(found["mask"][index][sure], mask[sure])


ONLY_ONNX = pytest.mark.parametrize("format", ["onnx"], indirect=True)


@ONLY_ONNX
@pytest.mark.rest
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_the_same_in_onnx(name, format):
    found, expected = in_onnx(backbone(name))
    for stage, array in found.items():
        np.testing.assert_allclose(array, expected[stage], atol=1e-5 * np.abs(expected[stage]).max(), err_msg=stage)


@ONLY_ONNX
@pytest.mark.rest
def test_weights_that_are_used_several_times_are_stored_once(format):
    deeplab = network("segmentation")  # at three scales
    parameters = sum(array.nbytes for array in jax.tree.leaves(deeplab.arrays))
    assert parameters < len(model_of(deeplab, (47, 63))) < 1.5 * parameters


def in_onnx(random: Random) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features of every stage of three pictures of an odd size, by onnxruntime and by JAX."""
    import onnxruntime

    pictures = np.random.default_rng(0).integers(0, 256, (3, 47, 63, 3), np.uint8)
    session = onnxruntime.InferenceSession(model_of(random, pictures.shape[1:3]))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pictures": pictures}), strict=True)), dict(
        zip(names, random(scaled(pictures)), strict=True)
    )


def model_of(random: Random, size: tuple[int, int]) -> bytes:
    """The network as an ONNX model that passes ONNX's own checks."""
    import onnx

    from lpcam_jax.exports.onnx import onnx_model
    from lpcam_jax.exports.programs import Program

    def function(pictures):
        others = (None, None, None) if isinstance(random, TinyNetwork) else ()  # sizes, labels, dropout key
        outputs = random.traced(*random.arrays, scaled(pictures), *others)
        return {f"stage {number:02d}": array for number, array in enumerate(jax.tree.leaves(outputs))}

    outputs = jax.eval_shape(lambda pictures: function(pictures), jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8))
    model = onnx_model(Program(function, size, dict.fromkeys(outputs, ""), ("cat",), "run", 1))
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert json.loads({one.key: one.value for one in onnx.load_from_string(model).metadata_props}["class_names"]) == [
        "cat"
    ]
    return model


def scaled(pictures):
    return (pictures.astype("float32") - 100) / 50
