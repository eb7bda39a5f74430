"""What every network of every system, and every backbone, must do; their tiny ones are in tiny_networks.py.

A padded picture is the picture alone, a folded network is the same function, bfloat16 is about the same, dropout is of
a key, and the forward pass and the training step export for every platform.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_networks import (
    BACKBONES,
    LABELS,
    SYSTEMS,
    TinyNetwork,
    backbone,
    backbone_model,
    image_of,
    network,
    padded,
    relative_difference,
    shapes_of,
)

from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.backbones.layers.norms import BatchNorm, Shift
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.config.registry import backbones, kinds, load_backbone_config
from lpcam_jax.data.records import Record
from lpcam_jax.machine.devices import portable
from lpcam_jax.systems.lpcam.spreading import guide
from lpcam_jax.training.checkpoints import TrainState
from lpcam_jax.training.step import make_train_step

PLATFORMS = ("cpu", "cuda", "tpu")
BUCKET = (48, 66)
SIZES = ((1, 2), (33, 49))
BIG = SIZES.index((33, 49))


@cache
def of_padded(name: str) -> dict[str, np.ndarray]:
    """The outputs of all pictures in one batch."""
    return network(name)(*padded(SIZES, BUCKET))


@cache
def alone(name: str, index: int) -> dict[str, np.ndarray]:
    """The outputs of one picture that fills its canvas."""
    return network(name)(image_of(SIZES[index])[None], None, LABELS[index : index + 1])


def assert_padded_is_alone(values: np.ndarray, expected: np.ndarray, *, within: float, floor: float = 0.0) -> None:
    """Equal where the picture is, zero where it is not."""
    rows, columns = expected.shape[:2]
    assert values.dtype == np.float32
    assert relative_difference(values[:rows, :columns], expected, floor) < within
    assert not values[rows:].any()
    assert not values[:, columns:].any()


def assert_about_the_same(values: np.ndarray, expected: np.ndarray) -> None:
    """As close as bfloat16 is to float32, and not equal."""
    assert values.dtype == np.float32
    assert 0 < np.abs(values - expected).mean() < 0.05 * expected.std()


def assert_is_folded(graph: nnx.GraphDef, parameters: dict, batch_stats: dict) -> None:
    """Every norm that its module declares, and there are some; others, as before the first convolution, are kept."""
    modules = [module for _, module in nnx.iter_modules(nnx.merge(graph, parameters, batch_stats))]
    norms = [getattr(module, norm) for module in modules for _, norm in getattr(module, "folds", ())]
    assert norms
    assert all(isinstance(norm, Shift) for norm in norms)


def given_to_layers(model: nnx.Module, monkeypatch: pytest.MonkeyPatch) -> list[jax.Array]:
    """A list of the maps that the modules inside the model are called with, from now on."""
    given = []

    def listening(call):
        def listened(module, x, *others, **options):
            given.extend(leaf for leaf in jax.tree.leaves(x) if jnp.ndim(leaf) >= 3)
            return call(module, x, *others, **options)

        return listened

    kinds_of_modules = {type(module) for path, module in nnx.iter_modules(model) if path}
    for kind in kinds_of_modules:
        if "__call__" in vars(kind):
            monkeypatch.setattr(kind, "__call__", listening(vars(kind)["__call__"]))
    return given


def test_every_system_and_every_backbone_has_a_tiny_one():
    assert {one.config.kind for one in SYSTEMS.values()} == set(kinds())
    assert {one.config.backbone for one in BACKBONES.values()} == set(backbones())
    assert all(isinstance(one.config, load_backbone_config(one.config.backbone)) for one in BACKBONES.values())


# Systems.


@pytest.mark.parametrize("name", SYSTEMS, scope="class")  # one after the other: each is traced once by a worker
class TestSystem:
    def test_a_padded_picture_is_the_picture_alone(self, name):
        for index, size in enumerate(SIZES):
            expected = alone(name, index)
            assert expected.keys() == of_padded(name).keys()
            for output, values in of_padded(name).items():
                floor = 0.1 * np.abs(values).max()  # of a picture of one position, all may be nearly zero
                if values.ndim == 4:
                    assert_padded_is_alone(values[index], expected[output][0], within=1e-5, floor=floor)
                else:
                    assert relative_difference(values[index], expected[output][0], floor) < 1e-5, (output, size)

    def test_the_grid_sizes_are_those_of_a_map(self, name):
        grids = np.asarray(network(name).model.grid_sizes(np.int32(SIZES)))
        for index, grid in enumerate(grids):
            assert tuple(grid) in {values.shape[1:3] for values in alone(name, index).values() if values.ndim == 4}

    def test_the_table_says_whether_it_has_dropout(self, name):
        assert hasattr(network(name).model, "dropout") == SYSTEMS[name].has_dropout

    def test_what_is_around_a_picture_changes_nothing(self, name):
        """As it comes from a batch: pixels of anything beyond the box, which the preprocessing takes away."""
        preprocessing = Preprocessing.of(network(name).config.model)
        canvases = np.random.default_rng(0).integers(0, 256, (2, len(SIZES), *BUCKET, 3), np.uint8)
        for index, (height, width) in enumerate(SIZES):
            canvases[1, index, :height, :width] = canvases[0, index, :height, :width]
        sizes = np.int32(SIZES)
        boxes = np.concatenate([0 * sizes, sizes], axis=1)
        one, other = (network(name)(np.asarray(preprocessing(canvas, boxes)), sizes) for canvas in canvases)
        jax.tree.map(np.testing.assert_array_equal, one, other)

    def test_padding_would_change_the_outputs_if_it_were_not_known(self, name):
        """Otherwise the tests above could not fail."""
        images, sizes = padded(SIZES, BUCKET)
        unknown = network(name)(images, np.full_like(sizes, BUCKET))
        for output, expected in alone(name, BIG).items():
            values = unknown[output][BIG]
            if values.ndim == 3:
                values = values[: expected.shape[1], : expected.shape[2]]
            assert relative_difference(values, expected[0]) > 1e-3, output

    def test_a_folded_network_is_the_same_function(self, name):
        net = network(name)
        folded = fold_batch_norm(net.graph, *net.arrays)
        if net.batch_stats:
            assert_is_folded(*folded)
        outputs = net.with_graph(*folded)(*padded(SIZES, BUCKET), LABELS[: len(SIZES)], None)
        for output, expected in of_padded(name).items():
            assert relative_difference(outputs[output], expected) < 1e-5, output

    def test_bfloat16_is_about_the_same(self, name):
        net = network(name)
        model = replace(net.config.model, precision="bfloat16")
        fast = TinyNetwork(net.system._replace(config=replace(net.config, model=model)))
        assert jax.tree.map(jnp.shape, fast.arrays) == jax.tree.map(jnp.shape, net.arrays)  # float32: `random_arrays`
        outputs = fast(*padded(SIZES, BUCKET))
        for output, expected in of_padded(name).items():
            if expected.ndim == 4:
                assert_about_the_same(outputs[output], expected)

    def test_layers_hand_on_bfloat16(self, name, monkeypatch):
        """Whatever is stored between them is half as large; all but the pictures that come in."""
        config = SYSTEMS[name].config
        config = replace(config, model=replace(config.model, precision="bfloat16"))
        fast = TinyNetwork(SYSTEMS[name]._replace(config=config))
        given = given_to_layers(fast.model, monkeypatch)
        jax.eval_shape(fast.traced, *fast.arrays, *padded(SIZES, BUCKET), LABELS[: len(SIZES)], None)
        assert {x.dtype.name for x in given if x.shape[-1] != 3} == {"bfloat16"}

    def test_the_forward_pass_exports_for_every_platform(self, name):
        net = network(name)
        inputs = shapes_of((*net.arrays, *padded(SIZES, BUCKET), LABELS[: len(SIZES)]))
        with portable():  # as a program is traced that other machines are to run
            program = jax.jit(lambda *inputs: net.traced(*inputs, None))
            exported = jax.export.export(program, platforms=PLATFORMS)(*inputs)
        assert exported.platforms == PLATFORMS

    def test_the_training_step_exports_for_every_platform(self, name):
        net = network(name)
        optimizer, crops = net.system.optimizer(net.model), net.system.crops
        rng = np.random.default_rng(0)
        records = [
            Record("", rng.integers(0, 256, (40, 30, 3), np.uint8), LABELS[0], rng.integers(0, 4, (40, 30), np.uint8)),
            Record("", rng.integers(0, 256, (20, 50, 3), np.uint8), LABELS[1], rng.integers(0, 4, (20, 50), np.uint8)),
        ]
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *(crops(record, rng) for record in records))
        parameters, batch_stats = shapes_of(net.arrays)
        opt_state = jax.eval_shape(optimizer.init, parameters)
        state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), parameters, batch_stats, opt_state)
        with portable():
            step = make_train_step(net.graph, optimizer, net.system.loss, seed=0)
            exported = jax.export.export(step, platforms=PLATFORMS)(state, shapes_of(batch))
        assert exported.platforms == PLATFORMS
        results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        assert shapes_of(results) == (state, {"loss": jax.ShapeDtypeStruct((), jnp.float32)})


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.has_dropout])
def test_dropout_is_of_the_key_and_keeps_the_mean(name):
    net = network(name)
    images = image_of(SIZES[BIG])[None]
    drawn = [net(images, None, LABELS[:1], jax.random.key(seed))["logits"] for seed in (*range(40), 0)]
    without = net(images, None, LABELS[:1])["logits"]
    np.testing.assert_array_equal(drawn[0], drawn[-1])
    # Two keys may leave out the same few channels.
    assert max(relative_difference(drawn[0], other) for other in drawn[1:5]) > 1e-3
    difference = np.abs(np.array(drawn[:-1]) - without).mean()
    assert np.abs(np.mean(drawn[:-1], axis=0) - without).mean() < 0.5 * difference


# Backbones.

CANVAS = (64, 64)


@cache
def stages_of_padded(name: str) -> tuple[np.ndarray, ...]:
    return backbone(name)(*padded(BACKBONES[name].sizes, CANVAS))


@pytest.mark.parametrize("name", BACKBONES, scope="class")
class TestEveryFormOfABackbone:
    def test_what_it_says_of_itself_fits(self, name):
        model = backbone_model(name)
        assert len(model.stages) == len(model.channels) == len(model.strides)
        assert len(set(model.stages)) == len(model.stages)
        assert list(model.strides) == sorted(model.strides)
        assert all(isinstance(getattr(model, part), nnx.Module) for part in model.parts)
        parts = {path[0] for path, _ in jax.tree_util.tree_leaves_with_path(backbone(name).parameters)}
        assert {part.key for part in parts} == set(model.parts), "every parameter is in a part"
        assert model.stem == model.parts[: len(model.stem)] != ()
        for _, module in nnx.iter_modules(model):
            for conv, norm in getattr(module, "folds", ()):
                assert isinstance(getattr(module, norm), BatchNorm)
                assert hasattr(getattr(module, conv), "for_inference")
            for layer, parameter in [module.branch_end] if hasattr(module, "branch_end") else []:
                assert isinstance(getattr(getattr(module, layer), parameter), nnx.Param)

    def test_a_padded_picture_is_the_picture_alone_at_every_stage(self, name):
        sizes, model = BACKBONES[name].sizes, backbone_model(name)
        grids = [np.asarray(grid) for grid in model.grids(np.int32(sizes))]
        assert len(grids) == len(stages_of_padded(name)) == len(model.stages)
        for index, size in enumerate(sizes):
            expected = backbone(name)(image_of(size)[None])
            for values, of_stage, grid in zip(stages_of_padded(name), expected, grids, strict=True):
                assert tuple(grid[index]) == of_stage.shape[1:3]
                assert_padded_is_alone(values[index], of_stage[0], within=1e-4)
            if model.nonnegative:
                assert expected[-1].min() >= 0
            assert expected[-1].any()

    def test_what_evidence_spreads_along_is_that_of_the_picture_alone(self, name):
        sizes, model = BACKBONES[name].sizes, backbone_model(name)
        pictures = np.zeros((len(sizes), *CANVAS, 3), np.uint8)
        for picture, (height, width) in zip(pictures, sizes, strict=True):
            picture[:height, :width] = np.random.default_rng(0).integers(0, 256, (height, width, 3))

        @jax.jit
        def of(stages, sizes, pictures):  # each picture stands for its mirror image, too
            *twice, extents = (jnp.repeat(values, 2, axis=0) for values in (*stages, sizes))
            return guide(model, twice, extents, pictures)

        together = of(stages_of_padded(name), np.int32(sizes), pictures)
        for index, size in enumerate(sizes):
            picture = pictures[index : index + 1, : size[0], : size[1]]
            alone = of(backbone(name)(image_of(size)[None]), np.int32([size]), picture)
            np.testing.assert_array_equal(together["reach"][index], alone["reach"][0])
            for part in ("features", "colours"):
                rows, columns = together[f"{part}_grid"][index]
                assert alone[part].shape[1:3] == (rows, columns)
                np.testing.assert_allclose(together[part][index, :rows, :columns], alone[part][0], atol=2e-3)
            block = min(model.strides[-3:-1], default=model.strides[-1])
            corner = pictures[index, : min(block, size[0]), : min(block, size[1])]
            np.testing.assert_allclose(alone["colours"][0, 0, 0], corner.mean(axis=(0, 1)) / 255, atol=2e-3)

    def test_padding_would_change_every_stage_if_it_were_not_known(self, name):
        images, sizes = padded(BACKBONES[name].sizes, CANVAS)
        unknown = backbone(name)(images, np.full_like(sizes, CANVAS))
        for values, known in zip(unknown, stages_of_padded(name), strict=True):
            assert relative_difference(np.where(known == 0, 0, values), known) > 1e-3

    @pytest.mark.parametrize("size", [(1, 1), (33, 65), (97, 96)])
    def test_a_stage_has_the_positions_of_its_grid(self, name, size):
        model = backbone_model(name)
        shapes = jax.eval_shape(backbone(name).traced, *backbone(name).arrays, np.zeros((1, *size, 3), np.float32))
        for stage, channels, stride, [grid] in zip(
            shapes, model.channels, model.strides, model.grids(np.int32([size])), strict=True
        ):
            assert stage.shape == (1, *grid, channels)
            assert stage.dtype == jnp.float32
            if BACKBONES[name].positions_are_rounded_up:
                assert tuple(grid) == tuple(-(-length // stride) for length in size)


@pytest.mark.parametrize("name", backbones(), scope="class")
class TestBackbone:
    def test_a_folded_backbone_is_the_same_function(self, name):
        net = backbone(name)
        folded = fold_batch_norm(net.graph, *net.arrays)
        if net.batch_stats:
            assert_is_folded(*folded)
        graph, *again = fold_batch_norm(*folded)
        assert graph == folded[0]
        jax.tree.map(np.testing.assert_array_equal, again, list(folded[1:]))
        outputs = net.with_graph(*folded)(*padded(BACKBONES[name].sizes, CANVAS))
        for values, expected in zip(outputs, stages_of_padded(name), strict=True):
            assert relative_difference(values, expected) < 1e-5

    def test_bfloat16_is_about_the_same(self, name):
        fast = backbone(name, "bfloat16")
        outputs = fast(*padded(BACKBONES[name].sizes, CANVAS))
        for values, expected in zip(outputs, stages_of_padded(name), strict=True):
            assert values.dtype == jnp.bfloat16
            assert_about_the_same(values.astype(np.float32), expected)

    def test_it_exports_for_every_platform(self, name):
        net = backbone(name)
        inputs = shapes_of((*net.arrays, *padded(BACKBONES[name].sizes, CANVAS)))
        with portable():
            exported = jax.export.export(jax.jit(lambda *inputs: net.traced(*inputs)), platforms=PLATFORMS)(*inputs)
        assert exported.platforms == PLATFORMS

    def test_statistics_move_in_train_mode_only(self, name):
        net, images = backbone(name), np.stack([image_of((33, 31))] * 2)

        @jax.jit
        def statistics(parameters, batch_stats):
            model = nnx.merge(net.graph, parameters, batch_stats)
            model(images)
            before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
            model(images, train=True)
            return before, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        before, after = jax.device_get(statistics(*net.arrays))
        jax.tree.map(np.testing.assert_array_equal, before, net.batch_stats)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).all()), after, before)))


@pytest.mark.parametrize("name", backbones())
def test_padding_changes_no_gradient(name):
    net, size = backbone(name), (33, 47)
    gradient = jax.jit(jax.grad(lambda parameters, *inputs: net.traced(parameters, net.batch_stats, *inputs)[-1].sum()))
    with_padding = jax.device_get(gradient(net.parameters, *padded((size,), CANVAS)))
    without = jax.device_get(gradient(net.parameters, image_of(size)[None]))
    for values, expected in zip(jax.tree.leaves(with_padding), jax.tree.leaves(without), strict=True):
        assert relative_difference(values, expected) <= 1e-4
