"""LPCAM-A: evidence spreads to positions that look alike."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lpcam_jax
from lpcam_jax.data.sources import seed_source
from lpcam_jax.refine.affinity import coarser, spread
from lpcam_jax.systems.lpcam.spreading import spread_over_picture
from lpcam_jax.training.run import Run

RNG = np.random.default_rng(0)


def drawn(m: int, n: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence, features and colours of m positions."""
    return (
        RNG.normal(size=(m, n)).astype(np.float32),
        np.abs(RNG.normal(size=(m, 6))).astype(np.float32),
        RNG.random((m, 3), np.float32),
    )


# The mathematics


@pytest.mark.parametrize(("power", "deviation", "steps", "share"), [(16, 0.2, 5, 0.25), (4, 0.5, 1, 0), (1, 1.0, 3, 9)])
def test_it_is_the_equation(power, deviation, steps, share):
    evidence, features, colours = (one.astype(float) for one in drawn(40))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = ((colours[:, None] - colours[None]) ** 2).sum(axis=-1)
    affinity = np.maximum(unit @ unit.T, 0) ** power * np.exp(-distances / (2 * deviation**2))
    affinity /= affinity.sum(axis=1, keepdims=True)
    rivals = np.stack([np.maximum(np.delete(evidence, n, axis=1).max(axis=1), 0) for n in range(3)], axis=1)
    expected = np.linalg.matrix_power(affinity, steps) @ (np.maximum(evidence, -share * evidence.max(axis=0)) - rivals)
    inputs = (jnp.float32(one) for one in (evidence, features, colours))
    assert_allclose(spread(*inputs, power=power, deviation=deviation, steps=steps, share=share), expected, atol=1e-5)


def test_what_is_not_of_the_picture_has_no_influence():
    evidence, features, colours = drawn(30)
    alone = spread(evidence[:20], features[:20], colours[:20])
    padded = spread(evidence, features, colours, valid=np.arange(30) < 20)
    assert_allclose(padded[:20], alone, atol=1e-6)
    assert not np.asarray(padded[20:]).any()


def test_nor_has_what_is_not_a_number_there_and_any_dtype_gives_float32():
    evidence, features, colours = (np.array(one) for one in drawn(30))
    alone = spread(evidence[:20], features[:20], colours[:20])
    for one in (evidence, features, colours):
        one[20:] = np.nan
    assert_allclose(spread(evidence, features, colours, valid=np.arange(30) < 20)[:20], alone, atol=1e-6)
    half = spread(*(jnp.bfloat16(one[:20]) for one in (evidence, features)), colours[:20])
    assert half.dtype == np.float32
    assert_allclose(half, alone, atol=0.05)


def test_a_part_that_looks_like_the_object_becomes_part_of_it_and_the_meadow_does_not():
    body, meadow = [1, 0.1], [0.1, 1]
    features = np.float32([body] * 6 + [meadow] * 6)
    colours = np.float32([[0.8, 0.8, 0.8]] * 6 + [[0.2, 0.6, 0.2]] * 6)
    evidence = np.float32([0.5, 0.5, 0.5, 0.5, -0.1, -0.1, 0.1, -0.4, -0.4, -0.4, -0.4, -0.4])[:, None]
    heat = np.asarray(spread(evidence, features, colours))[:, 0]
    assert (heat[:6] > 0.25).all()  # a leg of little evidence, too
    assert (heat[6:] < -0.05).all()  # the spot of grass that looked like the animal


def test_rivals_take_from_one_another_and_the_context_has_a_limited_say():
    features, colours = np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32)  # no position is like another
    evidence = np.float32([[0.5, 0.2], [-0.5, 0.2], [-0.05, -0.2]])
    expected = [[0.3, -0.3], [-0.125 - 0.2, 0.2], [-0.05, -0.05]]
    assert_allclose(spread(evidence, features, colours), expected, atol=1e-6)
    assert_allclose(spread(evidence[:, :1], features, colours), [[0.5], [-0.125], [-0.05]], atol=1e-6)


def test_evidence_for_a_class_stays_and_nothing_is_made_from_nothing():
    evidence, features, colours = drawn(25, n=1)
    assert (np.asarray(spread(np.abs(evidence), features, colours)) > 0).all()
    assert not np.asarray(spread(-np.abs(evidence), features, colours)).any()
    assert np.isfinite(np.asarray(spread(evidence, 0 * features, colours))).all()


