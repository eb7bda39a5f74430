"""Pixel-adaptive refinement: beside its equation, on pictures whose answer is known, and by the programs."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_evaluate import strictly_parsed
from test_pseudo_masks import masks_in

from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.refine.pictures import adapted_maps, cut
from lpcam_jax.refine.pixel_adaptive import pixel_adaptive
from lpcam_jax.training.run import Run

RNG = np.random.default_rng(0)
NEAR = {"dilations": (1, 3), "steps": 3}
AROUND = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0)]


def drawn(height: int = 11, width: int = 9, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Colours and maps."""
    return RNG.integers(0, 256, (height, width, 3), np.uint8), RNG.random((height, width, n), np.float32)


def by_pixels(image: np.ndarray, maps: np.ndarray, *, dilations: tuple, steps: int) -> np.ndarray:
    """The equation, one pixel after the other."""
    height, width, _ = image.shape
    away = [(d * down, d * across) for d in dilations for down, across in AROUND]
    lengths = np.array([np.hypot(*step) for step in away])
    near = np.exp(-((lengths / (0.3 * lengths.std(ddof=1))) ** 2))
    matrix = np.zeros((height * width, height * width))
    for row in range(height):
        for column in range(width):
            places = [(min(max(row + a, 0), height - 1), min(max(column + b, 0), width - 1)) for a, b in away]
            colours = np.array([image[place] for place in places], float)
            difference = (colours - image[row, column]) / (0.3 * colours.std(axis=0, ddof=1))
            logits = -(difference**2).mean(axis=1)
            alike = np.exp(logits - logits.max())
            weights = (alike / alike.sum() + 0.01 * near / near.sum()) / 1.01
            for (other, across), weight in zip(places, weights, strict=True):
                matrix[row * width + column, other * width + across] += weight
    flat = maps.reshape(height * width, -1).astype(float)
    return (np.linalg.matrix_power(matrix, steps) @ flat).reshape(maps.shape)


# The mathematics


def test_it_is_the_equation():
    image, maps = drawn()
    assert_allclose(pixel_adaptive(image, maps, **NEAR), by_pixels(image, maps, **NEAR), atol=1e-5)


def test_what_is_not_of_the_picture_has_no_influence():
    image, maps = drawn(60, 40)
    wide, more = drawn(64, 48)
    wide[:60, :40], more[:60, :40] = image, maps
    more[60:] = np.nan
    padded = pixel_adaptive(wide, more, size=np.array([60, 40], np.int32))
    assert_allclose(padded[:60, :40], pixel_adaptive(image, maps), atol=1e-5)


