"""State dicts saved by torch, read without torch and without running any code in the file.

    zip      ARCHIVE/data.pkl, ARCHIVE/data/KEY (the numbers of one storage), ARCHIVE/byteorder      torch >= 1.6
    legacy   pickles of a magic number, the protocol, the system, the dict and the storages' keys; then, for each key,
             its count as int64 and its numbers                                                      before

A pickle is a program, and `pickle.load` runs it. The small interpreter here supports only the opcodes that build dicts,
lists, numbers and tensors. Classes and functions are mere names to it: it knows those that a tensor needs, and refuses
all others. It calls nothing, does not recurse, and allocates no more than the file itself holds.
"""

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from ...machine.errors import UserError, reason

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_STEPS = 250_000  # a state dict takes about 40 per entry
_MAX_OVERLAP = 16  # entries may share storages, but a small file must not expand into a large one
_DTYPES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
_FUNCTIONS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
}
_CONSTANTS = (
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass(frozen=True)
class _Name:
    """A class or function, represented by its name only."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A storage of `count` numbers in the file, and the range of them that is referred to."""

    key: str
    dtype: np.dtype
    count: int
    start: int
    size: int

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view into a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, data: bytes | memoryview) -> np.ndarray:
        """The view into the storage's bytes."""
        dtype = self.storage.dtype
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, data, (self.storage.start + self.offset) * dtype.itemsize, strides)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pth` file.

    Args:
        path: a file of `torch.save`, in the zip or the legacy format: a state dict, or a dict with exactly one inside
            (`{"epoch": 3, "state_dict": ...}`).

    Returns:
        Read-only arrays under the file's names, with the file's dtypes (bfloat16 as `jnp.bfloat16`); they may share
        memory. Entries that are not tensors are left out.

    Raises:
        UserError: the file cannot be read, is damaged, holds no state dict, or its pickle refers to anything but
            tensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            if start.startswith(b"PK"):
                arrays = _read_zip(file, size)
            elif is_legacy(start):
                arrays = _read_legacy(file.read())
            else:
                raise ValueError("neither a zip archive nor in torch's legacy format")
        if sum(array.nbytes for array in arrays.values()) > _MAX_OVERLAP * size:
            raise UserError("its entries overlap and would expand to many times the file's size")
    except UserError as error:
        raise UserError(
            f"{path} was refused: {error}. Nothing in it was run; where it was made, "
            "re-save the plain state dict with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        is_readable = isinstance(error, (ValueError, OSError, zipfile.BadZipFile))
        why = reason(error) if is_readable else "its pickle is invalid"
        raise UserError(f"{path} is not a readable torch file ({why}); download it again.") from None
    return arrays


def is_legacy(start: bytes) -> bool:
    """Whether the first 64 bytes of a file are those of torch's legacy format."""
    return start.startswith(b"\x80") and _MAGIC.to_bytes(10, "little") in start


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UserError("its archive is compressed, which torch never does")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its members claim more bytes than the file has")
        names = {member.filename for member in members}
        pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(pickles) != 1:
            raise ValueError(f"an archive with {len(pickles)} data.pkl files instead of one")
        folder = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        tree, _ = _interpret(io.BytesIO(archive.read(pickles[0])))

        def read(storage: _Storage) -> bytes:
            data = archive.read(f"{folder}data/{storage.key}")
            if len(data) < storage.bytes:
                raise ValueError(f"a storage of {storage.bytes} bytes has only {len(data)}")
            if order.strip() != b"big":
                return data
            return np.frombuffer(data[: storage.bytes], f"u{storage.dtype.itemsize}").byteswap().tobytes()

        return _arrays(tree, read)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _interpret(stream)[0] != _MAGIC or _interpret(stream)[0] != _PROTOCOL:
        raise ValueError("unknown magic number or protocol")
    _interpret(stream)  # information about the system that saved it; numbers are always little-endian
    tree, storages = _interpret(stream)
    keys, _ = _interpret(stream)
    data_of = {}
    for key in _only(list, keys):
        storage, count = storages[_only(str, key)], int.from_bytes(stream.read(8), "little")
        start = stream.tell()
        if count != storage.count or start + storage.bytes > len(data):
            raise ValueError(f"a storage of {storage.count} numbers is truncated or has another size")
        data_of[key] = memoryview(data)[start : start + storage.bytes]
        stream.seek(start + storage.bytes)
    return _arrays(tree, lambda storage: data_of[storage.key])


def _arrays(tree: Any, read: Callable[[_Storage], bytes | memoryview]) -> dict[str, np.ndarray]:
    tensors = _state_dict(tree)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    data = {key: read(storage) for key, storage in storages.items()}
    return {name: tensor.array(data[tensor.storage.key]) for name, tensor in tensors.items()}


def _state_dict(tree: Any) -> dict[str, _Tensor]:
    """The tensors of the dict that holds them: the outer one, or its only entry that does."""

    def holds_weights(value: Any) -> bool:
        # Checkpoints may store scalars, such as the best accuracy, as tensors beside the state dict.
        return type(value) is dict and any(type(item) is _Tensor and item.shape for item in value.values())

    if not holds_weights(tree):
        inner = {name: value for name, value in tree.items() if holds_weights(value)} if type(tree) is dict else {}
        if len(inner) > 1:
            raise UserError(f"it holds several state dicts, {', '.join(ascii(name)[:40] for name in list(inner)[:6])}")
        if not inner:
            raise UserError("it holds no state dict")
        (tree,) = inner.values()
    return {name: value for name, value in tree.items() if type(name) is str and type(value) is _Tensor}


def _interpret(stream: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """Interpret one pickle: the object that it builds, and the storages that it refers to, by key."""
    stack, marks, memo, storages = [], [], {}, {}

    def above_mark() -> list:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step == _MAX_STEPS:
            raise UserError(f"its pickle has more than {_MAX_STEPS:,} steps")
        match opcode.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in _LITERALS:
                stack.append(_LITERALS[name])
            case name if name in _CONSTANTS:
                stack.append(argument)
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                marks.append(len(stack) - int(opcode.name[-1]))
                stack.append(tuple(above_mark()))
            case "LIST" | "FROZENSET":
                stack.append(above_mark())
            case "DICT":
                stack.append(_dict(_pairs(above_mark())))
            case "APPEND":
                item = stack.pop()
                _only(list, stack[-1]).append(item)
            case "APPENDS" | "ADDITEMS":
                items = above_mark()
                _only(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                if opcode.name == "SETITEM":
                    marks.append(len(stack) - 2)
                pairs = _pairs(above_mark())
                _only(dict, stack[-1]).update(_dict(pairs))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" | "INST":
                stack.append(_name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                module, name = stack[-2:]
                stack[-2:] = [_name(f"{_only(str, module)}.{_only(str, name)}")]
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = _call(_only(_Name, stack[-1]).name, _only(tuple, arguments))
            case "BUILD":
                # Attributes of a state dict, such as the versions of its modules, and of old parameters.
                stack.pop()
                if type(stack[-1]) not in (dict, _Tensor):
                    raise UserError("its pickle sets attributes of something that is not a tensor")
            case "BINPERSID":
                storage = _storage(stack.pop())
                first = storages.setdefault(storage.key, storage)
                if (first.dtype, first.count) != (storage.dtype, storage.count):
                    raise ValueError("a storage has two sizes or types")
                stack.append(storage)
            case _:
                raise UserError(f"its pickle has an opcode {opcode.name}, which no state dict needs")
    return stack.pop(), storages


def _only(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a pickle with {type(value).__name__.strip('_')} where {kind.__name__.strip('_')} belongs")
    return value


def _pairs(items: list) -> Iterable[tuple]:
    return zip(items[::2], items[1::2], strict=True)


def _dict(pairs: Iterable[tuple]) -> dict:
    # Other keys (of optimizers, schedules) belong to no named tensor; the cost of hashing nested ones has no bound.
    return {key: value for key, value in pairs if type(key) in (str, int)}


def _name(name: str) -> _Name:
    if name not in _FUNCTIONS and name not in _DTYPES:
        raise UserError(f"its pickle refers to {name[:80]!a}, which no tensor needs")
    return _Name(name)


def _call(name: str, arguments: tuple) -> dict | _Tensor:
    match name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "collections.OrderedDict", ([*pairs],):  # Python 2
            return _dict(tuple(_only(list, pair)) for pair in pairs)
        case "torch._utils._rebuild_tensor", (storage, offset, shape, strides):
            return _tensor(storage, offset, shape, strides)
        case "torch._utils._rebuild_tensor_v2", (storage, offset, shape, strides, _, _):
            return _tensor(storage, offset, shape, strides)
        case "torch._utils._rebuild_parameter", (_Tensor() as tensor, _, _):
            return tensor
        case "torch.nn.parameter.Parameter", (_Tensor() as tensor,):  # torch < 0.4
            return tensor
    raise UserError(f"its pickle calls {name} in a way that torch does not")


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", _Name(name), str(key), _, count, *view) if name in _DTYPES and _is_count(count):
            start, size = 0, count
            match view:
                case [] | [None]:
                    pass
                case [(_, start, size)] if _is_count(start) and _is_count(size) and start + size <= count:
                    pass
                case _:
                    raise ValueError("a storage that is not part of another")
            return _Storage(key, np.dtype(_DTYPES[name]), count, start, size)
    raise ValueError("an invalid storage")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """A view into a storage, after checking that it fits and is not larger than the storage."""
    shape, strides = _only(tuple, shape), _only(tuple, strides)
    if not (type(storage) is _Storage and len(shape) == len(strides) <= 32):
        raise ValueError("a tensor without a storage or shape")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError("a tensor with an invalid size")
    numel = math.prod(shape)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if numel > storage.size or (numel and last >= storage.size) or offset > storage.size:
        raise UserError(f"it has a tensor of shape {shape} on a storage of {storage.size} numbers")
    return _Tensor(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62
