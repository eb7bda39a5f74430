"""MCTformer: its schedule, what it is trained on, skipped blocks, memory, files and programs; test_mctformer_parity.py
has its numbers."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from noise import Noise, found_in
from safetensors.numpy import save_file
from test_vit_weights import in_timm
from tiny_networks import CLASSES, LABELS, network, shapes_of

from lpcam_jax.data.records import Record
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.mctformer.config import MCTformerConfig, MCTformerInference, MCTformerModel, MCTformerTraining
from lpcam_jax.systems.mctformer.maps import map_pictures, stretched
from lpcam_jax.systems.mctformer.network import build_mctformer, path_factors
from lpcam_jax.systems.mctformer.training import erased, mctformer_optimizer, rate_of_epoch, timm_crops
from lpcam_jax.training.state import graph_of, network_of

# Training.


def test_the_schedule_is_the_published_one_to_the_digit():
    rates = [1e6 * rate_of_epoch(MCTformerTraining(), epoch, epochs=60) for epoch in (*range(8), 30, 59)]
    assert rates[:6] == pytest.approx([1.0, 1.0, 13.3, 25.6, 37.9, 50.2], abs=1e-9)
    assert [round(rate, 3) for rate in rates[6:]] == [61.606, 61.215, 37.624, 10.144]


def test_a_larger_batch_has_a_higher_rate_but_starts_and_ends_alike():
    training = MCTformerTraining(batch_size=128)
    rates = [rate_of_epoch(training, epoch, epochs=60) for epoch in (0, 6, 59)]
    once = [rate_of_epoch(MCTformerTraining(), epoch, epochs=60) for epoch in (0, 6, 59)]
    assert rates[0] == once[0]
    assert 1.9 < rates[1] / once[1] < 2.1
    assert rates[2] < 1.05 * once[2]


def test_only_kernels_decay_and_the_rate_changes_with_the_epoch():
    """The updates of parameters that are all one, if no gradient asks for any."""
    training = MCTformerTraining(weight_decay=0.5, warm_up=1, learning_rate=0.32, least_rate=0.002, batch_size=16)
    config = network("mctformer").config
    optimizer = mctformer_optimizer(training, network_of(config, CLASSES), epochs=4, steps_of_epoch=2)
    _, shapes, _ = graph_of(config, CLASSES)
    ones, zeros = (jax.tree.map(lambda leaf, v=v: np.full(leaf.shape, v, np.float32), shapes) for v in (1, 0))
    state, decays = optimizer.init(ones), []
    update = jax.jit(optimizer.update)
    for _ in range(6):
        updates, state = update(zeros, state, ones)
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(updates))
        by_kind = {path[-1].key: float(leaf.flat[0]) for path, leaf in leaves}
        assert {kind for kind, value in by_kind.items() if value} == {"kernel"}
        decays.append(-2 * by_kind["kernel"])
    expected = np.repeat([rate_of_epoch(training, epoch, epochs=4) for epoch in range(3)], 2)
    np.testing.assert_allclose(decays, expected, rtol=1e-5)
    assert len(set(expected)) == 2  # the first rate is used twice


@pytest.mark.parametrize("size", [(40, 30), (300, 7), (1, 1)])
def test_crops_have_one_shape_whatever_the_picture(size):
    training = MCTformerTraining(crop=32, erase=0.5)
    augmented, boxes = timm_crops(training, MCTformerModel()), []
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for seed in range(40):
        batch = augmented(Record("", image, LABELS[0], None), np.random.default_rng(seed))
        assert (batch["image"].shape, batch["image"].dtype) == ((32, 32, 3), np.uint8)
        boxes.append(batch["erased"])
    top, left, bottom, right = np.transpose(boxes)
    area = (bottom - top) * (right - left) / 32**2
    assert 0.2 < (area > 0).mean() < 0.8
    assert ((area == 0) | ((area > 0.01) & (area < 0.36))).all()
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 32


def test_what_is_erased_becomes_noise_and_nothing_else():
    images = np.full((2, 30, 30, 3), 7, np.float32)
    boxes = np.int32([[5, 10, 25, 30], [0, 0, 0, 0]])
    made = np.array(jax.jit(erased)(jax.random.key(0), images, boxes))
    inside = made[0, 5:25, 10:30].copy()
    assert abs(inside.mean()) < 0.1
    assert 0.9 < inside.std() < 1.1
    made[0, 5:25, 10:30] = 7
    np.testing.assert_array_equal(made, images)


def test_paths_are_skipped_at_their_rate_and_keep_the_mean():
    factors = np.array(path_factors(jax.random.key(0), 5, 4000, rate=0.4))
    assert factors.shape == (5, 2, 4000)
    np.testing.assert_allclose((factors == 0).mean(axis=(1, 2)), [0, 0.1, 0.2, 0.3, 0.4], atol=0.02)
    np.testing.assert_allclose(factors.mean(axis=2), 1, atol=0.05)
    assert (factors[-1, 0] != factors[-1, 1]).any()  # each branch by itself


def test_the_head_starts_as_torch_s_convolution():
    head = jax.jit(
        lambda: nnx.to_pure_dict(nnx.state(build_mctformer(network("mctformer").config.model, CLASSES).head))
    )()
    bound = (9 * 16) ** -0.5
    for array in head.values():
        assert 0.5 * bound < np.abs(array).max() <= bound


# Maps.


def test_memory_does_not_grow_with_the_blocks():
    """The attention of one block at a time is kept: of many blocks the program needs hardly more than of a few."""

    def bytes_of(depth: int) -> int:
        model = MCTformerModel(patch=4, dim=16, depth=depth, head_dim=8, mlp_ratio=1, position_grid=4)
        graph, *trees = graph_of(MCTformerConfig(model=model), CLASSES)

        def attended(parameters, batch_stats, images):
            return nnx.merge(graph, parameters, batch_stats).attended(images, shares=jnp.ones(depth)).affinity.sum()

        images = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
        program = jax.jit(attended).lower(*map(shapes_of, trees), images).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert bytes_of(16) < 1.2 * bytes_of(4)


def test_stretched_maps_reach_from_zero_to_one_and_flat_ones_are_zero():
    maps = np.float32([[[2, 3], [4, 6]], [[5, 5], [5, 5]], [[0, 0], [0, 0]]])
    expected = [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(stretched(maps), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(stretched)(maps), expected, atol=1e-6)


def test_pictures_without_labels_are_mapped_for_the_classes_that_are_predicted():
    options = {"depth": 5, "inference": MCTformerInference(max_shapes=1), "description": None}
    found, errors = found_in(
        map_pictures(network("mctformer").on_devices(), None, Noise((1, 4), unreadable=[4]), **options)
    )
    assert errors == ["4.jpg: damaged picture; get it again"]
    made = found["1"]
    above = np.flatnonzero(made.probabilities >= 0.5)
    np.testing.assert_array_equal(made.classes, above if len(above) else [made.probabilities.argmax()])
    assert made.maps["mctformer"].shape == (len(made.classes), 37, 50)


# Files.

MODEL = MCTformerModel(patch=2, dim=4, depth=5, head_dim=2, mlp_ratio=2, position_grid=3)


def shapes_for(model: MCTformerModel) -> dict:
    return graph_of(MCTformerConfig(model=model), CLASSES)[1]


def of_mctformer(classes: int) -> dict[str, np.ndarray]:
    """A state dict as it is published."""
    rng, arrays = np.random.default_rng(1), in_timm(replace(MODEL, final_norm=True))
    arrays["cls_token"] = rng.normal(size=(1, classes, 4)).astype(np.float32)
    arrays["pos_embed"] = rng.normal(size=(1, classes + 9, 4)).astype(np.float32)
    arrays["head.weight"] = rng.normal(size=(classes, 4, 3, 3)).astype(np.float32)
    arrays["head.bias"] = rng.normal(size=classes).astype(np.float32)
    return arrays


def test_its_own_file_fills_it_whole(tmp_path):
    arrays = of_mctformer(CLASSES)
    save_file(arrays, tmp_path / "v2.safetensors")
    loaded = MODEL.load(tmp_path / "v2.safetensors", shapes_for(MODEL))
    assert str(loaded).startswith(f"{len(arrays) - 2} entries loaded, 2 skipped (norm.")
    assert str(loaded).endswith("), head loaded")
    tokens = arrays["cls_token"][0] + arrays["pos_embed"][0, :CLASSES]
    np.testing.assert_array_equal(loaded.backbone["embedding"]["tokens"], tokens)
    np.testing.assert_array_equal(loaded.network["head"]["kernel"][2, 1, 3], arrays["head.weight"][:, 3, 2, 1])
    v1 = replace(MODEL, version="v1")
    assert "head" not in v1.load(tmp_path / "v2.safetensors", shapes_for(v1)).network


def test_all_classes_start_with_the_token_of_a_deit(tmp_path):
    arrays = in_timm(replace(MODEL, final_norm=True)) | {"head.weight": np.zeros((7, 4), np.float32)}
    save_file(arrays, tmp_path / "deit.safetensors")
    loaded = MODEL.load(tmp_path / "deit.safetensors", shapes_for(MODEL))
    assert (loaded.loaded, set(loaded.skipped)) == (len(arrays) - 3, {"head.weight", "norm.weight", "norm.bias"})
    assert str(loaded).endswith("1 new (head)")
    tokens = loaded.backbone["embedding"]["tokens"]
    np.testing.assert_array_equal(
        tokens, np.repeat(arrays["cls_token"][0] + arrays["pos_embed"][0, :1], CLASSES, axis=0)
    )
    positions = arrays["pos_embed"][0, 1:].reshape(3, 3, 4)
    np.testing.assert_array_equal(loaded.backbone["embedding"]["positions"], positions)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            of_mctformer(5),
            r"holds 5 class tokens, the data set has 3 classes; give a file of as many, or one of",
        ),
        (in_timm(MODEL, distilled=True), r"holds a distilled transformer, which has another token than that of the"),
        (in_timm(replace(MODEL, patch=4)), r"holds another vision transformer: use --model.patch 4\.$"),
        (
            of_mctformer(CLASSES) | {"head.weight": np.zeros((4, 4, 3, 3), np.float32)},
            r"does not hold this backbone: head.weight has shape \(4, 4, 3, 3\), not \(3, 4, 3, 3\)\.$",
        ),
    ],
    ids=["other classes", "distilled", "other patch", "other head"],
)
def test_a_file_that_does_not_fit_is_one_line(arrays, said, tmp_path):
    save_file(arrays, tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=said):
        MODEL.load(tmp_path / "file.safetensors", shapes_for(MODEL))


# Programs; what is common to all systems is in test_program_contract.py.


def test_both_versions_stand_side_by_side_with_the_page_of_prototypes(tiny_runs):
    made = tiny_runs.results("mctformer")
    metrics = json.loads((made.directory / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["mctformer", "mctformer_lpcam"]
    assert "MCTformer + LPCAM against MCTformer on 24 pictures" in made.out
    page = (made.directory / "prototypes.html").read_text()
    assert '"floor": -1' in page or '"floor":-1' in page, "features may be negative"
    protocol = metrics["protocol"]
    assert (protocol["lpcam"], protocol["blocks"], protocol["scales"]) == ("patches", 3, [1.0, 0.5])


def test_version_one_has_no_prototypes(program, tiny_runs, tmp_path):
    words = (*tiny_runs.words("mctformer"), "--model.version", "v1", "--limit", 8, "--training.epochs", 1)
    finished = program(*words, "--workdir", tmp_path / "run")
    assert finished.code == 0, finished.err
    assert not (tmp_path / "run" / "prototypes.npz").exists()
    words = ("--ckpt", tmp_path / "run", "--out", tmp_path / "maps", "--refine", "none", "--limit", 4)
    finished = program("infer.py", *words)
    assert finished.code == 0, finished.err
    metrics = json.loads((tmp_path / "maps" / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["mctformer"]
    assert not (tmp_path / "maps" / "prototypes.html").exists()


def test_a_run_continues_with_the_network_of_another(program, tiny_runs, tmp_path):
    run = tiny_runs.run("mctformer").directory
    words = (
        *tiny_runs.words("mctformer"),
        "--model.weights",
        run,
        "--workdir",
        tmp_path / "run",
        "--stages",
        "mctformer",
    )
    finished = program(*words, "--training.epochs", 1)
    assert finished.code == 0, finished.err
    assert f"weights {run}: its backbone" in finished.out + finished.err


def test_a_crop_without_a_whole_patch_is_refused(program, tiny_runs, tmp_path):
    finished = program(*tiny_runs.words("mctformer"), "--model.patch", 1000, "--workdir", tmp_path / "run")
    assert finished.code == 2
    assert "smaller than a patch, which has 1000 pixels" in finished.err
