"""Two hundred damaged files: one clear line that names them (of a command: and exit code 2), or skipped and counted.

The damages are drawn, but the same every time. None may end in a traceback, none may hang, and none may go unnoticed
where it changes what is read.
"""

import gc
import io
import json
import pickle
import re
import shutil
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny_benchmarks as tiny
from conftest import HANGS, Finished
from PIL import Image
from test_commands import assert_one_line_error, picture

from lpcam_jax.config import Data
from lpcam_jax.data.records import Record
from lpcam_jax.data.sources import training_source
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.systems.lpcam.config import LPCAMConfig


@pytest.fixture(autouse=True)
def _no_hang():
    """Whatever takes half an hour over a tiny file hangs."""

    def stop(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def damaged(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """The file empty, cut off, with other bytes, filled with zeros, in front of another, or another altogether."""
    rng = np.random.default_rng(seed)
    yield b""
    yield b"no such format"
    for number in range(count - 2):
        changed = bytearray(content)
        match number % 4:
            case 0:
                del changed[int(rng.integers(1, len(content))) :]
            case 1:
                for place in rng.integers(0, len(content), 8):
                    changed[place] = rng.integers(256)
            case 2:
                start = int(rng.integers(0, len(content)))
                changed[start : start + 64] = bytes(len(changed[start : start + 64]))
            case 3:
                start = int(rng.integers(0, len(content)))
                changed[start:start] = rng.bytes(16)
        yield bytes(changed)


def jpeg_as(mode: str, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(tiny.jpeg(3))).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def test_forty_eight_pictures(program, trained, tmp_path):
    """Readable however strange, or skipped with a line that names them."""
    strange = {
        "cmyk.jpg": jpeg_as("CMYK", "JPEG"),
        "grey.jpg": jpeg_as("L", "JPEG"),
        "deep.png": png(np.arange(2400, dtype=np.uint16).reshape(40, 60)),
        "palette.png": jpeg_as("P", "PNG"),
        "see_through.png": jpeg_as("RGBA", "PNG"),
        "one_bit.png": jpeg_as("1", "PNG"),
        "dot.png": png(np.zeros((1, 1, 3), np.uint8)),
        "line.png": png(np.zeros((1, 60, 3), np.uint8)),
        "moving.gif": jpeg_as("P", "GIF", save_all=True, append_images=[Image.new("P", (60, 40))]),
    }
    files = strange | {f"jpeg_{n}.jpg": content for n, content in enumerate(damaged(tiny.jpeg(1), 20))}
    files |= {f"png_{n}.png": content for n, content in enumerate(damaged(jpeg_as("RGB", "PNG"), 19))}
    assert len(files) == 48
    tiny.unpack(files, tmp_path / "images")
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--images", tmp_path / "images")
    assert (finished.code, "Traceback" in finished.err) == (0, False), finished.err
    mapped = {path.stem for path in (tmp_path / "out" / "maps").glob("*.npz")}
    skipped = {Path(line.split(": ")[1]).stem for line in finished.out.splitlines() if line.startswith("skipped: ")}
    assert mapped | skipped == {Path(name).stem for name in files}
    assert not mapped & skipped
    assert {Path(name).stem for name in strange} <= mapped
    assert {"jpeg_0", "jpeg_1", "png_0", "png_1"} <= skipped
    assert f"{len(skipped)} pictures were skipped; metrics.json says why." in finished.out


@pytest.mark.rest
def test_thirty_masks(program, trained, tmp_path):
    """Maps do not need them: a picture whose mask cannot be used is skipped or scored, never miscounted in silence."""
    good = np.zeros((40, 60), np.uint8)
    good[10:30, 10:50] = 2
    stretched = np.where(good > 0, 255, 0).astype(np.uint8)
    wrong = {
        "colours": png(np.stack([good] * 3, axis=-1)),
        "deep": png(good.astype(np.uint16)),
        "values": png(good * 40),
        "drawing": png(stretched),
        "size": png(good[:, :50]),
        "jpeg": tiny.jpeg(4),
        "dot": png(good[:1, :1]),
    }
    masks = wrong | {f"cut_{n}": content for n, content in enumerate(damaged(png(good), 23))}
    assert len(masks) == 30
    root = tmp_path / "data"
    classes = json.loads((trained / "config.json").read_text())["class_names"]
    tiny.unpack({f"masks/{name}.png": content for name, content in masks.items()}, root)
    for number, name in enumerate([*masks, "good"]):
        picture(root / "images" / f"{name}.jpg", seed=number)
    tiny.unpack({"masks/good.png": png(good)}, root)
    rows = [f"{name},{';'.join(classes)}" for name in [*masks, "good"]]
    (root / "labels.csv").write_text("\n".join(["name,labels", *rows]))
    # The run's own pictures are drawn; the same run with these is what a user has who trains on a folder.
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    values = json.loads((run / "config.json").read_text())
    values["config"]["data"] |= {"source": "folder", "root": str(root), "classes": classes}
    (run / "config.json").write_text(json.dumps(values))
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "out")
    assert (finished.code, "Traceback" in finished.err) == (0, False), finished.err
    skipped = {line.split(": ")[1].rpartition("/")[2] for line in finished.out.splitlines() if line.startswith("skip")}
    assert {f"{name}.png" for name in wrong} | {"cut_0.png", "cut_1.png"} <= skipped
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["scored"] == 31 - len(skipped) >= 1


TABLE = b"name,labels\n0,cat\n1,dog\n2,cat dog\n3,\n"


def data_set(kind: str, root: Path) -> Data:
    """A small data set in `root`, and how a config names it."""
    match kind:
        case "table":
            for number in range(4):
                picture(root / "images" / f"{number}.jpg", seed=number)
            tiny.unpack({"labels.csv": TABLE}, root)
            return Data(source="folder", root=str(root))
        case "instances" | "zip":
            tiny.coco_archives(root)
            return Data(source="coco14", root=str(root), train="train")
        case "tar":
            tiny.voc_archives(root)
            return Data(source="voc12", root=str(root), train="train")
        case "sbd":
            tiny.unpack(tiny.devkit(), root)
            tiny.unpack(tiny.sbd(), root / "benchmark_RELEASE" / "dataset")
            return Data(source="voc12", root=str(root), train="train_aug")
        case _:
            tiny.unpack(tiny.devkit(), root)
            return Data(source="voc12", root=str(root), train="train")


class Read(NamedTuple):
    """All there is of a data set."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    records: dict[str, Record]


def read(data: Data) -> Read:
    source = training_source(LPCAMConfig(data=data))
    records = [source[index] for index in range(len(source))]
    np.testing.assert_array_equal(source.labels, [record.labels for record in records])
    assert list(source.ids) == [record.id for record in records]
    return Read(source.class_names, source.labels, {record.id: record for record in records})


def assert_same_records(found: Read, expected: Read) -> None:
    assert found.class_names == expected.class_names
    assert found.records.keys() == expected.records.keys()
    for name, record in found.records.items():
        for ours, theirs in zip(record[1:], expected.records[name][1:], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


# Of each data set a file, its content, and how many damages of it.
FILES = {
    "table": ("labels.csv", TABLE, 16),
    "objects": ("Annotations/2007_000032.xml", tiny.devkit()["Annotations/2007_000032.xml"], 10),
    "mask": ("SegmentationClass/2007_000032.png", tiny.devkit()["SegmentationClass/2007_000032.png"], 10),
    "sbd": ("benchmark_RELEASE/dataset/cls/2010_000003.mat", tiny.sbd()["cls/2010_000003.mat"], 10),
    "instances": ("annotations/instances_train2014.json", json.dumps(tiny.coco_instances()).encode(), 16),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_a_data_set(tmp_path, kind):
    """An error that names it, or the records that it has without the damage."""
    file, content, count = FILES[kind]
    expected = read(data_set(kind, tmp_path / "whole"))
    for number, one in enumerate([content, *damaged(content, count, seed=len(kind))]):
        root = tmp_path / f"{kind}_{number}"
        data = data_set(kind, root)
        tiny.unpack({file: one}, root)
        try:
            found = read(data)
        except UserError as error:
            message = str(error)
        else:
            assert_same_records(found, expected)
            continue
        assert number > 0, message  # the first is whole
        assert Path(file).name in message, number
        assert message.isprintable()


LIST = "ImageSets/Segmentation/train.txt"


def read_or_refused(root: Path, content: bytes) -> Read | str:
    """VOC's pictures of train by a list of this content, or the message."""
    data = data_set("list", root)
    tiny.unpack({LIST: content}, root)
    try:
        return read(data)
    except UserError as error:
        return str(error)


def test_a_list_of_a_data_set(tmp_path):
    """An error that names it, or a picture of it that is not there; or the pictures that it names."""
    content = tiny.devkit()[LIST]
    expected = read(data_set("list", tmp_path / "whole"))
    for number, one in enumerate([content, *damaged(content, 12, seed=4)]):
        found = read_or_refused(tmp_path / f"list_{number}", one)
        if isinstance(found, str):
            assert number > 0, found
            assert Path(LIST).name in found, number
        else:  # cut at the end of a line, it is the list of fewer pictures
            ids = one.decode().split()
            assert found.records.keys() == set(ids)
            assert_same_records(found, expected._replace(records={name: expected.records[name] for name in ids}))


def test_a_damaged_list_is_named(tmp_path):
    assert Path(LIST).name in read_or_refused(tmp_path, b"2007_000032\n2008_0000\n")


@pytest.mark.parametrize(("kind", "name"), [("tar", "VOCtrainval_11-May-2012.tar"), ("zip", "train2014.zip")])
def test_archives(tmp_path, kind, name):
    """An error that names it or a file in it, or the records of its files as others unpack them."""
    data_set(kind, tmp_path / "whole")
    content = (tmp_path / "whole" / name).read_bytes()
    read_well = 0
    for number, one in enumerate([content, *damaged(content, 20)]):
        root = tmp_path / f"data_{number}"
        data = data_set(kind, root)
        (root / name).write_bytes(one)
        try:
            found = read(data)
        except UserError as error:
            message = str(error)
        else:
            # A tar knows no checksums of what is in it: a picture may have other pixels.
            unpacked = tmp_path / f"unpacked_{number}"
            checked = kind == "tar" and hasattr(tarfile, "data_filter")  # Python 3.11.4 has it
            shutil.unpack_archive(root / name, unpacked, **({"filter": "data"} if checked else {}))
            shutil.copytree(root, unpacked, ignore=shutil.ignore_patterns(name, "prepared"), dirs_exist_ok=True)
            assert_same_records(found, read(replace(data, root=str(unpacked))))
            read_well += 1
            continue
        assert number > 0, message
        assert name in message or re.search(r"\d{4}_\d{6}: damaged picture", message), number
    assert read_well >= 1


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1.weight": rng.normal(size=(4, 3, 7, 7)).astype(np.float32),
        "bn1.weight": np.ones(4, np.float32),
        "fc.weight": rng.normal(size=(10, 128)).astype(np.float32),
    }


