"""Data sets that TFDS has prepared, ours and its own, through one door."""

import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_benchmarks as tiny
from PIL import Image
from test_commands import TINY

from lpcam_jax.data.prepared import Prepared
from lpcam_jax.data.published import prepare
from lpcam_jax.data.voc12 import VOC12
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.files import read_arrays, write_arrays


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_data_set(folder, features, examples, *, form="array_record", split="train"):
    """A data set of TFDS's own kind; returns its folder."""

    with tfds.core.registered.skip_registration():

        class Own(tfds.core.GeneratorBasedBuilder):
            name = "own"
            VERSION = tfds.core.Version("2.3.4")
            pkg_dir_path = folder

            def _info(self):
                features_dict = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features_dict, disable_shuffling=True)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples()}

            def _generate_examples(self):
                yield from enumerate(examples)

    builder = Own(data_dir=str(folder), file_format=form)
    builder.download_and_prepare()
    return folder / "own" / "2.3.4"


# What TFDS's oxford_iiit_pet holds: 1 the animal, 2 background, 3 the border.
TRIMAP = np.full((40, 60), 2, np.uint8)
TRIMAP[10:30, 10:40] = 3
TRIMAP[12:28, 12:38] = 1
PETS = {
    "image": tfds.features.Image(),
    "label": tfds.features.ClassLabel(names=["Abyssinian", "beagle", "pug"]),
    "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
    "file_name": tfds.features.Text(),
    "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
}


