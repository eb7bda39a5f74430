"""VOC 2012 and SBD, prepared from archives with the published layouts."""

import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_benchmarks as tiny
from conftest import HANGS
from PIL import Image
from real_data import ANIMALS, needs
from test_commands import TINY, assert_one_line_error

from lpcam_jax.data import voc12
from lpcam_jax.data.prepared import Prepared
from lpcam_jax.data.published import prepare
from lpcam_jax.data.voc12 import VOC12
from lpcam_jax.data.voc_layout import VOC_CLASSES
from lpcam_jax.machine.errors import UserError

# A program of its own: `python -c PREPARE ROOT`.
PREPARE = (
    "import sys; from lpcam_jax.data.published import prepare; from lpcam_jax.data.voc12 import VOC12;"
    "print(prepare(VOC12, sys.argv[1], 'train', prepared=sys.argv[1] + '/prepared', limit=None))"
)
TRAIN_AUG = ["2007_000032", "2008_000002", "2008_000007", "2010_000003"]


def opened(root, split, *, part=None, limit=None, **options) -> Prepared:
    directory = prepare(VOC12, root, split, prepared=root / "prepared", limit=limit)
    return Prepared(directory, part or split, **options)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return tiny.voc_archives(tmp_path_factory.mktemp("voc") / "archives")


def unpacked(root, *, sbd="mat"):
    tiny.unpack(tiny.devkit(), root / "VOCdevkit" / "VOC2012")
    tiny.unpack(tiny.sbd(sbd), root / "benchmark_RELEASE" / "dataset")
    return root


@pytest.mark.parametrize(("split", "ids"), [("train", tiny.VOC_TRAIN), ("val", tiny.VOC_VAL), ("train_aug", TRAIN_AUG)])
def test_a_split_has_the_pictures_labels_and_masks_of_the_archives(archives, split, ids):
    source = opened(archives, split)
    assert source.class_names == VOC_CLASSES
    assert source.ids == ids
    for index, name in enumerate(ids):
        record = source[index]
        assert {VOC_CLASSES[n] for n in np.flatnonzero(record.labels)} == set(tiny.VOC[name])
        # The devkit's own mask where there is one, with its ignored border; SBD's has none.
        own = name in tiny.VOC_TRAIN + tiny.VOC_VAL
        np.testing.assert_array_equal(record.mask, tiny.voc_mask(tiny.VOC[name], border=own))
        assert source.size(index) == record.image.shape[:2] == (40, 60)
    assert source.labels.dtype == np.float32
    np.testing.assert_array_equal(source.labels, [record.labels for record in source])


def test_pictures_are_the_published_ones_byte_for_byte(archives, tmp_path):
    import tensorflow_datasets as tfds

    directory = prepare(VOC12, archives, "train", prepared=archives / "prepared", limit=None)
    builder = tfds.builder_from_directory(directory)
    records = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [record["image"] for record in records] == [
        tiny.devkit()[f"JPEGImages/{name}.jpg"] for name in tiny.VOC_TRAIN
    ]


def test_the_test_split_has_pictures_only(archives):
    source = opened(archives, "test")
    assert (source.labels, source.has_masks, len(source)) == (None, False, 2)
    assert source[0].labels is None
    assert source[0].mask is None


@pytest.mark.parametrize("sbd", ["mat", "png"])
@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_unpacked_files_give_the_same_as_archives(archives, tmp_path, sbd, below):
    tiny.unpack(tiny.devkit(), tmp_path / "VOCdevkit" / "VOC2012")
    tiny.unpack(tiny.sbd(sbd), tmp_path / below / "benchmark_RELEASE" / "dataset")
    ours, theirs = opened(tmp_path / below, "train_aug"), opened(archives, "train_aug")
    assert ours.ids == theirs.ids
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine.image, other.image)
        np.testing.assert_array_equal(mine.mask, other.mask)