def test_pictures_of_a_batch_are_refined_alone():
    images, maps = zip(drawn(), drawn(), strict=True)
    together = jax.vmap(pixel_adaptive)(np.stack(images), np.stack(maps))
    for one, image, alone in zip(together, images, maps, strict=True):
        assert_allclose(one, pixel_adaptive(image, alone), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_picture_has_mirrored_maps_and_brightness_does_not_count(axis):
    image, maps = drawn()
    refined = pixel_adaptive(image, maps)
    assert_allclose(np.flip(pixel_adaptive(np.flip(image, axis), np.flip(maps, axis)), axis), refined, atol=1e-5)
    assert_allclose(pixel_adaptive(0.25 * image.astype(np.float32) + 3, maps), refined, atol=1e-3)


def test_maps_stay_within_their_range_and_a_constant_stays_as_it_is():
    image, maps = drawn(20, 30)
    refined = np.asarray(pixel_adaptive(image, maps))
    assert refined.min() >= maps.min()
    assert refined.max() <= maps.max()
    assert refined.std() < maps.std()  # a mean
    assert_allclose(pixel_adaptive(image, np.full((20, 30, 1), 0.4)), 0.4, rtol=1e-5)
    assert_array_equal(pixel_adaptive(image, maps, steps=0), maps)
    # One colour everywhere: nothing separates, and nothing is divided by zero.
    assert np.isfinite(np.asarray(pixel_adaptive(0 * image, maps))).all()


def test_heat_fills_its_object_and_does_not_cross_the_edge():
    right = np.broadcast_to(np.arange(40)[None] >= 20, (40, 40))
    image = np.where(right[..., None], [60, 120, 180], [200, 60, 40]) + RNG.normal(0, 5, (40, 40, 3))
    blurred = np.clip((np.arange(40) - 4) / 24, 0, 1)  # as heat maps are: over the edge, and fading
    maps = np.broadcast_to(blurred[None], (40, 40))[None].astype(np.float32)
    image = np.clip(image, 0, 255).astype(np.uint8)
    before, after = (np.mean((heat > 0.4) == right) for heat in (maps[0], adapted_maps(image, maps, steps=40)[0]))
    assert before < 0.95
    assert after > 0.98


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_it_is_lowered_for_every_platform(platform):
    exported = jax.export.export(pixel_adaptive, platforms=[platform])(*drawn(), size=np.array([11, 9], np.int32))
    assert exported.out_avals[0].shape == (11, 9, 2)


def test_memory_is_what_is_said():
    compiled = pixel_adaptive.lower(*drawn(128, 128, n=16), size=np.array([100, 90], np.int32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 0.65 * 1024 * 128 * 128


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_pictures_of_a_pixel_or_a_line(size):
    image, maps = drawn(*size)
    refined = adapted_maps(image, np.moveaxis(maps, -1, 0))
    assert refined.shape == (2, *size)
    assert np.isfinite(refined).all()
    assert adapted_maps(image, np.zeros((0, *size), np.float32)).shape == (0, *size)


# Programs


def test_infer_and_refine_write_the_same_masks(program, trained, mapped, tmp_path):
    made = program("infer.py", "--ckpt", trained, "--out", tmp_path / "maps", "--refine", "par", "--limit", 6)
    assert made.code == 0, made.err
    assert "LPCAM at 0.3 and PAR: " in made.out
    assert strictly_parsed(tmp_path / "maps" / "protocol.json")["refine"] == "par"
    words = ("--ckpt", trained, "--maps", mapped.directory, "--limit", 6, "--refine", "par", "--out", tmp_path / "out")
    finished = program("lpcam_jax.__main__", "refine", *words)
    assert finished.code == 0, finished.err
    protocol = strictly_parsed(tmp_path / "out" / "metrics.json")["protocol"]
    assert (protocol["refine"], protocol["crf"], protocol["saliency"]) == ("par", False, False)
    found, expected = masks_in(tmp_path / "out" / "masks"), masks_in(tmp_path / "maps" / "pseudo_masks")
    assert found.keys() == expected.keys()
    assert len(found) == 6
    differ = np.mean([np.mean(found[name] != expected[name]) for name in expected])
    assert differ < 2e-3  # the maps are stored as float16


def test_masks_are_seeds_of_the_refined_maps(program, trained, mapped, tmp_path):
    words = ("--ckpt", trained, "--maps", mapped.directory, "--limit", 3, "--refine", "par", "--out", tmp_path / "out")
    assert program("lpcam_jax.__main__", "refine", *words, "--background", 0.4).code == 0
    source, masks = seed_source(Run.open(trained).config), masks_in(tmp_path / "out" / "masks")
    for index in range(3):
        record = source[index]
        stored = read_arrays(mapped.directory / "maps" / f"{record.id}.npz")
        expected = cut(adapted_maps(record.image, stored["lpcam"]), 0.4)
        values = np.r_[0, stored["classes"].astype(int) + 1]
        [found] = [mask for name, mask in masks.items() if record.id in str(name)]
        assert_array_equal(found, values[expected])


def test_saliency_goes_with_the_crf(program, trained, mapped, tmp_path):
    words = ("--maps", mapped.directory, "--refine", "par", "--saliency", tmp_path, "--out", tmp_path / "out")
    finished = program("lpcam_jax.__main__", "refine", "--ckpt", trained, *words)
    assert finished.code == 2
    assert "goes with --refine crf, not with par" in finished.err.splitlines()[-1]