def pets(count=6):
    return [
        {
            "image": tiny.jpeg(number),
            "label": number % 3,
            "species": 0,
            "file_name": f"pet_{number}.jpg",
            "segmentation_mask": png(TRIMAP),
        }
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def oxford(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("tfds"), PETS, pets())


def test_a_trimap_is_the_one_class_of_its_picture(oxford):
    source = Prepared(oxford, "train")
    assert source.class_names == ("Abyssinian", "beagle", "pug")
    assert source.ids == [f"pet_{number}" for number in range(6)]
    np.testing.assert_array_equal(source.labels, np.tile(np.eye(3), (2, 1)))
    for number, record in enumerate(source):
        np.testing.assert_array_equal(record.mask, np.select([TRIMAP == 1, TRIMAP == 3], [number % 3 + 1, 255], 0))
        assert record.image.shape == (40, 60, 3)


def test_some_classes_of_it(oxford):
    source = Prepared(oxford, "train[:3]", classes=("pug", "Abyssinian"))
    np.testing.assert_array_equal(source.labels, [[0, 1], [0, 0], [1, 0]])
    assert [set(np.unique(record.mask)) for record in source] == [{0, 2, 255}, {0, 255}, {0, 1, 255}]


@pytest.mark.rest
def test_from_such_a_set_to_heat_maps(program, oxford, tmp_path):
    data = ("--data.source", "tfds", "--data.root", oxford, "--data.train", "train", "--data.seeds", "train[50%:]")
    finished = program("train.py", "configs/folder.py", *data, "--workdir", tmp_path / "run", *TINY)
    assert finished.code == 0, finished.err
    finished = program("infer.py", "--ckpt", tmp_path / "run", "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert sorted(path.stem for path in tmp_path.glob("out/maps/*.npz")) == ["pet_3", "pet_4", "pet_5"]
    assert "mIoU" in finished.out


def test_several_labels_a_picture_and_no_masks(tmp_path):
    features = {
        "image": tfds.features.Image(),
        "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=["cat", "dog", "owl"])),
    }
    lists = [[0, 2], [], [1]]
    folder = write_data_set(tmp_path, features, [{"image": tiny.jpeg(1), "labels": one} for one in lists])
    source = Prepared(folder, "train")
    np.testing.assert_array_equal(source.labels, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert source.ids == ["train_000000", "train_000001", "train_000002"]
    assert not source.has_masks


def test_a_split_without_labels_has_none(tmp_path):
    """TFDS says -1 for the class of a picture in a test split."""
    source = Prepared(write_data_set(tmp_path, PETS, [one | {"label": -1} for one in pets(2)]), "train")
    assert source.labels is None


def test_splits_that_overlap_are_refused(oxford):
    with pytest.raises(UserError, match="names a picture twice; choose splits that do not overlap"):
        Prepared(oxford, "train[:2]+train[:3]")


def test_equal_names_are_told_apart(tmp_path):
    examples = [one | {"file_name": "same.jpg"} for one in pets(3)]
    source = Prepared(write_data_set(tmp_path, PETS, examples), "train")
    assert source.ids == ["same_000000", "same_000001", "same_000002"]


def test_pixels_are_taken_as_they_are_stored(tmp_path):
    """The mask was drawn on them; EXIF says they should be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(tiny.jpeg(1))).save(buffer, "JPEG", exif=exif)
    source = Prepared(write_data_set(tmp_path, PETS, [pets(1)[0] | {"image": buffer.getvalue()}]), "train")
    assert source.size(0) == source[0].image.shape[:2] == source[0].mask.shape == (40, 60)


def test_sizes_are_read_once(oxford, monkeypatch):
    Prepared(oxford, "train")
    monkeypatch.setattr("lpcam_jax.data.prepared.picture_size", lambda *_, **__: pytest.fail("read again"))
    assert Prepared(oxford, "train").size(0) == (40, 60)


def test_a_damaged_index_is_made_again(oxford):
    before = Prepared(oxford, "train").ids
    (oxford / "lpcam_jax_index_train.npz").write_bytes(b"PK damaged")
    assert Prepared(oxford, "train").ids == before


@pytest.mark.parametrize("name", ["../../outside/x", "/outside/x", ""])
def test_an_index_whose_names_lead_out_is_made_again(oxford, name):
    """It comes with the folder, from whoever prepared it."""
    before, file = Prepared(oxford, "train").ids, oxford / "lpcam_jax_index_train.npz"
    index = read_arrays(file)
    write_arrays(file, **index | {"ids": np.array([name, *index["ids"][1:]])})
    assert Prepared(oxford, "train").ids == before


@pytest.mark.parametrize("name", ["../../evil.jpg", "/evil.jpg", "pets/...jpg"])
def test_names_do_not_lead_out_of_the_output(tmp_path, name):
    folder = write_data_set(tmp_path, PETS, [pets(1)[0] | {"file_name": name}])
    with pytest.raises(UserError, match="leads out of the data set"):
        Prepared(folder, "train")


@pytest.mark.parametrize(
    ("features", "pattern"),
    [
        ({"text": tfds.features.Text()}, r"no feature `image`"),
        ({"image": tfds.features.Image()}, r"its classes have no names"),
        ({"image": tfds.features.Image(), "label": tfds.features.Text()}, r"neither classes nor a 0/1 vector"),
    ],
)
def test_a_set_of_other_features(tmp_path, features, pattern):
    example = {"text": "a", "image": tiny.jpeg(1), "label": "cat"}
    folder = write_data_set(tmp_path, features, [{name: example[name] for name in features}])
    with pytest.raises(UserError, match=pattern):
        Prepared(folder, "train")


def test_what_tensorflow_alone_can_read(tmp_path, oxford):
    for file in oxford.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"array_record", b"tfrecord"))
    with pytest.raises(UserError, match=r"prepared as tfrecord.*file_format='array_record'"):
        Prepared(tmp_path, "train")


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        ("dataset_info.json", r"cannot be opened by TFDS"),
        ("features.json", r"cannot be opened by TFDS"),
        ("own-train.array_record-00000-of-00001", r"cannot be (opened|read)"),
    ],
)
def test_damaged_files(tmp_path, oxford, damage, pattern):
    for file in oxford.iterdir():
        (tmp_path / file.name).write_bytes(b"damaged" if file.name == damage else file.read_bytes())
    with pytest.raises(UserError, match=pattern):
        list(Prepared(tmp_path, "train"))


def test_no_such_folder_or_split(tmp_path, oxford):
    with pytest.raises(UserError, match=r"no dataset_info.json; name the folder that TFDS prepared"):
        Prepared(tmp_path, "train")
    with pytest.raises(UserError, match=r"split 'test' cannot be opened .*Unknown split"):
        Prepared(oxford, "test")


@pytest.mark.parametrize("opencv", [True, False])
def test_masks_are_indices_with_and_without_opencv(tmp_path, opencv):
    """TFDS decodes with opencv where there is one, and opencv turns palettes into colours."""
    if opencv and importlib.util.find_spec("cv2") is None:
        pytest.skip("opencv is not installed")
    tiny.unpack(tiny.devkit(), tmp_path)
    directory = prepare(VOC12, tmp_path, "train", prepared=tmp_path / "prepared", limit=None)
    code = (
        "import sys\n"
        + ("import cv2\n" if opencv else "sys.modules['cv2'] = None\n")
        + "import numpy as np, tensorflow_datasets as tfds\n"
        "from lpcam_jax.data.prepared import Prepared\n"
        "theirs = [one['mask'] for one in tfds.builder_from_directory(sys.argv[1]).as_data_source('train')]\n"
        "ours = [one.mask for one in Prepared(sys.argv[1], 'train')]\n"
        "np.savez(sys.argv[2], theirs=np.stack(theirs), ours=np.stack(ours), opencv=sys.modules.get('cv2') is not None)"
    )
    subprocess.run([sys.executable, "-c", code, directory, tmp_path / "masks.npz"], check=True, capture_output=True)
    with np.load(tmp_path / "masks.npz") as arrays:
        assert arrays["opencv"] == opencv
        expected = np.stack([tiny.voc_mask(tiny.VOC[name]) for name in tiny.VOC_TRAIN])
        np.testing.assert_array_equal(arrays["theirs"], expected[..., None])
        np.testing.assert_array_equal(arrays["ours"], expected)