def test_train_aug_of_a_folder_of_png_masks(tmp_path):
    """SegmentationClassAug as it goes around: the masks of train_aug and val together, no lists."""
    tiny.unpack(tiny.devkit(), tmp_path)
    masks = {f"SegmentationClassAug/{name}.png": tiny.mask_png(tiny.voc_mask(tiny.VOC[name])) for name in tiny.VOC}
    masks.pop("SegmentationClassAug/2008_000002.png")
    tiny.unpack(masks, tmp_path)
    source = opened(tmp_path, "train_aug")
    assert source.ids == ["2007_000032", "2008_000007", "2010_000003"]
    np.testing.assert_array_equal(source[2].mask, tiny.voc_mask(tiny.VOC["2010_000003"]))


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
@pytest.mark.parametrize("place", ["train_aug.txt", "ImageSets/Segmentation/trainaug.txt"])
def test_a_list_of_the_user_decides_and_needs_no_sbd(tmp_path, place, line):
    tiny.unpack(tiny.devkit(), tmp_path)
    ids = ["2010_000003", "2007_000032"]
    (tmp_path / place).write_text("\n".join(line.replace("{}", name) for name in ids))
    source = opened(tmp_path, "train_aug")
    assert source.ids == ids
    assert not source.has_masks  # one of the two pictures has none
    assert source.labels.sum() == 4


def test_without_annotations_the_mask_says_what_is_there(archives, tmp_path):
    files = {name: content for name, content in tiny.devkit().items() if not name.startswith("Annotations")}
    tiny.unpack(files, tmp_path)
    np.testing.assert_array_equal(opened(tmp_path, "train").labels, opened(archives, "train").labels)


def test_some_classes_of_a_benchmark(archives):
    source = opened(archives, "train", classes=("person", "boat"))
    np.testing.assert_array_equal(source.labels, [[1, 0], [0, 1]])
    assert set(np.unique(source[0].mask)) == {0, 1, 255}  # the aeroplane is background
    assert set(np.unique(source[1].mask)) == {0, 2, 255}


@pytest.mark.parametrize(
    ("part", "ids"), [("train_aug[1:3]", TRAIN_AUG[1:3]), ("train_aug[:50%]", TRAIN_AUG[:2]), ("train_aug", TRAIN_AUG)]
)
def test_a_slice_of_a_split(archives, part, ids):
    source = opened(archives, "train_aug", part=part)
    assert source.ids == ids
    assert [source[index].id for index in range(len(source))] == ids
    assert source.labels.shape == (len(ids), 20)


def test_a_dry_run_prepares_the_first_pictures_only_and_uses_all_where_they_are(tmp_path):
    root = unpacked(tmp_path)
    (root / "VOCdevkit/VOC2012/JPEGImages" / f"{TRAIN_AUG[3]}.jpg").write_bytes(b"damaged, but not among the first")
    assert opened(root, "train_aug", limit=3).ids == TRAIN_AUG[:3]
    assert not (root / "prepared/voc12/train_aug").exists()
    opened(root, "train")
    assert opened(root, "train", limit=1).ids == tiny.VOC_TRAIN
    assert not (root / "prepared/voc12/train_first_1").exists()


def test_prepared_once(tmp_path, archives):
    """The second start needs neither the archives nor the time."""
    root = tiny.voc_archives(tmp_path)
    before = opened(root, "train")
    for path in root.glob("*.t*"):
        path.unlink()
    after = opened(root, "train")
    np.testing.assert_array_equal(before[1].image, after[1].image)


@pytest.mark.parametrize("kept", [None, 0, 100])
def test_what_was_prepared_and_is_damaged_is_said_and_made_again_once_it_is_deleted(tmp_path, kept):
    root = unpacked(tmp_path)
    opened(root, "train")
    file = root / "prepared/voc12/train/1.0.0/dataset_info.json"
    file.write_bytes(file.read_bytes()[:kept]) if kept is not None else file.unlink()
    with pytest.raises(
        UserError, match=r"^[^\n]*1\.0\.0 cannot be opened \([^\n]*\); delete it, it is prepared again\.$"
    ):
        opened(root, "train")
    shutil.rmtree(file.parent)
    assert opened(root, "train").ids == tiny.VOC_TRAIN