def as_npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class Hostile:
    """Asks whoever unpickles it to leave a file."""

    def __reduce__(self):
        return Path.touch, (Path("/tmp/lpcam_jax_was_here"),)


def weight_files() -> Iterator[tuple[str, bytes]]:
    from safetensors.numpy import save

    arrays = weights()
    for suffix, content in ((".npz", as_npz(arrays)), (".safetensors", save(arrays))):
        for number, one in enumerate(damaged(content, 16)):
            yield f"cut_{number}{suffix}", one
    yield "nan.npz", as_npz({name: array * np.nan for name, array in arrays.items()})
    yield "shapes.npz", as_npz({name: array.T for name, array in arrays.items()})
    yield "text.npz", as_npz({"conv1.weight": np.array(["a"])})
    yield "objects.npz", as_npz({"conv1.weight": np.array([Hostile()], object)})
    yield "hostile.pth", pickle.dumps(Hostile())
    yield "hostile.pt", pickle.dumps({"conv1.weight": Hostile()})
    yield "pickle.npz", pickle.dumps(arrays)
    yield "folder.bin", b"PK\x05\x06" + bytes(18)


def test_forty_files_of_weights(program, tmp_path):
    """None of them is a backbone. (Files of torch itself, whole and damaged: test_torch_files.py.)"""
    files = dict(weight_files())
    assert len(files) == 40
    tiny.unpack(files, tmp_path)
    for name in files:
        finished = program("lpcam_jax.__main__", "convert", tmp_path / name, "--out", tmp_path / "out")
        assert_one_line_error(finished, "")
        assert name in finished.err
    assert not Path("/tmp/lpcam_jax_was_here").exists()
    assert not (tmp_path / "out" / "backbone.npz").exists()


