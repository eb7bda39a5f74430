"""EDAM: its pairs, what it is trained on, memory, classes of pictures without labels, files and programs;
test_edam_parity.py has its numbers."""

import json
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from noise import Noise, found_in
from safetensors.numpy import save_file
from tiny_networks import CLASSES, LABELS, network

from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.edam.attention import CollaborativeAttention
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMHead, EDAMInference, EDAMTraining
from lpcam_jax.systems.edam.maps import map_pictures
from lpcam_jax.systems.edam.pairs import Pair, Pairs, paired
from lpcam_jax.systems.edam.system import system
from lpcam_jax.systems.edam.training import paired_crops

# Pairs.


def share_a_class(labels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return (labels[pairs[:, 0]] * labels[pairs[:, 1]]).any(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_every_pass_pairs_every_picture_once_with_one_that_shares_a_class(seed):
    """Where classes are large and even there is a perfect pairing, pass after pass another one."""
    labels = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    pairs = paired(labels, 120, seed=seed)
    assert share_a_class(labels, pairs).all()
    for one_pass in np.split(pairs, 3):
        np.testing.assert_array_equal(np.sort(one_pass.ravel()), np.arange(80))
    assert (pairs[:40] != pairs[40:80]).any()
    np.testing.assert_array_equal(paired(labels, 120, seed=seed), pairs)


def test_pictures_of_several_classes_are_seen_once_but_for_a_few_that_others_were_left_with():
    labels = (np.random.default_rng(0).random((301, 20)) < 0.07).astype(np.float32)
    labels[np.arange(301), np.arange(301) % 20] = 1
    pairs = paired(labels, 150, seed=1)
    assert share_a_class(labels, pairs).all()
    assert len(np.unique(pairs)) > 280
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_a_picture_whose_class_no_other_has_is_paired_with_itself_and_one_without_a_class_with_none():
    labels = np.float32([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    pairs = [tuple(sorted(pair)) for pair in paired(labels, 30, seed=0).tolist()]
    assert pairs.count((2, 2)) == 10
    assert {picture for pair in pairs for picture in pair} == {0, 1, 2, 4}
    assert all(pair in {(0, 1), (0, 4), (1, 4), (2, 2)} for pair in pairs)


def test_no_class_at_all_is_one_line():
    with pytest.raises(
        UserError, match=r"^none of the pictures to train on has a class; EDAM is trained on pairs that"
    ):
        paired(np.zeros((4, 3), np.float32), 2, seed=0)


def test_a_pair_becomes_two_crops_with_the_labels_of_each():
    source, training = Noise((1, 3), labels=LABELS[:2] + LABELS[2:]), EDAMTraining(crop=48, long_side=(32, 64))
    [pair] = [Pairs(source, 1, seed=0)[0]]
    batch = paired_crops(training)(pair, np.random.default_rng(0))
    assert (batch["image"].shape, batch["image"].dtype) == ((2, 48, 48, 3), np.uint8)
    assert batch["box"].shape == (2, 4)
    np.testing.assert_array_equal(batch["labels"], [pair.first.labels, pair.second.labels])
    same = paired_crops(training)(Pair(pair.first, pair.first), np.random.default_rng(0))
    assert (same["image"][0] != same["image"][1]).any(), "each has its own crop, mirror image and colours"


# Network.


def test_a_position_is_shared_among_classes_and_background():
    heat = network("edam")(*[np.random.default_rng(0).normal(size=(1, 40, 56, 3)).astype(np.float32), None])["heat"]
    assert heat.shape == (1, 5, 7, CLASSES + 1)
    np.testing.assert_allclose((heat**2).sum(axis=-1), 1, atol=1e-5)


def attention_of(classes: int) -> tuple[nnx.GraphDef, dict]:
    build = nnx.eval_shape(lambda: CollaborativeAttention(classes, 8, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    graph, parameters = nnx.split(build)
    return graph, nnx.to_pure_dict(parameters)


def test_memory_does_not_grow_with_the_labels():
    """Of the gradient, too: the attention of one label at a time is kept."""

    def bytes_of(classes: int) -> int:
        graph, parameters = attention_of(classes)

        def loss(parameters, x, heat, key):
            return nnx.merge(graph, parameters)(x, heat, key=key).sum()

        shapes = [jax.ShapeDtypeStruct((1, 2, 16, 16, width), jnp.float32) for width in (8, classes)]
        key = jax.eval_shape(lambda: jax.random.key(0))
        program = jax.jit(jax.grad(loss)).lower(parameters, *shapes, key).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert bytes_of(12) < 1.2 * bytes_of(3)


def test_what_a_picture_says_depends_on_the_other_of_its_pair():
    graph, shapes = attention_of(CLASSES)
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
    x, heat = (rng.normal(size=(2, 2, 3, 4, width)).astype(np.float32) for width in (8, CLASSES))
    x[1, 0], heat[1, 0] = x[0, 0], heat[0, 0]
    logits = np.asarray(jax.jit(lambda p, *inputs: nnx.merge(graph, p)(*inputs))(parameters, x, heat))
    assert np.abs(logits[0, 0] - logits[1, 0]).min() > 1e-4


# Maps.


def test_pictures_without_labels_are_mapped_for_the_classes_that_are_predicted():
    """By what a picture and its mirror image say of each other; larger ones are brought to the size of crops."""
    options = {"inference": EDAMInference(scales=(1.0,), max_shapes=1), "crop": 40, "description": None}
    net = network("edam").on_devices()
    found, errors = found_in(map_pictures(net, Noise((1, 4), unreadable=[4]), **options))
    assert errors == ["4.jpg: damaged picture; get it again"]
    made = found["1"]
    above = np.flatnonzero(made.probabilities >= 0.5)
    np.testing.assert_array_equal(made.classes, above if len(above) else [made.probabilities.argmax()])
    assert made.maps["edam"].shape == (len(made.classes), 37, 50)
    assert made.maps["edam"].max() == 1


# Files.

CONFIG = EDAMConfig(model=replace(network("edam").config.model), head=EDAMHead(width=4))


@cache
def parts() -> dict:
    from lpcam_jax.training.state import network_of

    return nnx.to_pure_dict(nnx.state(network_of(CONFIG, CLASSES)))


def published(classes: int, width: int = 4) -> dict[str, np.ndarray]:
    """A state dict as it is published, on a ResNet."""
    from lpcam_jax.backbones.weights.fill import torchvision_arrays

    rng = np.random.default_rng(0)
    backbone = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), parts()["backbone"])
    arrays, features = torchvision_arrays({"backbone": backbone}), parts()["mask_layer"]["kernel"].shape[2]
    shapes = {
        "mask_layer.weight": (classes + 1, features, 3, 3),
        "d_d.weight": (width, features, 1, 1),
        "embedding.segment.weight": (5, width),
        "embedding.position.pe": (1, 9, width),
    }
    for number in range(classes):
        start = f"trans_list.{number}.0"
        layers = [*(f"attention.linear_layers.{i}" for i in range(3)), "attention.output_linear"]
        sides = dict.fromkeys(layers, (width, width))
        sides |= {"feed_forward.w_1": (4 * width, width), "feed_forward.w_2": (width, 4 * width)}
        for layer, side in sides.items():
            shapes |= {f"{start}.{layer}.weight": side, f"{start}.{layer}.bias": side[:1]}
        for norm in ("input_sublayer", "output_sublayer"):
            shapes |= {f"{start}.{norm}.norm.{kind}": (width,) for kind in ("a_2", "b_2")}
        shapes[f"fc_list.{number}.weight"] = (1, width, 1, 1)
    return arrays | {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def load(arrays: dict[str, np.ndarray], folder):
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "edam.safetensors")
    model = replace(CONFIG.model, weights=str(folder / "edam.safetensors"))
    return system.load(replace(CONFIG, model=model), parts())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_its_own_file_fills_it_whole(prefix, tmp_path):
    arrays = published(CLASSES)
    loaded = load({prefix + name: array for name, array in arrays.items()}, tmp_path)
    assert (loaded.loaded, loaded.skipped) == (len(arrays) - 1, (f"{prefix}embedding.position.pe",))
    assert jax.tree.map(np.shape, loaded.network) == jax.tree.map(np.shape, parts())
    fc1 = loaded.network["attention"]["blocks"]["fc1"]["kernel"]
    np.testing.assert_array_equal(fc1[2], arrays["trans_list.2.0.feed_forward.w_1.weight"].T)


def test_a_file_of_a_backbone_leaves_the_rest_new(tmp_path):
    arrays = {name: array for name, array in published(CLASSES).items() if name.startswith(("conv1", "bn1", "layer"))}
    assert str(load(arrays, tmp_path)).endswith("0 skipped, 3 new (attention, mask_layer, reduction)")


def test_of_an_edam_of_other_classes_the_backbone_is_taken(tmp_path):
    loaded = load(published(5), tmp_path)
    assert set(loaded.network) == {"backbone"}
    assert "attention new: the file's has 5 classes, this one 3" in str(loaded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"d_d.weight": None}, r"does not hold this EDAM: d_d.weight is missing\.$"),
        (
            published(CLASSES, width=6),
            r"d_d.weight has shape \(6, .*; and \d+ more\. Its attention needs --head.width 6\.$",
        ),
    ],
    ids=["missing", "other width"],
)
def test_a_file_that_does_not_fit_is_one_line(change, said, tmp_path):
    arrays = published(CLASSES) | change
    with pytest.raises(UserError, match=said):
        load({name: array for name, array in arrays.items() if array is not None}, tmp_path)


# Programs; what is common to all systems is in test_program_contract.py.


def test_a_backbone_of_other_strides_is_refused(program, tiny_runs, tmp_path):
    words = (*tiny_runs.words("edam"), "--workdir", tmp_path / "run")
    finished = program(*words, "--model.output-stride", 16)
    assert finished.code == 2
    assert "its last features have 16 pixels per position, EDAM needs 8; take a WideResNet-38" in finished.err
    assert not (tmp_path / "run").exists()


def test_its_maps_go_through_crf_and_saliency(program, tiny_runs, tmp_path):
    from PIL import Image

    run, saliency = tiny_runs.run("edam").directory, tmp_path / "saliency"
    saliency.mkdir()
    made = tiny_runs.results("edam").directory
    for file in sorted((made / "maps").glob("*.npz"))[:4]:
        with np.load(file) as maps:
            shape = maps["edam"].shape[1:]
        Image.fromarray(np.full(shape, 255, np.uint8)).save(saliency / f"{file.stem}.png")
    words = ("--ckpt", run, "--out", tmp_path / "maps", "--limit", 4, "--saliency", saliency)
    finished = program("infer.py", *words)
    assert finished.code == 0, finished.err
    metrics = json.loads((tmp_path / "maps" / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["edam"]
    assert metrics["protocol"]["saliency"] is True
    assert len(list((tmp_path / "maps" / "pseudo_masks").glob("*.png"))) == 4


def test_pictures_of_ones_own_have_no_labels(program, tiny_runs, tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)).save(tmp_path / "mine.png")
    words = ("--ckpt", tiny_runs.run("edam").directory, "--images", tmp_path / "mine.png", "--refine", "none")
    finished = program("infer.py", *words, "--out", tmp_path / "maps")
    assert finished.code == 0, finished.err
    with np.load(tmp_path / "maps" / "maps" / "mine.npz") as maps:
        assert len(maps["classes"]) == len(maps["edam"]) > 0
        assert ((maps["probabilities"] >= 0) & (maps["probabilities"] <= 1)).all()