def test_a_killed_preparation_goes_on(tmp_path, monkeypatch):
    """After its last full file of records; what it has is not prepared again, and the order is that of the list."""
    root = unpacked(tmp_path)
    slow = (
        "import threading, lpcam_jax.data.published as benchmark, lpcam_jax.data.voc12 as voc12;"
        "forever = threading.Event().wait;"
        "benchmark._SHARD = 1; labels, read = voc12._labels, [];"
        "voc12._labels = lambda *words: forever() if len(read) == 2 else read.append(1) or labels(*words);"
    )
    code = slow + PREPARE.replace("'train'", "'train_aug'")
    process = subprocess.Popen([sys.executable, "-c", code, root], stderr=subprocess.DEVNULL)
    unfinished = root / "prepared/unfinished/voc12/train_aug/1.0.0"
    deadline = time.monotonic() + HANGS
    while "shardLengths" not in (text := _text(unfinished / "dataset_info.json")) or text.count('"1"') < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (root / "prepared/voc12/train_aug/1.0.0").exists()
    read, labels = [], voc12._labels
    monkeypatch.setattr(voc12, "_labels", lambda *words: read.append(1) or labels(*words))
    assert opened(root, "train_aug").ids == TRAIN_AUG
    assert len(read) == 2
    assert not unfinished.exists()


def test_what_a_killed_preparation_left_of_other_files_is_not_used(tmp_path, monkeypatch):
    root = unpacked(tmp_path)
    monkeypatch.setattr("lpcam_jax.data.published._SHARD", 1)
    read, labels = [], voc12._labels

    def stop(*words):
        if len(read) == 2:
            raise UserError("stopped here")
        read.append(1)
        return labels(*words)

    monkeypatch.setattr(voc12, "_labels", stop)
    with pytest.raises(UserError, match="stopped here"):
        opened(root, "train_aug")
    monkeypatch.setattr(voc12, "_labels", labels)
    ids = [TRAIN_AUG[3], *TRAIN_AUG[:2]]
    (root / "train_aug.txt").write_text("\n".join(ids))
    assert opened(root, "train_aug").ids == ids


def test_many_files_of_records_keep_the_order(tmp_path, monkeypatch):
    """And nothing is kept in memory or sorted: TFDS's own way needs TensorFlow above a gigabyte."""
    from tensorflow_datasets.core import shuffle

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    monkeypatch.setattr("lpcam_jax.data.published._SHARD", 3)
    source = opened(unpacked(tmp_path), "train_aug")
    assert source.ids == TRAIN_AUG
    assert [record.id for record in source] == TRAIN_AUG
    assert len(list(tmp_path.glob("prepared/voc12/train_aug/1.0.0/*.array_record-*"))) == 2


def _text(path):
    return path.read_text() if path.exists() else ""


def test_two_programs_prepare_the_same_split_at_once(tmp_path):
    root = unpacked(tmp_path)
    command = [sys.executable, "-c", PREPARE, root]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err
        assert out.splitlines()[-1].endswith("voc12/train/1.0.0")


@pytest.mark.parametrize(
    ("lost", "split", "pattern"),
    [
        (
            "*",
            "train",
            r"VOC 2012 \(ImageSets/.*/train.txt\) not found; put VOCtrainval_11-May-2012.tar or .*page",
        ),
        ("*", "test", r"VOC 2012 \(.*test.txt\) not found; put VOC2012test.tar .*the VOC 2012 page"),
        ("benchmark*", "train_aug", r"SBD.* not found; put benchmark.tgz .*Semantic Boundaries Dataset"),
        (
            "VOCdevkit/VOC2012/JPEGImages/2008_000007.jpg",
            "train",
            r"1 of 2 pictures of train .*: JPEGImages/2008_000007.jpg",
        ),
        ("VOCdevkit/VOC2012/ImageSets/*/train.txt", "train", r"VOC 2012 \(ImageSets/.*/train.txt\) not found"),
    ],
)
def test_what_is_missing_is_said_with_who_publishes_it(tmp_path, lost, split, pattern):
    root = unpacked(tmp_path)
    for path in sorted(root.glob(lost)):
        subprocess.run(["rm", "-r", path], check=True)
    with pytest.raises(UserError, match=pattern):
        opened(root, split)


