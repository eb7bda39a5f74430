"""Heat maps as the PyTorch repositories of the IRN family read them: one pickled dict per picture.

    np.load("ID.npy", allow_pickle=True).item()
        keys       int64 tensor (n,), classes from 0
        cam        float32 tensor (n, ceil(H / 4), ceil(W / 4)), each map divided by its maximum
        high_res   float32 array (n, H, W)

`keys` and `cam` are torch tensors, as in the files those repositories write: the random walk calls `cam.cuda()`.

A pickle is a program. It is assembled here instruction by instruction, for two reasons: so that writing it does not
need torch; and because pickles of NumPy 2 refer to modules that the NumPy of most of those repositories does not have.
It calls numpy.array, numpy.ndarray, torch.from_numpy and bytearray, nothing else. This package never loads one.
"""

import io
import pickle
import struct

import numpy as np

from ..class_activation import normalize, resize_bilinear

_STRIDE = 4


def irn_file(classes: np.ndarray, maps: np.ndarray) -> bytes:
    """The content of ID.npy.

    Args:
        classes: int (n,), from 0.
        maps: float (n, H, W), in [0, 1].

    Returns:
        The bytes of the file.

    Source: reference step "make_cam", whose strided map is resized from the feature grid; here, from the picture.
    """
    size = tuple(-(-side // _STRIDE) for side in maps.shape[1:])
    strided = normalize(resize_bilinear(np.moveaxis(maps.astype(np.float32), 0, -1), size))
    entries = {
        "keys": _call("torch", "from_numpy", _array(classes.astype("<i8"))),
        "cam": _call("torch", "from_numpy", _array(np.moveaxis(strided, -1, 0).astype("<f4"))),
        "high_res": _array(maps.astype("<f4")),
    }
    items = b"".join(_text(name) + value for name, value in entries.items())
    content = pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    file.write(pickle.PROTO + b"\x03" + _call("numpy", "array", content) + pickle.STOP)
    return file.getvalue()


def _call(module: str, function: str, *arguments: bytes) -> bytes:
    """Instructions that call a function of a module."""
    name = pickle.GLOBAL + f"{module}\n{function}\n".encode()
    return name + _tuple(*arguments) + pickle.REDUCE


def _array(array: np.ndarray) -> bytes:
    """Instructions that build an array, on a bytearray so that it is writable."""
    data = array.tobytes()
    shape = _tuple(*(pickle.BININT + struct.pack("<i", side) for side in array.shape))
    content = _call("builtins", "bytearray", pickle.BINBYTES + struct.pack("<I", len(data)) + data)
    return _call("numpy", "ndarray", shape, _text(array.dtype.str), content)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()
