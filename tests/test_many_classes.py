"""More classes than a mask of 8 bits can number: heat maps without masks; what needs masks is refused at once."""

import io
import json
import re
from urllib.request import urlopen

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_benchmarks as tiny
from PIL import Image
from test_commands import assert_one_line_error
from test_prepared import png, write_data_set
from tiny_recipes import CLASSIFIER, IRN, SEGMENTATION

from lpcam_jax.data.masks import MAX_CLASSES, expect_numbered, renumbering
from lpcam_jax.data.prepared import Prepared
from lpcam_jax.machine.errors import UserError
from lpcam_jax.report.overlays import jpeg, panel
from lpcam_jax.results.map_folder import MapFolder
from lpcam_jax.results.masks import MaskResults
from lpcam_jax.seeds import with_class_values

pytestmark = pytest.mark.rest

COUNT = 255  # the first that is too many: its last class would be what is ignored
MESSAGE = rf"error: .*: masks of 8 bits number {MAX_CLASSES} classes, and there are {COUNT}; .*\.\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A picture of each class."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(COUNT):
        (root / f"class_{number:03}").mkdir()
        picture = Image.fromarray(rng.integers(0, 256, (48, 56, 3), dtype=np.uint8))
        picture.save(root / f"class_{number:03}" / f"{number}.jpg")
    return root


def written(folder, text):
    """A recipe on such a folder."""
    path = folder / "recipe.py"
    path.write_text(
        re.sub(r'Data\(source="shapes", scenes=\d+', 'Data(source="folder"', text).replace("epochs=3", "epochs=1")
    )
    return path


@pytest.fixture(scope="module")
def finished(data, program, tmp_path_factory):
    """A run of two of the pictures, and its heat maps, the last class among them."""
    folder = tmp_path_factory.mktemp("results")
    recipe, run, maps = written(folder, CLASSIFIER), folder / "run", folder / "maps"
    part = f"all[{COUNT - 8}:]"
    words = ("--data.root", data, "--data.train", part, "--data.seeds", part, "--workdir", run)
    trained = program("train.py", recipe, *words)
    assert trained.code == 0, trained.err
    mapped = program("infer.py", "--ckpt", run, "--refine", "none", "--out", maps)
    assert mapped.code == 0, mapped.err
    return run, maps, mapped.out


def test_heat_maps_without_masks(finished):
    _, maps, said = finished
    with np.load(maps / "maps" / f"class_{COUNT - 1}" / f"{COUNT - 1}.npz") as arrays:
        assert arrays["classes"].tolist() == [COUNT - 1]
        assert arrays["names"].tolist() == [f"class_{COUNT - 1}"]
    assert not (maps / "seeds").exists()
    assert not (maps / "pseudo_masks").exists()
    assert f"class_{COUNT - 1}" in (maps / "index.html").read_text()
    assert (maps / "overlays" / f"class_{COUNT - 1}" / f"{COUNT - 1}.jpg").exists()
    assert said.splitlines()[-1].endswith("look at index.html, use maps/.")


def test_the_page_of_demo_app_has_maps_alone(finished, start_program):
    pytest.importorskip("gradio", reason="the page of demo-app: pip install '.[app]'")
    process = start_program("-m", "lpcam_jax", "demo-app", "--ckpt", finished[0], "--port", 0)
    line = process.stdout.readline()
    assert "shows the page" in line, process.communicate()
    with urlopen(line.split()[0].rstrip("/") + "/config") as answer:
        components = json.load(answer)["components"]
    visible = {one["props"].get("label"): one["props"].get("visible", True) for one in components}
    assert visible["heat maps"]
    assert visible["maps (.npz)"]
    assert not any(visible[label] for label in ("mask", "mask (.png)", "seed threshold", "by a CRF: the pseudo mask"))


def test_predicted_classes(data, finished, program, tmp_path):
    words = ("--ckpt", finished[0], "--refine", "none", "--images", data / "class_000", "--out", tmp_path)
    assert program("infer.py", *words).code == 0
    assert (tmp_path / "index.html").exists()


def test_pseudo_masks_are_refused_before_any_work(finished, program, tmp_path):
    refused = program("infer.py", "--ckpt", finished[0], "--out", tmp_path / "out")
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)
    assert "--refine none" in refused.err
    assert not (tmp_path / "out" / "protocol.json").exists()


@pytest.mark.parametrize("has_protocol", [True, False])
def test_seeds_are_refused(finished, program, tmp_path, has_protocol):
    maps = finished[1]
    if not has_protocol:
        MapFolder(tmp_path / "maps_alone", ()).write(
            "a", np.array([COUNT - 1]), ["c"] * COUNT, {"cam": np.ones((1, 4, 4))}
        )
        maps = tmp_path / "maps_alone"
    refused = program("lpcam_jax.__main__", "seeds", "--maps", maps, "--out", tmp_path / "out")
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("refine", ["crf", "none"])
def test_refined_masks_are_refused(finished, program, tmp_path, refine):
    words = ("--ckpt", finished[0], "--maps", finished[1], "--refine", refine, "--out", tmp_path / "out")
    refused = program("lpcam_jax.__main__", "refine", *words)
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)
    assert not (tmp_path / "out" / "protocol.json").exists()


