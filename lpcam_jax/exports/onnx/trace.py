"""From a program to an ONNX model.

JAX traces a program for fixed shapes, and the batch is to be free. So it is traced twice, for two and for three
pictures; a length that differs is times * b + more, and all else is the same in both. What depends on no picture
(folded weights, resizing matrices, position embeddings) is stored; JAX computes all of it in one program, while whose
trace the graph is written.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ... import __version__
from ...machine.devices import portable
from ..programs import Program
from .graph import INPUT, Graph, Length, Lengths, Linear, Value
from .operators import ELEMENTWISE, Equation, broadcast, operate

_BATCHES = (2, 3)
# Calls of functions, which are written out: name of the operation -> its parameter with what is called.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
}


def onnx_model(program: Program) -> bytes:
    """The program as an ONNX model, for any batch.

    Args:
        program: the program, of a network of precision float32.

    Returns:
        The content of a .onnx file. Class names, run and step are in its metadata.

    Raises:
        UserError: the package onnx is not installed; the network is too large; or it has an operation that
            `operators` does not know.
    """
    shapes = [jax.ShapeDtypeStruct((count, *program.size, 3), jnp.uint8) for count in _BATCHES]
    with portable():
        traces = [jax.make_jaxpr(program.function)(shape) for shape in shapes]
    picture = Value(INPUT, lengths := (Linear(1, 0), *program.size, 3), lengths, np.dtype(np.uint8))
    graph, outputs = Graph(), {}

    def known(constants: Sequence[Any]) -> dict[str, jax.Array]:
        made = _written(graph, [trace.jaxpr for trace in traces], constants, [picture])
        outputs.update(zip(sorted(program.outputs), made, strict=True))  # JAX sorts the names of a dict
        graph.finish(outputs)
        return {name: array for name, array in graph.stored.items() if isinstance(array, jax.Array)}

    computed = jax.device_get(jax.jit(known)(traces[0].consts))
    arrays = graph.stored | computed
    metadata = {
        "class_names": json.dumps(list(program.class_names)),
        "outputs": json.dumps(dict(program.outputs)),
        "run": program.run,
        "step": str(program.step),
        "version": __version__,
    }
    return graph.model(picture, outputs, arrays, metadata)


def load_onnx(file_name: str, outputs: Sequence[str]) -> list[str]:
    """Lines of Python that open a file of this name and call it with `pictures`."""
    return [
        "import onnxruntime",
        f"program = onnxruntime.InferenceSession({file_name!r})",
        f"results = dict(zip({sorted(outputs)!r}, program.run(None, {{{INPUT!r}: pictures}})))",
    ]


def _written(
    graph: Graph, traces: Sequence[core.Jaxpr], constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    """Write a function that was traced twice; its outputs."""
    first, second = traces
    values = dict(zip(first.invars, inputs, strict=True))
    values.update(zip(first.constvars, map(Value.known, constants), strict=True))

    def value_of(variable: Any) -> Value:
        if isinstance(variable, core.Literal):
            return Value.known(np.asarray(variable.val, variable.aval.dtype))
        return values[variable]

    for one, other in zip(first.eqns, second.eqns, strict=True):
        taken = [value_of(variable) for variable in one.invars]
        if one.primitive.name in _CALLS:
            called = [_closed(equation.params[_CALLS[one.primitive.name]]) for equation in (one, other)]
            made = _written(graph, [function.jaxpr for function in called], called[0].consts, taken)
        else:
            made = _made(graph, one, other, taken)
        values.update(zip(one.outvars, made, strict=True))
    return [value_of(variable) for variable in first.outvars]


def _closed(function: core.ClosedJaxpr | core.Jaxpr) -> core.ClosedJaxpr:
    return function if isinstance(function, core.ClosedJaxpr) else core.ClosedJaxpr(function, [])


def _made(graph: Graph, one: core.JaxprEqn, other: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    """The outputs of an operation: computed if nothing in it depends on the pictures, written otherwise."""
    outputs = tuple(
        (_lengths(first.aval.shape, second.aval.shape), np.dtype(first.aval.dtype))
        for first, second in zip(one.outvars, other.outvars, strict=True)
    )
    parameters = {name: _merged(value, other.params[name]) for name, value in one.params.items()}
    equation = Equation(one.primitive.name, tuple(inputs), parameters, outputs)
    if equation.name == "broadcast_in_dim":
        return [broadcast(graph, equation)]
    if equation.name in ELEMENTWISE and not any(isinstance(value.content, str) for value in inputs):
        [(lengths, dtype)] = outputs
        arrays = jnp.broadcast_arrays(*(value.content for value in inputs))  # not repeated along the batch
        array = one.primitive.bind(*arrays, **one.params)
        return [Value(array, lengths, array.shape, dtype)]
    arrays = [value.array for value in inputs]
    depends = any(array is None for array in arrays)
    if not depends and not any(isinstance(length, Linear) for lengths, _ in outputs for length in lengths):
        made = one.primitive.bind(*arrays, **one.params)
        return list(map(Value.known, made if one.primitive.multiple_results else [made]))
    return operate(graph, equation)


def _merged(of_first: Any, of_second: Any) -> Any:
    """A parameter of both traces; lengths that differ are linear in the batch."""
    if isinstance(of_first, tuple) and len(of_first) and all(isinstance(one, int | np.integer) for one in of_first):
        return _lengths(of_first, of_second)
    return of_first


def _lengths(of_first: Sequence[int], of_second: Sequence[int]) -> Lengths:
    return tuple(map(_length, of_first, of_second))


def _length(of_first: int, of_second: int) -> Length:
    times = int(of_second) - int(of_first)
    return Linear(times, int(of_first) - times * _BATCHES[0]) if times else int(of_first)
