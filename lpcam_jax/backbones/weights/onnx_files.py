"""The arrays of ONNX files, read without ONNX.

    message    fields, each a key (number << 3 | kind) and a value; unknown ones are skipped
    value      kind 0: a varint; 1: eight bytes; 2: a varint, the length, and as many bytes; 5: four bytes
    varint     seven bits a byte, the lowest first; the top bit says that another byte follows

    ModelProto     7 graph
    GraphProto     1 node (repeated), 5 initializer (repeated)
    NodeProto      1 input (repeated names)
    TensorProto    1 dims (repeated, or packed), 2 data_type, 8 name, 9 raw_data (little-endian), 14 data_location

An export folds batch norm into its convolutions, whose arrays then have numbers for names. What remains known of them
is the order in which the network uses them: so they are returned in that order.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...machine.errors import UserError, reason

_MAX_DIMENSIONS, _MAX_SIZE = 32, 1 << 31
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_FIXED = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an ONNX file: its initializers.

    Args:
        path: a model, whose arrays are all in the file itself.

    Returns:
        Read-only arrays under the file's names, with the file's dtypes, in the order in which the nodes use them;
        those that no node uses are the last.

    Raises:
        UserError: the file cannot be read, is damaged, or holds arrays in other files or of other types.
    """
    try:
        graphs = [value for number, value in _fields(memoryview(path.read_bytes())) if number == 7]
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} graphs instead of one")
        used, arrays = [], {}
        for number, value in _fields(_message(graphs[0])):
            if number == 1:
                used += [_text(name) for place, name in _fields(_message(value)) if place == 1]
            elif number == 5:
                name, array = _tensor(_message(value))
                if name in arrays:
                    raise ValueError(f"two arrays with the name {name[:80]}")
                arrays[name] = array
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable ONNX file ({reason(error)}); download it again.") from None
    return {name: arrays[name] for name in dict.fromkeys([*used, *arrays]) if name in arrays}


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    """The name and the values of a TensorProto."""
    name, shape, kind, data, elsewhere = "", [], 0, None, 0
    for number, value in _fields(message):
        match number:
            case 1:
                shape += [value] if isinstance(value, int) else _varints(value)
            case 2:
                kind = _number(value)
            case 8:
                name = _text(value)
            case 9:
                data = _message(value)
            case 14:
                elsewhere = _number(value)
    if elsewhere:
        raise ValueError(f"{name[:80]} is in another file; save the model as a single file")
    if kind not in _DTYPES or data is None:
        raise ValueError(f"{name[:80]} is of type {kind}, or not stored as raw data")
    dtype = np.dtype(_DTYPES[kind])
    if len(shape) > _MAX_DIMENSIONS or max(shape, default=0) > _MAX_SIZE:
        raise ValueError(f"{name[:80]} has an impossible shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name[:80]} has {len(data)} bytes for the shape {tuple(shape)}")
    return name, np.frombuffer(data, dtype).reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The numbers and values of a message's fields."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
        else:
            size = _FIXED.get(kind)
            if kind == _BYTES:
                size, position = _varint(message, position)
            if size is None:
                raise ValueError(f"a field of kind {kind}")
            if size > len(message) - position:
                raise ValueError("it is truncated")
            value, position = message[position : position + size], position + size
        yield key >> 3, value


def _varints(packed: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(packed):
        value, position = _varint(packed, position)
        values.append(value)
    return values


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number of at most 64 bits at a position, and the position after it."""
    value = 0
    for shift, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, position + shift + 1
    raise ValueError("it is truncated")


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