def test_large_grids_are_averaged_until_they_fit():
    grid = RNG.random((7, 9, 2)).astype(np.float32)
    same, one = coarser(grid)
    assert one == 1
    assert_array_equal(same, grid)
    small, k = coarser(grid, most=12)
    assert (k, small.shape) == (3, (3, 3, 2))
    for i, rows in enumerate(np.split(grid, [3, 6])):
        for j, block in enumerate(np.split(rows, [3, 6], axis=1)):
            assert_allclose(small[i, j], block.mean(axis=(0, 1)), rtol=1e-6)
    assert coarser(np.zeros((500, 400, 1)))[1] == 8
    assert coarser(np.zeros((1, 9, 1)), most=1)[0].shape == (1, 1, 1)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_it_is_lowered_for_every_platform(platform):
    exported = jax.export.export(jax.jit(spread), platforms=[platform])(*drawn(64))
    assert exported.out_avals[0].shape == (64, 3)


def test_a_large_picture_and_one_of_a_single_position():
    for shape, size in (((90, 70), (720, 560)), ((1, 1), (3, 5))):
        first = {
            "features": RNG.random((*shape, 4)).astype(np.float16),
            "colours": RNG.random((*shape, 3)).astype(np.float16),
            "reach": np.int32(shape),
        }
        evidence = [RNG.normal(size=(*shape, 2)).astype(np.float32) for _ in range(2)]
        maps = spread_over_picture(evidence, first, size, steps=2)
        assert maps.shape == (2, *size)
        assert maps.dtype == np.float16
        assert maps.min() >= 0
        assert maps.max() <= 1


# Programs


@pytest.fixture(scope="module")
def spread_maps(program, trained, tmp_path_factory):
    """The folder that infer.py writes with LPCAM-A, and what it said; look, do not touch."""
    out = tmp_path_factory.mktemp("heatmaps") / "affinity"
    finished = program("infer.py", "--ckpt", trained, "--out", out, "--refine", "none", "--inference.affinity", 5)
    assert finished.code == 0, finished.err
    return out, finished.out


def test_it_stands_beside_the_others_and_seeds_are_cut_from_it(spread_maps, mapped):
    out, said = spread_maps
    scores = json.loads((out / "metrics.json").read_text())["scores"]
    assert list(scores) == ["cam", "lpcam_f", "lpcam", "affinity"]
    assert "LPCAM-A" in said
    moved = 0
    for file in sorted((out / "maps").glob("*.npz")):
        with np.load(file, allow_pickle=False) as ours, np.load(mapped.directory / "maps" / file.name) as before:
            for name in ("cam", "lpcam_f", "lpcam"):
                assert_array_equal(ours[name], before[name])
            heat = ours["affinity"].astype(float)
            assert heat.shape == ours["lpcam"].shape
            assert ((heat.max(axis=(1, 2)) == 1) | ~heat.any(axis=(1, 2))).all()
            moved += np.abs(heat - ours["lpcam"]).max() > 0.01
    assert moved
    assert "LPCAM-A" in (out / "index.html").read_text()


def test_a_folder_of_another_number_of_steps_is_another_folder(program, trained, spread_maps, tmp_path):
    out = shutil.copytree(spread_maps[0], tmp_path / "maps")
    finished = program("infer.py", "--ckpt", trained, "--out", out, "--refine", "none", "--inference.affinity", 3)
    assert finished.code == 2
    assert "another model or protocol" in finished.err.splitlines()[-1]


def test_a_notebook_gets_the_maps_that_infer_writes(trained, spread_maps):
    model, source = lpcam_jax.load(trained, affinity=5), seed_source(Run.open(trained).config)
    record = source[0]
    result = model(record.image, classes=[source.class_names[n] for n in np.flatnonzero(record.labels)])
    with np.load(spread_maps[0] / "maps" / f"{record.id}.npz", allow_pickle=False) as stored:
        assert_allclose(np.moveaxis(result.maps["affinity"], -1, 0), stored["affinity"], atol=2e-3)
    with pytest.raises(TypeError, match="affinty"):
        lpcam_jax.load(trained, affinty=5)
    with pytest.raises(lpcam_jax.UserError, match=r"--inference.scales"):
        lpcam_jax.load(trained, scales=(0.0,))
