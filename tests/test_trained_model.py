"""lpcam_jax.load: a run as a function from pictures to maps."""

import jax
import numpy as np
import pytest
from PIL import Image
from test_heatmaps import arrays_of

import lpcam_jax
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.irn.config import IRNConfig
from lpcam_jax.systems.lpcam.maps import METHODS
from lpcam_jax.training.run import Run


@pytest.fixture(scope="module")
def model(trained):
    return lpcam_jax.load(trained)


@pytest.fixture(scope="module")
def scenes(tiny):
    return Shapes(tiny.data.scenes, seed=tiny.seed)


def names_of(scene, model):
    return [model.class_names[n] for n in np.flatnonzero(scene.labels)]


def assert_same(one, other):
    np.testing.assert_array_equal(one.image, other.image)
    assert one.names == other.names
    for method in METHODS:
        np.testing.assert_allclose(one.maps[method], other.maps[method], atol=1e-5)


def test_maps_are_those_that_infer_writes(model, mapped, scenes):
    for index in (0, 1):
        result = model(scenes[index].image, classes=names_of(scenes[index], model))
        written = arrays_of(mapped[0] / "maps" / f"{scenes.ids[index]}.npz")
        assert result.names == tuple(written["names"])
        assert result.classes.tolist() == written["classes"].tolist()
        np.testing.assert_allclose([*result.probabilities.values()], written["probabilities"], atol=1e-5)
        for method in METHODS:
            np.testing.assert_allclose(np.moveaxis(result.maps[method], -1, 0), written[method], atol=2e-3)


def test_the_predicted_classes_are_mapped_unless_others_are_named(model, scenes):
    image = scenes[0].image
    result = model(image)
    assert list(result.probabilities) == list(model.class_names)
    likely = [name for name, p in result.probabilities.items() if p >= model.config.inference.probability]
    assert list(result.names) == (likely or [max(result.probabilities, key=result.probabilities.get)])
    assert result.maps["lpcam"].shape == (*image.shape[:2], len(result.names))
    assert model(image, classes=["owl", "fox"]).names == ("fox", "owl")
    assert model(image, classes="owl").maps["cam"].shape == (*image.shape[:2], 1)


def test_a_path_a_pil_image_and_an_array_are_the_same_picture(model, scenes, tmp_path):
    image = scenes[2].image
    Image.fromarray(image).save(tmp_path / "scene.png")
    turned = Image.fromarray(np.rot90(image, 2))
    turned.getexif()[0x0112] = 3  # upside down
    results = model([image, tmp_path / "scene.png", str(tmp_path / "scene.png"), Image.fromarray(image), turned])
    assert len(results) == 5
    for result in (*results, model(image), model(np.stack([image]))[0]):
        assert_same(result, results[0])


def test_transparent_parts_of_a_pil_image_are_white_as_those_of_a_file(model, scenes, tmp_path):
    image = Image.fromarray(np.dstack([scenes[0].image, np.eye(*scenes[0].image.shape[:2], dtype=np.uint8)]), "RGBA")
    image.save(tmp_path / "scene.png")
    assert_same(model(image), model(tmp_path / "scene.png"))
    assert (model(image).image == 255).mean() > 0.9


def test_several_pictures_of_several_sizes_keep_their_order(model, scenes):
    images = [scenes[index].image for index in (5, 3, 4)]
    for result, image in zip(model(images, classes="fox"), images, strict=True):
        np.testing.assert_array_equal(result.image, image)
        assert result.maps["lpcam"].shape == (*image.shape[:2], 1)
    assert model([]) == []


def test_a_few_pictures_need_no_progress_bar(model, scenes, capfd):
    model([scenes[0].image] * 2)
    model.features(scenes[0].image)
    assert capfd.readouterr().err == ""
    model([scenes[0].image] * 17)
    assert "heat maps: 100%" in capfd.readouterr().err


def test_a_shape_that_was_seen_is_not_compiled_again(model, scenes):
    compiled = []
    model(scenes[0].image)
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    model(scenes[0].image[:, ::-1])
    assert not [name for name in compiled if "compile" in name]
    model(np.zeros((40, 250, 3), np.uint8))
    assert [name for name in compiled if "compile" in name]


def test_features_and_head_give_what_the_classifier_says(model, scenes):
    image = scenes[0].image[:90, :70]
    features = model.features(image)
    assert features.dtype == np.float32
    assert features.shape == (6, 5, model.head.shape[0])
    logits = features.mean(axis=(0, 1)) @ np.asarray(model.head)
    np.testing.assert_allclose(model.probabilities(image[None])[0], 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(
        model.probabilities(np.float32([image, image[::-1]]))[0], model.probabilities(image[None])[0], atol=1e-5
    )
    assert lpcam_jax.lpcam(features, model.prototypes).shape == (6, 5, len(model.class_names))


def test_probabilities_can_be_differentiated_and_are_a_part_of_other_programs(model, scenes):
    pictures = np.float32([scenes[0].image[:64, :64]])
    alone = model.probabilities(pictures)
    np.testing.assert_allclose(jax.jit(model.probabilities)(pictures), alone, atol=1e-5)
    slope = jax.grad(lambda pictures: model.probabilities(pictures)[0, 0])(pictures)
    assert slope.shape == pictures.shape
    assert np.isfinite(slope).all()
    assert np.any(slope)


@pytest.mark.parametrize(
    ("picture", "pattern"),
    [
        ("no_such.png", "no_such.png: no such file"),
        (np.zeros((8, 8, 3)), r"a picture is float64 \(8, 8, 3\); give uint8 \(H, W, 3\) in RGB"),
        (np.zeros((8, 8), np.uint8), r"a picture is uint8 \(8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"a picture is uint8 \(0, 8, 3\)"),
        (Image.new("I;16", (8, 8)), "kind I;16 has no certain range"),
    ],
)
def test_what_is_no_picture_is_refused(model, picture, pattern):
    with pytest.raises(UserError, match=pattern):
        model(picture)
    with pytest.raises(UserError, match=pattern):
        model.features(picture)


def test_a_class_that_there_is_not_is_refused(model, scenes):
    with pytest.raises(UserError, match="there is no class 'zebra'; the run has fox, pig"):
        model(scenes[0].image, classes=["fox", "zebra"])


def test_only_a_finished_run_is_loaded_and_none_that_needs_maps(tmp_path, tiny):
    with pytest.raises(UserError, match="holds no run"):
        lpcam_jax.load(tmp_path)
    Run.create(tmp_path / "masks", IRNConfig(), ("cat",))
    with pytest.raises(UserError, match=r"holds a run of kind irn, which is not loaded; use infer\.py"):
        lpcam_jax.load(tmp_path / "masks")
    Run.create(tmp_path / "begun", tiny, ("cat",))
    with pytest.raises(UserError, match="has no checkpoint yet"):
        lpcam_jax.load(tmp_path / "begun")
