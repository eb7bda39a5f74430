"""MXNet's `.params` files, read without MXNet.

    file     uint64 0x112, uint64 0, uint64 n, n arrays, uint64 n, n names
    array    head, int32 device type, int32 device, int32 type of numbers, numbers
    head     version 2: uint32 0xF993FAC9, int32 storage type, uint32 dimensions, int64 sizes
             version 1: uint32 0xF993FAC8, uint32 dimensions, int64 sizes
             before (2016): uint32 dimensions, uint32 sizes
    name     uint64 length, bytes

Everything is little-endian. An array without dimensions ends after its head.
"""

import math
import struct
from pathlib import Path

import numpy as np

from ...machine.errors import UserError, reason

START = struct.pack("<Q", 0x112)
"""First bytes of every file."""
_VERSION_1, _VERSION_2 = 0xF993FAC8, 0xF993FAC9
_MAX_DIMENSIONS = 32
_DTYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4")))


def read_params(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.params` file.

    Args:
        path: a file of `mxnet.nd.save` or `Module.save_params`, of any of the three versions above.

    Returns:
        Read-only arrays under the file's names (`arg:conv1a_weight`), with the file's dtypes.

    Raises:
        UserError: the file cannot be read, is damaged, or holds a sparse array.
    """
    try:
        content = _Content(path.read_bytes())
        if content.take("Q") != 0x112:
            raise ValueError("its first bytes are others")
        content.take("Q")
        arrays = [_array(content) for _ in range(content.count())]
        names = [bytes(content.bytes(content.take("Q"))).decode() for _ in range(content.count())]
        if len(set(names)) != len(arrays) or len(names) != len(arrays):
            raise ValueError(f"{len(arrays)} arrays with {len(set(names))} names")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable file of MXNet ({reason(error)}); download it again.") from None
    return dict(zip(names, arrays, strict=True))


class _Content:
    """The bytes of a file, and a position in them."""

    def __init__(self, content: bytes):
        self._content, self._position = memoryview(content), 0

    def bytes(self, count: int) -> memoryview:
        """The next bytes."""
        start, self._position = self._position, self._position + count
        if self._position > len(self._content):
            raise ValueError("it is truncated")
        return self._content[start : self._position]

    def take(self, kind: str) -> int:
        """The next number, of a kind of `struct`."""
        return struct.unpack(f"<{kind}", self.bytes(struct.calcsize(f"<{kind}")))[0]

    def count(self) -> int:
        """The next number, of things that take four bytes or more each."""
        count = self.take("Q")
        if 4 * count > len(self._content) - self._position:
            raise ValueError("it is truncated")
        return count


def _array(content: _Content) -> np.ndarray:
    head, size = content.take("I"), "q"
    if head == _VERSION_2 and (storage := content.take("i")):
        raise ValueError(f"an array of storage type {storage}, which is sparse")
    if head in (_VERSION_1, _VERSION_2):
        dimensions = content.take("I")
    else:
        dimensions, size = head, "I"
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"an array of {dimensions} dimensions")
    shape = tuple(content.take(size) for _ in range(dimensions))
    if not shape:
        return np.zeros(0, np.float32)
    content.bytes(8)  # the device that it was on
    kind = content.take("i")
    if kind not in _DTYPES or min(shape) < 1:
        raise ValueError(f"an array of type {kind} and shape {shape}")
    dtype = np.dtype(_DTYPES[kind])
    return np.frombuffer(content.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
