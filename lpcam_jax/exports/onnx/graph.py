"""An ONNX graph while it is written: values of the traced program, nodes, and stored tensors.

What is known of the program, because it depends on no picture, is itself traced (`trace`): it is JAX's until the end.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...machine.errors import UserError

INPUT = "pictures"
# Of 2022, so that every onnxruntime of the last years opens the file.
_OPSET, _IR = 18, 8
_LARGEST = 2**31 - 2**20  # bytes of a file of protocol buffers


class Linear(NamedTuple):
    """A length that depends on the batch: times * b + more."""

    times: int
    more: int


Length = int | Linear
Lengths = tuple[Length, ...]
Known = jax.Array | np.ndarray


class Value(NamedTuple):
    """An array of the traced program.

    Attributes:
        content: the name of a tensor of the graph, or an array that depends on no picture.
        lengths: of its axes.
        held: lengths of the axes of the content: 1 where it is only to be repeated along an axis, which ONNX's
            element-wise operators do by themselves.
        dtype: of the elements.
    """

    content: str | Known
    lengths: Lengths
    held: Lengths
    dtype: np.dtype

    @classmethod
    def known(cls, array: Known) -> "Value":
        """Of an array that depends on no picture."""
        return cls(array, array.shape, array.shape, array.dtype)

    @property
    def array(self) -> Known | None:
        """What is known, with all its repetitions; None where it depends on the pictures or their number."""
        if isinstance(self.content, str) or any(isinstance(length, Linear) for length in self.lengths):
            return None
        return jnp.broadcast_to(self.content, self.lengths)


class Graph:
    """The nodes and stored tensors so far."""

    def __init__(self):
        self.onnx = _onnx()
        self.stored: dict[str, Known] = {}
        self._names: dict[Any, str] = {}
        self._nodes: list[Any] = []
        self._batch = ""

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output and return the name of its tensor."""
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Known) -> str:
        """The name of a stored tensor."""
        # Small ones that are written here, such as axes, are stored once; of others, each once.
        own = isinstance(array, np.ndarray) and array.size < 16
        key = (array.shape, array.dtype.str, array.tobytes()) if own else id(array)
        if key not in self._names:
            self._names[key] = f"stored_{len(self.stored)}"
            self.stored[self._names[key]] = array  # and so its id stays its own
        return self._names[key]

    def vector(self, lengths: Sequence[Length]) -> str:
        """Lengths as a tensor int64 (n,), computed from the batch if they depend on it."""
        if not any(isinstance(length, Linear) for length in lengths):
            return self.constant(np.array(lengths, np.int64))
        self._batch = self._batch or self.node("Shape", INPUT, start=0, end=1)
        pairs = [length if isinstance(length, Linear) else Linear(0, length) for length in lengths]
        times, more = (self.constant(np.array(part, np.int64)) for part in zip(*pairs, strict=True))
        return self.node("Add", self.node("Mul", self._batch, times), more)

    def small(self, value: Value) -> str:
        """The tensor of a value as it is held, for operators that repeat by themselves."""
        return value.content if isinstance(value.content, str) else self.constant(value.content)

    def full(self, value: Value) -> str:
        """The tensor of a value with all its repetitions."""
        tensor = self.small(value)
        return tensor if value.held == value.lengths else self.node("Expand", tensor, self.vector(value.lengths))

    def element_type(self, dtype: np.dtype) -> int:
        """ONNX's number of a dtype."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def finish(self, outputs: Mapping[str, Value]) -> None:
        """Name the outputs; nothing can be added after that."""
        for name, value in outputs.items():
            self._nodes.append(self.onnx.helper.make_node("Identity", [self.full(value)], [name]))

    def model(
        self,
        picture: Value,
        outputs: Mapping[str, Value],
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, str],
    ) -> bytes:
        """The file of the finished graph.

        Args:
            picture: the input.
            outputs: those of `finish`.
            arrays: what is `stored`, computed.
            metadata: texts that travel with the model.

        Raises:
            UserError: it would be too large.
        """
        helper, arrays = self.onnx.helper, self._without_copies(arrays)
        size = sum(array.nbytes for array in arrays.values())
        if size > _LARGEST:
            raise UserError(f"the network has {size / 2**30:.1f} GiB, an ONNX file at most 2; use --format stablehlo.")
        described = {
            name: helper.make_tensor_value_info(
                name,
                self.element_type(value.dtype),
                [length if isinstance(length, int) else "b" for length in value.lengths],
            )
            for name, value in {INPUT: picture, **outputs}.items()
        }
        graph = helper.make_graph(
            self._nodes,
            "lpcam_jax",
            [described[INPUT]],
            [described[name] for name in outputs],
            [self.onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="lpcam_jax"
        )
        helper.set_model_props(model, dict(metadata))
        return model.SerializeToString()

    def _without_copies(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Equal arrays once, such as the weights of a network that sees several scales; nodes take that one."""
        firsts, same = {}, {}
        for name, array in arrays.items():
            array = np.asarray(array)
            key = array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()
            same[name] = firsts.setdefault(key, name)
        for node in self._nodes:
            node.input[:] = [same.get(name, name) for name in node.input]
        return {name: np.asarray(arrays[name]) for name in firsts.values()}


def _onnx() -> Any:
    """The package onnx, with what is used of it; UserError if it is not installed."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise UserError(
            f"--format onnx needs the package onnx ({error}): pip install 'lpcam_jax[onnx]', or pip install onnx."
        ) from None
    return onnx