@pytest.mark.parametrize(
    ("file", "content", "pattern"),
    [
        ("Annotations/2007_000032.xml", b"<annotation><object>", r"2007_000032.xml: damaged XML"),
        (
            "Annotations/2007_000032.xml",
            b"<a><object><name>walrus</name></object></a>",
            r"object 'walrus' is not one of the twenty",
        ),
        ("ImageSets/Segmentation/train.txt", b"", r"train.txt: the list is empty"),
        ("ImageSets/Segmentation/train.txt", b"../../../etc/passwd", r"leads out of the data set"),
        ("ImageSets/Segmentation/train.txt", b"\xff\xfe\x00", r"not UTF-8"),
        ("SegmentationClass/2007_000032.png", b"no picture", r"2007_000032.png: not a picture"),
        ("SegmentationClass/2007_000032.png", tiny.mask_png(np.full((40, 60), 77, np.uint8)), r"the mask holds 77"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, pattern):
    root = unpacked(tmp_path)
    (root / "VOCdevkit/VOC2012" / file).write_bytes(content)
    with pytest.raises(UserError, match=pattern):
        opened(root, "train")


def test_a_damaged_mask_of_sbd_is_named(tmp_path):
    root = unpacked(tmp_path)
    (root / "benchmark_RELEASE/dataset/cls/2010_000003.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(UserError, match=r"2010_000003.mat: not a readable mask of SBD"):
        opened(root, "train_aug")


def test_a_split_that_does_not_exist(archives):
    with pytest.raises(UserError, match="voc12 has no split 'trainaug'; there are train, val, test, train_aug"):
        opened(archives, "trainaug")
    with pytest.raises(UserError, match=r"split .*cannot be opened"):
        opened(archives, "train", part="train[oops]")


@pytest.mark.rest
def test_from_archives_to_heat_maps(program, archives, tmp_path):
    """The recipe of the paper, with a tiny network."""
    run, out, prepared = tmp_path / "run", tmp_path / "out", tmp_path / "prepared"
    words = ("--data.root", archives, "--data.prepared", prepared, "--workdir", run, "--limit", 8, *TINY)
    finished = program("train.py", "configs/voc12.py", *words)
    assert finished.code == 0, finished.err
    assert re.search("voc12/train_aug_first_8/1.0.0 .4 pictures, 10,582 as published", finished.out)
    finished = program("infer.py", "--ckpt", run, "--out", out, "--limit", 8)
    assert finished.code == 0, finished.err
    assert sorted(path.stem for path in out.glob("maps/*.npz")) == tiny.VOC_TRAIN
    assert "mIoU" in finished.out
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "aug", "--split", "train_aug")
    assert finished.code == 0, finished.err
    assert sorted(path.stem for path in (tmp_path / "aug").glob("maps/*.npz")) == TRAIN_AUG
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "test", "--split", "test")
    assert finished.code == 0, finished.err
    assert len(list((tmp_path / "test").glob("maps/*.npz"))) == 2


def test_training_on_pictures_without_labels(program, archives, tmp_path):
    words = ("--data.root", archives, "--data.prepared", tmp_path, "--workdir", tmp_path / "run", *TINY)
    finished = program("train.py", "configs/voc12.py", *words, "--data.train", "test")
    assert_one_line_error(finished, "test: its pictures have no labels")


def test_no_archive_at_all(program, tmp_path):
    words = ("--data.root", tmp_path, "--workdir", tmp_path / "run", *TINY)
    assert_one_line_error(program("train.py", "configs/voc12.py", *words), "VOC 2012 .* not found; put VOCtrainval")
    words = ("--data.root", tmp_path / "nowhere", "--workdir", tmp_path / "run", *TINY)
    assert_one_line_error(program("train.py", "configs/voc12.py", *words), "no such folder")


@pytest.mark.rest
@needs(ANIMALS)
def test_real_photographs(tmp_path):
    """Real files of VOC 2012 and SBD, laid out like a devkit: what is prepared agrees with them."""
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "JPEGImages").symlink_to(ANIMALS / "JPEGImages")
    (tmp_path / "SegmentationClass").symlink_to(ANIMALS / "SegmentationClassAug")
    for name in ("train.txt", "train_aug.txt"):
        (tmp_path / "ImageSets/Segmentation" / name).symlink_to(ANIMALS / name)
    for split, count in (("train", 437), ("train_aug", 1100)):
        source = opened(tmp_path, split)
        assert source.ids == (ANIMALS / f"{split}.txt").read_text().split()
        assert len(source) == count
        for index in range(0, count, 5):
            record = source[index]
            with Image.open(ANIMALS / "SegmentationClassAug" / f"{record.id}.png") as mask:
                np.testing.assert_array_equal(record.mask, np.array(mask))
            present = np.isin(np.arange(1, 21), record.mask)
            np.testing.assert_array_equal(record.labels, present)
            assert record.image.shape[:2] == record.mask.shape == source.size(index)
    # Every animal picture has an animal, and persons are never alone.
    animals = opened(tmp_path, "train", classes=("cat", "cow", "dog", "horse", "person", "sheep"))
    assert animals.labels.any(axis=1).all()
    assert (animals.labels[animals.labels[:, 4] == 1].sum(axis=1) > 1).all()


