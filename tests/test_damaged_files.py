"""Two hundred damaged files, through the commands: one clear line and exit code 2, or skipped and counted.

The damages are drawn, but the same every time. None may end in a traceback, and none may hang.
"""

import gc
import io
import json
import pickle
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_benchmarks as tiny
from PIL import Image
from test_commands import assert_one_line_error, picture

NO_RUN = ("--stages", "prototypes")  # of a run without a classifier: whatever is read before it ends in one line


@pytest.fixture(autouse=True)
def _no_hang():
    """A command that takes a minute and a half over a tiny file hangs."""

    def stop(*_):
        raise TimeoutError("a command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(90)
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


def assert_clear(finished) -> None:
    """Done, or one line that says why not."""
    assert "Traceback" not in finished.err + finished.out
    if finished.code:
        assert_one_line_error(finished, "")


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
    assert f"{len(skipped)} pictures were skipped" in finished.out


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
    rows = [f"{name},{' '.join(classes)}" for name in [*masks, "good"]]
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


def variants(kind: str) -> dict[str, tuple[str, bytes]]:
    """name -> (file below the data set's root, its damaged content)."""
    voc, coco = tiny.devkit(), json.dumps(tiny.coco_instances()).encode()
    sources = {
        "table": ("labels.csv", b"name,labels\n0,cat\n1,dog\n2,cat dog\n3,\n", 16),
        "list": ("ImageSets/Segmentation/train.txt", voc["ImageSets/Segmentation/train.txt"], 12),
        "objects": ("Annotations/2007_000032.xml", voc["Annotations/2007_000032.xml"], 10),
        "mask": ("SegmentationClass/2007_000032.png", voc["SegmentationClass/2007_000032.png"], 10),
        "sbd": ("benchmark_RELEASE/dataset/cls/2010_000003.mat", tiny.sbd()["cls/2010_000003.mat"], 10),
        "instances": ("annotations/instances_train2014.json", coco, 16),
    }
    file, content, count = sources[kind]
    return {f"{kind}_{n}": (file, one) for n, one in enumerate(damaged(content, count, seed=len(kind)))}


DATA = {kind: variants(kind) for kind in ("table", "list", "objects", "mask", "sbd", "instances")}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, group in DATA.items() for name in group])
def test_a_file_of_a_data_set(program, tmp_path, kind, name):
    root, (file, content) = tmp_path / "data", DATA[kind][name]
    words = ["configs/voc12.py", "--data.train", "train"]
    if kind == "table":
        words = ["configs/folder.py"]
        for number in range(4):
            picture(root / "images" / f"{number}.jpg", seed=number)
    elif kind == "instances":
        words = ["configs/coco14.py"]
        tiny.coco_archives(root)
    else:
        tiny.unpack(tiny.devkit(), root)
        if kind == "sbd":
            words += ["--data.seeds", "train_aug"]
            tiny.unpack(tiny.sbd(), root / "benchmark_RELEASE" / "dataset")
    tiny.unpack({file: content}, root)
    finished = program("train.py", *words, "--data.root", root, "--workdir", tmp_path / "run", *NO_RUN)
    assert_one_line_error(finished, "")
    if not content or content == b"no such format":
        assert Path(file).stem in finished.err


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_ten_archives(program, tmp_path, kind):
    archives = tiny.voc_archives if kind == "tar" else tiny.coco_archives
    recipe = "configs/voc12.py" if kind == "tar" else "configs/coco14.py"
    whole = archives(tmp_path / "whole")
    name = "VOCtrainval_11-May-2012.tar" if kind == "tar" else "train2014.zip"
    for number, content in enumerate(damaged((whole / name).read_bytes(), 10)):
        root = tmp_path / f"data_{number}"
        shutil.copytree(whole, root)
        (root / name).write_bytes(content)
        words = ("--data.root", root, "--workdir", tmp_path / f"run_{number}", *NO_RUN)
        assert_one_line_error(program("train.py", recipe, *words), "")


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


def test_twenty_four_files_of_a_run(program, trained, tmp_path, no_loose_ends):
    """A run whose files are damaged is refused in one line, or works (what was hit is not read)."""
    gc.collect()  # what Orbax left behind in other tests, too: within `ast.parse`, its end breaks Python 3.11
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    checkpoint = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)) / "default"
    data = max(
        (path for path in checkpoint.rglob("*") if path.parent.name == "d"), key=lambda path: path.stat().st_size
    )
    files = [run / "config.json", run / "prototypes.npz", checkpoint / "_METADATA", checkpoint / "manifest.ocdbt", data]
    for file, count in zip(files, (6, 6, 4, 4, 4), strict=True):
        whole = file.read_bytes()
        for number, content in enumerate(damaged(whole, count)):
            file.write_bytes(content)
            out = tmp_path / f"out_{file.name}_{number}"
            finished = program("infer.py", "--ckpt", run, "--out", out, "--limit", 1)
            assert_clear(finished)
            if number < 2:
                assert finished.code == 2, (file, number)
            gc.collect(1)
        file.write_bytes(whole)
    finished = program("infer.py", "--ckpt", run, "--out", tmp_path / "out", "--limit", 1)
    assert finished.code == 0, finished.err
