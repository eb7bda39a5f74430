"""Arrays of ONNX files, read without ONNX; the files are encoded here, by the rules of protobuf."""

import numpy as np
import pytest

from lpcam_jax.backbones.weights.files import read_weight_file
from lpcam_jax.machine.errors import UserError

TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10, "float64": 11}


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: np.ndarray, *, packed: bool = False, kind: int | None = None) -> bytes:
    sides = [*array.shape]
    dims = field(1, b"".join(map(varint, sides))) if packed else b"".join(field(1, side) for side in sides)
    kind = TYPES[array.dtype.name] if kind is None else kind
    return dims + field(2, kind) + field(8, name.encode()) + field(9, array.tobytes())


def model(arrays: dict[str, np.ndarray], order: list[str], **options) -> bytes:
    """A graph with a node for each name in `order`, which takes that array, before and after other inputs."""
    nodes = [field(1, field(1, b"x") + field(1, name.encode()) + field(2, b"y") + field(4, b"Conv")) for name in order]
    initializers = [field(5, tensor(name, array, **options)) for name, array in arrays.items()]
    graph = b"".join(nodes) + field(2, b"main") + b"".join(initializers) + field(11, field(1, b"input"))
    doubles = varint(15 << 3 | 1) + bytes(8) + varint(16 << 3 | 5) + bytes(4)  # kinds that are skipped
    return field(1, 6) + field(2, b"pytorch") + doubles + field(7, graph) + field(8, field(2, 11))


def test_arrays_have_names_types_and_shapes_and_come_as_the_network_uses_them(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{number}": (rng.normal(size=(2, 3, 1)) * 50).astype(kind) for number, kind in enumerate(TYPES)}
    order = [*reversed(arrays)][:5]
    for packed in (False, True):
        (tmp_path / "a.onnx").write_bytes(model(arrays, order, packed=packed))
        found = read_weight_file(tmp_path / "a.onnx")
        assert list(found) == [*order, *(name for name in arrays if name not in order)]
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 graphs instead of one"),
        (field(7, b"") * 2, "2 graphs instead of one"),
        (field(7, 5), "a number where bytes belong"),
        (b"\x3b", "a field of kind 3"),
        (b"\xff" * 12, "it is truncated"),
        (field(7, field(5, tensor("w", np.float32([1]), kind=8))), "w is of type 8, or not stored as raw data"),
        (field(7, field(5, field(2, 1) + field(8, b"w"))), "w is of type 1, or not stored as raw data"),
        (field(7, field(5, tensor("w", np.float32([1])) + field(14, 1))), "w is in another file; save the model as a"),
        (field(7, field(5, tensor("w", np.float32([1])) + field(1, 3))), r"w has 4 bytes for the shape \(1, 3\)"),
        (field(7, field(5, tensor("w", np.float32([])) + field(1, 2**63))), "w has an impossible shape"),
        (field(7, field(5, tensor("w", np.float32([1]))) * 2), "two arrays with the name w"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_model_or_holds_other_arrays_is_one_line(tmp_path, content, reason):
    (tmp_path / "w.onnx").write_bytes(content)
    with pytest.raises(UserError, match=rf"w\.onnx is not a readable ONNX file \({reason}"):
        read_weight_file(tmp_path / "w.onnx")


def test_a_damaged_file_loads_or_is_one_line(tmp_path):
    path, rng = tmp_path / "w.onnx", np.random.default_rng(0)
    content = model({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.uint8)}, ["b", "a"])
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(len(content) + 1)] if rng.random() < 0.5 else content)
        for _ in range(rng.integers(1, 4)):
            if damaged:
                damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_weight_file(path)
        except UserError as error:
            lines = str(error).splitlines()
            assert len(lines) == 1, lines