def test_an_archive_of_the_other_part_beside_an_unpacked_devkit(tmp_path):
    tiny.unpack(tiny.devkit(), tmp_path / "VOCdevkit/VOC2012")
    tiny.pack_tar(tiny.devkit_of_test(), tmp_path / "VOC2012test.tar", prefix="VOCdevkit/VOC2012/")
    assert len(opened(tmp_path, "test")) == 2
    assert opened(tmp_path, "train").ids == tiny.VOC_TRAIN


def test_stray_files_among_the_masks_are_no_pictures(tmp_path):
    tiny.unpack(tiny.devkit(), tmp_path)
    mask = tiny.mask_png(tiny.voc_mask(["cat"]))
    names = ("2010_000003.png", "._2007_000032.png", "Thumbs.db")
    tiny.unpack({f"SegmentationClassAug/{name}": mask for name in names}, tmp_path)
    (tmp_path / "train.txt").write_text("2008_000002")  # the user's own, not SBD's
    assert opened(tmp_path, "train_aug").ids == ["2007_000032", "2008_000007", "2010_000003"]


def test_an_archive_that_was_replaced_is_said(tmp_path):
    root = tiny.voc_archives(tmp_path)
    (root / "nohup.out").write_text("no part of it")
    opened(root, "train")
    (root / "nohup.out").write_text("which may change")
    opened(root, "train")
    [archive, *_] = sorted(root.glob("*.t*"))
    archive.write_bytes(archive.read_bytes() + bytes(512))
    with pytest.raises(UserError, match=rf"{archive.name} has .* bytes; .* was prepared when it had .*: delete that"):
        opened(root, "train")


def test_another_root_than_it_was_prepared_from_is_said(tmp_path, capsys):
    opened(unpacked(tmp_path / "one"), "train")
    (tmp_path / "two").mkdir()
    capsys.readouterr()
    prepare(VOC12, tmp_path / "two", "train", prepared=tmp_path / "one" / "prepared", limit=None)
    assert re.search(r"using .*prepared from .*one\); delete it to prepare it again", capsys.readouterr().out)


@pytest.mark.parametrize("content", [b"", tiny.jpeg(1, size=(50, 40))])
def test_a_picture_that_cannot_belong_to_its_mask_ends_the_preparation_with_its_name(tmp_path, content):
    root = unpacked(tmp_path)
    picture = root / "VOCdevkit/VOC2012/JPEGImages/2008_000007.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(content)
    with pytest.raises(UserError, match=r"JPEGImages/2008_000007.jpg: (the file is empty|the picture is 50x40, its)"):
        opened(root, "train")
    picture.write_bytes(whole)
    assert opened(root, "train").ids == tiny.VOC_TRAIN


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def full(*_):
        raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr(tfds.core.SequentialWriter, "add_examples", full)
    with pytest.raises(UserError, match=r"voc12 cannot be prepared \(write\(\) failed: No space left"):
        opened(unpacked(tmp_path), "train")


def test_a_picture_that_ends_early_is_named_with_what_to_do(tmp_path):
    root = unpacked(tmp_path)
    picture = root / "VOCdevkit/VOC2012/JPEGImages/2008_000007.jpg"
    picture.write_bytes(picture.read_bytes()[:900])
    source = opened(root, "train")  # its header is good
    with pytest.raises(UserError, match=r"1.0.0: 2008_000007: damaged .*; then delete .*/train/1.0.0, and it will be"):
        source[1]
