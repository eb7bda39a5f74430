"""Files of torch: the values torch would read, without torch; and nothing that a file says is ever done."""

import collections
import itertools
import os
import pickle
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax.backbones.weights.torch_files import read_state_dict
from lpcam_jax.machine.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C


# Pickles by hand: each function is the few bytes that build one thing.


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def text_of_python_2(value: str) -> bytes:
    return b"U" + len(value).to_bytes(1, "little") + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def table(entries: dict[str, bytes], *, text=text) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def called(name: str, *arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + group(*arguments) + b"R"


def storage(key: str, count: int, *, kind="FloatStorage", view=b"N") -> bytes:
    return group(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(count), view) + b"Q"


def tensor(where: bytes, shape=(2, 3), strides=(3, 1), *, offset=0) -> bytes:
    sides = group(*map(number, shape)), group(*map(number, strides))
    return called("torch._utils._rebuild_tensor_v2", where, number(offset), *sides, b"\x89", b"}")


def write_zip(path: Path, body: bytes, numbers: dict[str, bytes], *, order: bytes | None = None, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        if order:
            archive.writestr("archive/byteorder", order)
        for key, data in numbers.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def write_legacy(path: Path, body: bytes, numbers: dict[str, bytes], *, itemsize: int = 4) -> Path:
    keys = b"](" + b"".join(map(text, numbers)) + b"e"
    head = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    data = b"".join((len(data) // itemsize).to_bytes(8, "little") + data for data in numbers.values())
    path.write_bytes(b"".join([*head, b"\x80\x02" + body + b".", b"\x80\x02" + keys + b".", data]))
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}
SIX = np.arange(6, dtype=np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 400
    return message


# What is read.


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_tensors_are_views_of_their_storages(tmp_path, write):
    where = storage("7", 6)
    body = table({
        "whole": tensor(where),
        "turned": tensor(where, (3, 2), (1, 3)),
        "end": tensor(where, (2,), (1,), offset=4),
        "one": tensor(where, (), (), offset=5),
        "none": tensor(where, (0, 3), (3, 1)),
        "name": text("resnet"),
    })  # fmt: skip
    arrays = read_state_dict(write(tmp_path / "w.pth", body, {"7": SIX.tobytes()}))
    assert list(arrays) == ["whole", "turned", "end", "one", "none"]
    np.testing.assert_array_equal(arrays["whole"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(arrays["turned"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(arrays["end"], [4, 5])
    assert arrays["one"] == 5
    assert arrays["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("HalfStorage", "f2"),
        ("BFloat16Storage", jnp.bfloat16),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
        ("ShortStorage", "i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
    ],
)
def test_types_and_byte_orders(tmp_path, kind, dtype):
    values = np.array([1, 2, 3, 100], dtype)
    body = table({"a": tensor(storage("0", 4, kind=kind), (4,), (1,))})
    for order, stored in ((b"little", values), (b"big", values.view(f"u{values.itemsize}").byteswap())):
        array = read_state_dict(write_zip(tmp_path / "w.pth", body, {"0": stored.tobytes()}, order=order))["a"]
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array, values)


def test_a_file_of_python_2_and_the_first_torch(tmp_path):
    """As torchvision's resnet50-19c8e357.pth: an OrderedDict of pairs, parameters with a state, a view of a storage."""
    view = group(text_of_python_2("8"), number(2), number(3))
    sides = group(number(3)), group(number(1))
    plain = called("torch._utils._rebuild_tensor", storage("7", 6, view=view), number(0), *sides)
    parameter = called("torch.nn.parameter.Parameter", plain) + group(b"\x88", b"\x89", b"}") + b"b"
    pair = b"](" + text_of_python_2("conv1.weight") + parameter + b"e"
    body = called("collections.OrderedDict", b"](" + pair + b"e")
    arrays = read_state_dict(write_legacy(tmp_path / "w.pth", body, {"7": SIX.tobytes()}))
    np.testing.assert_array_equal(arrays["conv1.weight"], [2, 3, 4])


def test_the_state_dict_inside_a_checkpoint_is_found(tmp_path):
    where = storage("0", 6)
    inside = table({"conv1.weight": tensor(where)})
    optimizer = table({"state": table({"0": table({"momentum": tensor(where)})})})
    rest = {"best": tensor(where, (), ()), "epoch": number(3), "optimizer": optimizer}
    for name in ("state_dict", "model"):
        path = write_zip(tmp_path / f"{name}.pth", table({**rest, name: inside}), {"0": SIX.tobytes()})
        assert list(read_state_dict(path)) == ["conv1.weight"]
    path = write_zip(tmp_path / "two.pth", table({**rest, "model": inside, "ema": inside}), {"0": SIX.tobytes()})
    assert "several state dicts, 'model', 'ema'" in refusal(path)
    path = write_zip(tmp_path / "none.pth", table(rest), {"0": SIX.tobytes()})
    assert "holds no state dict" in refusal(path)


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved_by_torch(request, tmp_path):
    """A file that torch wrote, and what it holds according to torch."""
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    base = torch.randn(4, 6)
    entries = network.state_dict()
    entries |= {
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "turned": base.t(),
        "column": base[:, 2],
        "tail": base[2:],
        "parameter": torch.nn.Parameter(base),
        "flags": base > 0,
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    }
    path = tmp_path / "w.pth"
    torch.save(entries, path, _use_new_zipfile_serialization=request.param)
    values = {name: value.detach() for name, value in entries.items()}
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in values.items()}
    exact = {
        name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in values.items()
    }
    return path, exact, dtypes


def test_values_are_those_of_torch(saved_by_torch):
    path, exact, dtypes = saved_by_torch
    arrays = read_state_dict(path)
    assert list(arrays) == list(exact)
    for name, array in arrays.items():
        assert array.dtype.name == dtypes[name]
        np.testing.assert_array_equal(array.astype(exact[name].dtype), exact[name])


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = None  # any import of it fails
from lpcam_jax.backbones.weights.torch_files import read_state_dict
read_state_dict(Path(sys.argv[1]))  # codecs are imported
asked = []
sys.addaudithook(lambda event, arguments: asked.append((event, arguments)))
print(len(read_state_dict(Path(sys.argv[1]))))
assert {event for event, _ in asked} <= {"open"}, asked
"""


def test_torch_is_never_imported_and_nothing_is_run(tmp_path):
    path = write_zip(tmp_path / "w.pth", table({"a": tensor(storage("0", 6))}), {"0": SIX.tobytes()})
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


# What is refused.


class Command:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Evaluated(Command):
    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


class Restored(Command):
    """Not the constructor but `__setstate__` does the harm."""

    def __reduce__(self):
        return collections.OrderedDict, (), {"hook": Command(self.marker)}


class Calling:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return self.arguments


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("payload", [Command, Evaluated, Restored])
def test_nothing_is_run(tmp_path, write, payload):
    marker = tmp_path / "marker"
    payload = payload(marker)
    trees = {
        "alone": payload,
        "nested": {"state_dict": {"conv1.weight": {"hooks": payload}}},
        "in a list": [1, (2, [payload])],
        "as a state": Calling(collections.OrderedDict, (), payload),
    }
    for place, protocol in itertools.product(trees, (0, 2, 4)):
        pickled = pickle.dumps(trees[place], protocol)
        body = pickled.removeprefix(b"\x80\x02")[:-1] if protocol != 4 else pickled[2:-1]
        message = refusal(write(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))
        assert "was refused: its pickle refers to '" in message, (place, protocol)
        assert "system" in message or "eval" in message
        assert not marker.exists(), (place, protocol)


WHERE = storage("0", 6)


# What a pickle may try: (kind, why it is refused) -> pickles.
TRICKS = {
    ("functions of others", r"its pickle refers to '"): [
        b"ios\nsystem\n" + b"(" + text("true") + b"t",  # INST
        b"cos\nsystem\n" + b"(" + text("true") + b"tR",
        b"(cos\nsystem\n" + text("true") + b"o",  # OBJ
        b"\x8c\x02os\x8c\x06system\x93" + group(text("true")) + b"R",
        b"cbuiltins\ngetattr\n",
        b"ctorch\nload\n",
        b"ctorch.hub\nload\n",
        b"ctorch\nFloatStorage.__class__\n",
        b"ccollections\nOrderedDict.__init__\n",
    ],
    ("objects", r"has an opcode |sets attributes"): [
        b"ccollections\nOrderedDict\n" + b")\x81",  # NEWOBJ
        b"ccollections\nOrderedDict\n" + table({"__setstate__": b"N"}) + b"b",  # attributes of a class
        b"ctorch._utils\n_rebuild_tensor_v2\n" + group(b"N", table({"__code__": b"N"})) + b"b",
        b"\x82\x01",  # an extension of copyreg
        b"P0\n",
    ],
    ("arguments", r"in a way that torch|belongs|without a storage or shape|no count|with an invalid size"): [
        b"ccollections\nOrderedDict\n" + group(number(5)) + b"R",
        called("collections.OrderedDict", b"](" + text("ab") + b"e"),
        called("torch._utils._rebuild_tensor_v2"),
        called("torch._utils._rebuild_tensor_v2", text("a"), number(0), group(), group(), b"N", b"N"),
        called("torch._utils._rebuild_tensor_v2", WHERE, number(0), number(3), number(1), b"N", b"N"),
        called("torch._utils._rebuild_tensor_v2", WHERE, number(0), group(b"\x88"), group(number(1)), b"N", b"N"),
        called("torch._utils._rebuild_tensor_v2", WHERE, number(0), group(number(2)), group(), b"N", b"N"),
        called("torch._utils._rebuild_parameter", text("a"), b"N", b"N"),
        called("torch.FloatStorage", number(2**40)),
    ],
    ("tensors beside their storage", r"a tensor (of shape|with an? )|a tensor without|too big"): [
        table({"a": tensor(WHERE, (2**40,), (0,))}),
        table({"a": tensor(WHERE, (7,), (0,))}),
        table({"a": tensor(WHERE, (2, 3), (4, 1))}),
        table({"a": tensor(WHERE, (6,), (1,), offset=1)}),
        table({"a": tensor(WHERE, (6,), (-1,), offset=5)}),
        table({"a": tensor(WHERE, (3,), (1,), offset=-1)}),
        table({"a": tensor(WHERE, (-2, -3), (3, 1))}),
        table({"a": tensor(WHERE, (2**61, 0), (1, 1))}),
        table({"a": tensor(WHERE, (1,) * 40, (1,) * 40)}),
    ],
    ("storages", r"storage|Storage|its pickle is invalid"): [
        table({"a": tensor(storage("0", 2**50), (2,), (1,))}),
        table({"a": tensor(storage("0", -6), (2,), (1,))}),
        table({"a": tensor(storage("../data.pkl", 6))}),
        table({"a": tensor(storage("1", 6))}),
        table({"a": tensor(WHERE), "b": tensor(storage("0", 3, kind="DoubleStorage"), (1,), (1,))}),
        table({"a": tensor(storage("0", 6, view=group(text("1"), number(4), number(4))), (4,), (1,))}),
        table({"a": tensor(storage("0", 6, kind="QInt8Storage"))}),
    ],
    ("deep and huge", r"was refused|is not a readable"): [
        table({"a": tensor(WHERE)}) + b"]" * 250_000,
        b"0" * 250_000,
        b"](" * 100_000 + b"e" * 100_000,
        b")" + b"\x85" * 100_000,  # tuples in tuples
        b"}" + b")" + b"\x85" * 100_000 + b"Ns",  # one of them a key
        b"Nr\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff",  # a memo of four thousand million
        b"\x8e" + (2**40).to_bytes(8, "little"),
        b"\x8d" + (2**63).to_bytes(8, "little"),
        b"\x95" + (2**62).to_bytes(8, "little") + b"N",
        b"I" + b"9" * 100_000 + b"\n",
    ],
    ("no pickle", r"its pickle is invalid|an opcode POP|unknown"): [
        b"t",
        b"u",
        b"0",
        b"",
        b"\xff",
    ],
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(("kind", "reason"), TRICKS)
def test_tricks_are_refused(tmp_path, write, kind, reason):
    for number, body in enumerate(TRICKS[kind, reason]):
        path = write(tmp_path / f"{number}.pth", body, {"0": SIX.tobytes()})
        start = time.process_time()
        assert re.search(reason, refusal(path)), body[:30]
        assert time.process_time() - start < 20, body[:30]


def test_a_dict_of_this_kind_is_only_a_dict(tmp_path):
    """Names that mean something to Python mean nothing in a state dict."""
    state = table({"__class__": number(1), "__setstate__": number(2), "_metadata": table({})})
    body = called("collections.OrderedDict") + b"(" + text("__reduce__") + tensor(WHERE) + b"u" + state + b"b"
    assert list(read_state_dict(write_zip(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))) == ["__reduce__"]


def test_archives_that_would_unfold_are_refused(tmp_path):
    body = table({"a": tensor(storage("0", 25_000_000), (25_000_000,), (1,))})
    path = write_zip(tmp_path / "w.pth", body, {"0": bytes(10**8)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    assert "compressed" in refusal(path)
    body = table({f"a{i}": tensor(storage("0", 100_000), (100_000,), (1,)) for i in range(500)})
    path = write_zip(tmp_path / "w.pth", body, {"0": bytes(400_000)})
    assert "many times the file's size" in refusal(path)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_storage_that_is_shorter_than_claimed(tmp_path, write):
    path = write(tmp_path / "w.pth", table({"a": tensor(storage("0", 6))}), {"0": SIX.tobytes()[:-4]})
    assert "is not a readable torch file" in refusal(path)


def test_other_files(tmp_path):
    path = tmp_path / "w.pth"
    for content in (b"", b"PK", b"<html>404</html>", bytes(1000), pickle.dumps({"a": 1}), b"\x80\x02\x8a\nl\xfc\x9cF"):
        path.write_bytes(content)
        assert "is not a readable torch file" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "0 data.pkl files" in refusal(path)
    assert "is not a readable torch file" in refusal(tmp_path / "missing.pth")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_damaged_files_load_or_are_refused(tmp_path, write):
    body = table({name: tensor(storage(name, 6)) for name in "abc"})
    path = write(tmp_path / "w.pth", body, dict.fromkeys("abc", SIX.tobytes()))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in np.linspace(0, len(whole) - 1, 8, dtype=int):
        path.write_bytes(whole[:cut])
        refusal(path)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            arrays = read_state_dict(path)
            assert sum(array.size for array in arrays.values()) <= 18
        except UserError:
            refused += 1
    assert refused > 20