@pytest.mark.rest
def test_twenty_four_files_of_a_run(program, trained, tmp_path, no_loose_ends):
    """A run whose files are damaged is refused in one line, or maps as before (what was hit is not read)."""
    gc.collect()  # what Orbax left behind in other tests, too: within `ast.parse`, its end breaks Python 3.11
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    checkpoint = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)) / "default"
    data = max(
        (path for path in checkpoint.rglob("*") if path.parent.name == "d"), key=lambda path: path.stat().st_size
    )

    def mapped(name: str) -> tuple[Finished, list[dict[str, np.ndarray]]]:
        """How infer.py ended, and the maps it wrote of the first picture."""
        finished = program("infer.py", "--ckpt", run, "--out", tmp_path / name, "--limit", 1)
        return finished, [read_arrays(file) for file in (tmp_path / name / "maps").glob("*.npz")]

    (expected,) = mapped("whole")[1]
    files = [run / "config.json", run / "prototypes.npz", checkpoint / "_METADATA", checkpoint / "manifest.ocdbt", data]
    for file, count in zip(files, (6, 6, 4, 4, 4), strict=True):
        whole = file.read_bytes()
        for number, content in enumerate(damaged(whole, count)):
            file.write_bytes(content)
            finished, maps = mapped(f"out_{file.name}_{number}")
            if number < 2 or finished.code:
                assert_one_line_error(finished, "")
            elif file.name != "config.json":  # another number in there may be another run
                for name, array in expected.items():
                    np.testing.assert_array_equal(maps[0][name], array, err_msg=f"{name}, {file.name} {number}")
            gc.collect(1)
        file.write_bytes(whole)
    finished, (maps,) = mapped("out")
    assert finished.code == 0, finished.err
    np.testing.assert_array_equal(maps["lpcam"], expected["lpcam"])