@pytest.mark.parametrize("text", [IRN, SEGMENTATION], ids=["irn", "segmentation"])
def test_networks_that_learn_from_masks_are_refused_before_training(data, finished, program, tmp_path, text):
    recipe, words = written(tmp_path, text), ["--data.root", data, "--workdir", tmp_path / "run"]
    words += ["--data.maps", finished[1]] if "irn" in text else ["--data.masks", finished[1]]
    refused = program("train.py", recipe, *words)
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)
    assert not (tmp_path / "run" / "config.json").exists()


def test_amn_is_refused_before_training(data, finished, program, tmp_path):
    words = ("--data.source", "folder", "--data.root", data, "--data.maps", finished[1], "--workdir", tmp_path / "run")
    refused = program("train.py", "configs/shapes_amn.py", *words)
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)


def test_maps_are_exported(finished, program, tmp_path):
    done = program("lpcam_jax.__main__", "export", "--format", "irn", "--maps", finished[1], "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert (tmp_path / "out" / f"class_{COUNT - 1}" / f"{COUNT - 1}.npy").exists()


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_masks_of_so_many_classes_are_not_exported(program, tmp_path, kind):
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "a.png")
    words = ("--format", kind, "--masks", tmp_path / "masks", "--out", tmp_path / "out.json", "--classes")
    refused = program("lpcam_jax.__main__", "export", *words, *(f"c{number}" for number in range(COUNT)))
    assert refused.code == 2
    assert re.fullmatch(MESSAGE, refused.err)


def test_evaluate_says_that_there_are_no_masks(data, finished, program, tmp_path):
    recipe = written(tmp_path, CLASSIFIER)
    words = ("--data.root", data, "--predictions", finished[1], "--out", tmp_path / "out")
    assert_one_line_error(program("lpcam_jax.__main__", "evaluate", recipe, *words), "has no masks to score against")


def test_all_that_can_be_numbered_are(tmp_path):
    expect_numbered(MAX_CLASSES, "masks", "")
    names = [str(number) for number in range(MAX_CLASSES)]
    MaskResults(tmp_path, {"class_names": names}, title="masks", caption="mask")
    assert renumbering(names, names).tolist() == list(range(256))
    assert with_class_values(np.array([0, 1, 255]), np.array([253])).tolist() == [0, 254, 255]
    with pytest.raises(ValueError, match="class 254 has no value in a mask of 8 bits"):
        with_class_values(np.array([0, 1]), np.array([254]))
    with pytest.raises(UserError, match="masks of 8 bits number 254 classes, and there are 255"):
        renumbering(names, [*names, "one more"])


@pytest.mark.parametrize("count", [MAX_CLASSES, MAX_CLASSES + 1, 300])
@pytest.mark.parametrize("masks", ["", "mask", "segmentation_mask"])
def test_data_sets_of_tfds(tmp_path, capsys, masks, count):
    """Masks of pictures are refused, whose classes they cannot number; trimaps, which number none, are left out."""
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=[f"c{number}" for number in range(count)]),
    }
    example = {"image": tiny.jpeg(0), "label": count - 1}
    if masks:
        features[masks] = tfds.features.Image(shape=(None, None, 1))
        example[masks] = png(np.ones((40, 60), np.uint8))
    folder = write_data_set(tmp_path, features, [example])
    if masks == "mask" and count > MAX_CLASSES:
        with pytest.raises(UserError, match=f"true masks: masks of 8 bits number 254 classes, and there are {count}; "):
            Prepared(folder, "train")
        return
    source = Prepared(folder, "train")
    assert source.labels.argmax() == count - 1
    assert source.has_masks == (bool(masks) and count <= MAX_CLASSES)
    if source.has_masks:
        assert source[0].mask.max() == (count if masks == "segmentation_mask" else 1)
    else:
        assert source[0].mask is None
    assert ("its masks are left out" in capsys.readouterr().out) == (
        masks == "segmentation_mask" and count > MAX_CLASSES
    )


def test_the_panel_of_a_picture_of_hundreds_of_classes_is_a_jpeg():
    image, maps = np.zeros((80, 60, 3), np.uint8), np.zeros((300, 80, 60), np.float16)
    picture = panel(image, {"LPCAM": maps}, [f"class {n}" for n in range(300)], None)
    with Image.open(io.BytesIO(jpeg(picture))) as opened:
        assert opened.size == picture.shape[1::-1]
