"""What the operations of a traced network are in ONNX.

An operator is a function of the graph and an equation of the trace, and returns the tensor of each of its outputs.
Those of a single element at a time come first; they take values as they are held, all others with their repetitions.
"""

from collections.abc import Callable, Mapping
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np

from ...machine.errors import UserError
from .graph import Graph, Length, Lengths, Linear, Value


class Equation(NamedTuple):
    """An operation of the trace.

    Attributes:
        name: of the operation.
        inputs: its inputs.
        parameters: its parameters; lengths that depend on the batch are `graph.Linear`.
        outputs: lengths and dtype of each output.
    """

    name: str
    inputs: tuple[Value, ...]
    parameters: Mapping[str, Any]
    outputs: tuple[tuple[Lengths, np.dtype], ...]


Operator = Callable[[Graph, Equation], list[str]]


def _simple(operator: str, **attributes: Any) -> Operator:
    return lambda graph, equation: [graph.node(operator, *map(graph.small, equation.inputs), **attributes)]


def _composed(compose: Callable[..., str]) -> Operator:
    """Of a function (graph, *tensors) -> tensor."""
    return lambda graph, equation: [compose(graph, *map(graph.small, equation.inputs))]


def _convert(graph: Graph, equation: Equation) -> list[str]:
    [value], [(_, dtype)] = equation.inputs, equation.outputs
    tensor = graph.small(value)
    return [tensor if value.dtype == dtype else graph.node("Cast", tensor, to=graph.element_type(dtype))]


def _integer_pow(graph: Graph, equation: Equation) -> list[str]:
    [value], power = equation.inputs, equation.parameters["y"]
    tensor = graph.small(value)
    if power == 2:
        return [graph.node("Mul", tensor, tensor)]
    return [graph.node("Pow", tensor, graph.constant(np.array(power, value.dtype)))]


ELEMENTWISE: dict[str, Operator] = {
    "abs": _simple("Abs"),
    "add": _simple("Add"),
    "and": _simple("And"),
    "clamp": _composed(lambda graph, low, x, high: graph.node("Min", graph.node("Max", x, low), high)),
    "convert_element_type": _convert,
    "copy": _composed(lambda graph, x: x),
    "div": _simple("Div"),
    "eq": _simple("Equal"),
    "erf": _simple("Erf"),
    "erfc": _composed(lambda graph, x: graph.node("Sub", graph.constant(np.float32(1)), graph.node("Erf", x))),
    "exp": _simple("Exp"),
    "ge": _simple("GreaterOrEqual"),
    "gt": _simple("Greater"),
    "integer_pow": _integer_pow,
    "le": _simple("LessOrEqual"),
    "log": _simple("Log"),
    "logistic": _simple("Sigmoid"),
    "lt": _simple("Less"),
    "max": _simple("Max"),
    "min": _simple("Min"),
    "mul": _simple("Mul"),
    "ne": _composed(lambda graph, x, y: graph.node("Not", graph.node("Equal", x, y))),
    "neg": _simple("Neg"),
    "not": _simple("Not"),
    "or": _simple("Or"),
    "pow": _simple("Pow"),
    "rsqrt": _composed(lambda graph, x: graph.node("Reciprocal", graph.node("Sqrt", x))),
    "select_n": _composed(lambda graph, which, no, yes: graph.node("Where", which, yes, no)),
    "sign": _simple("Sign"),
    "sqrt": _simple("Sqrt"),
    "square": _composed(lambda graph, x: graph.node("Mul", x, x)),
    "stop_gradient": _composed(lambda graph, x: x),
    "sub": _simple("Sub"),
    "tanh": _simple("Tanh"),
}


def _reshape(graph: Graph, equation: Equation) -> list[str]:
    [value], [(lengths, _)] = equation.inputs, equation.outputs
    return [reshaped(graph, graph.full(value), lengths)]


def reshaped(graph: Graph, tensor: str, lengths: Lengths) -> str:
    """A tensor with the same elements and these lengths."""
    free = [isinstance(length, Linear) for length in lengths]
    if sum(free) == 1:  # ONNX finds a single one by itself
        lengths = tuple(-1 if one else length for one, length in zip(free, lengths, strict=True))
    return graph.node("Reshape", tensor, graph.vector(lengths))


def _transpose(graph: Graph, equation: Equation) -> list[str]:
    return [transposed(graph, graph.full(equation.inputs[0]), equation.parameters["permutation"])]


def transposed(graph: Graph, tensor: str, axes: tuple[int, ...]) -> str:
    """A tensor whose axes are these of another."""
    return graph.node("Transpose", tensor, perm=list(axes))


def _slice(graph: Graph, equation: Equation) -> list[str]:
    [value], parameters = equation.inputs, equation.parameters
    steps = parameters["strides"] or (1,) * len(value.lengths)
    return [_part(graph, value, parameters["start_indices"], parameters["limit_indices"], steps)]


def _reverse(graph: Graph, equation: Equation) -> list[str]:
    [value] = equation.inputs
    axes = equation.parameters["dimensions"]
    steps = [-1 if axis in axes else 1 for axis in range(len(value.lengths))]
    starts = [-1 if step < 0 else 0 for step in steps]
    ends = [np.iinfo(np.int64).min if step < 0 else np.iinfo(np.int64).max for step in steps]
    return [_part(graph, value, starts, ends, steps)]


def _part(graph: Graph, value: Value, starts: Any, ends: Any, steps: Any) -> str:
    vectors = [graph.vector(tuple(one)) for one in (starts, ends, range(len(value.lengths)), steps)]
    return graph.node("Slice", graph.full(value), *vectors)


def _split(graph: Graph, equation: Equation) -> list[str]:
    [value], axis = equation.inputs, equation.parameters["axis"]
    parts, start = [], Linear(0, 0)
    for length in equation.parameters["sizes"]:
        end = _sum(start, length)
        indices = [graph.vector((bound,)) for bound in (start, end, axis)]
        parts.append(graph.node("Slice", graph.full(value), *indices))
        start = end
    return parts


def _sum(start: Linear, length: Length) -> Linear:
    length = length if isinstance(length, Linear) else Linear(0, int(length))
    return Linear(start.times + length.times, start.more + length.more)


def _concatenate(graph: Graph, equation: Equation) -> list[str]:
    return [graph.node("Concat", *map(graph.full, equation.inputs), axis=equation.parameters["dimension"])]


def _pad(graph: Graph, equation: Equation) -> list[str]:
    value, filling = equation.inputs
    before, after, between = zip(*equation.parameters["padding_config"], strict=True)
    if any(between):
        raise _unknown("pad between positions")
    pads = graph.constant(np.array([*before, *after], np.int64))
    return [graph.node("Pad", graph.full(value), pads, graph.full(filling))]


def _reduce(operator: str) -> Operator:
    def reduce(graph: Graph, equation: Equation) -> list[str]:
        axes = graph.constant(np.array(equation.parameters["axes"], np.int64))
        return [graph.node(operator, graph.full(equation.inputs[0]), axes, keepdims=0)]

    return reduce


def _argmax(graph: Graph, equation: Equation) -> list[str]:
    [axis], [(_, dtype)] = equation.parameters["axes"], equation.outputs
    best = graph.node("ArgMax", graph.full(equation.inputs[0]), axis=axis, keepdims=0)
    return [graph.node("Cast", best, to=graph.element_type(dtype))]


def _max_pool(graph: Graph, equation: Equation) -> list[str]:
    parameters = equation.parameters
    if {*parameters["base_dilation"], *parameters["window_dilation"]} != {1}:
        raise _unknown("a maximum over a dilated window")
    window, margins = parameters["window_dimensions"], parameters["padding"]
    if window[0] != 1 or window[-1] != 1:
        raise _unknown("a maximum over pictures or channels")
    rank = len(window)
    first = transposed(graph, graph.full(equation.inputs[0]), (0, rank - 1, *range(1, rank - 1)))
    before, after = zip(*margins[1:-1], strict=True)
    shape = {"kernel_shape": window[1:-1], "strides": parameters["window_strides"][1:-1], "pads": [*before, *after]}
    return [transposed(graph, graph.node("MaxPool", first, **shape), (0, *range(2, rank), 1))]


def _convolution(graph: Graph, equation: Equation) -> list[str]:
    (pictures, kernel), parameters = equation.inputs, equation.parameters
    if set(parameters["lhs_dilation"]) != {1} or parameters["batch_group_count"] != 1:
        raise _unknown("a transposed convolution")
    before, after = zip(*parameters["padding"], strict=True)
    if min(*before, *after) < 0:
        raise _unknown("a convolution that crops")
    axes = parameters["dimension_numbers"]
    weights = kernel.array
    weights = (
        transposed(graph, graph.full(kernel), axes.rhs_spec)
        if weights is None
        else graph.constant(weights.transpose(axes.rhs_spec))
    )
    result = graph.node(
        "Conv",
        transposed(graph, graph.full(pictures), axes.lhs_spec),
        weights,
        strides=parameters["window_strides"],
        dilations=parameters["rhs_dilation"],
        group=parameters["feature_group_count"],
        pads=[*before, *after],
    )
    return [transposed(graph, result, tuple(np.argsort(axes.out_spec)))]


def _product(graph: Graph, equation: Equation) -> list[str]:
    (contracted, other_contracted), (shared, other_shared) = equation.parameters["dimension_numbers"]
    left, right = equation.inputs
    ranks, tensors = [len(left.lengths), len(right.lengths)], [graph.full(left), graph.full(right)]
    if not shared and contracted == (ranks[0] - 1,) and other_contracted == (0,) and ranks[1] == 2:
        return [graph.node("MatMul", *tensors)]
    letters = iter(ascii_letters)
    names = [next(letters) for _ in range(ranks[0])]
    others = [next(letters) for _ in range(ranks[1])]
    for axis, other in zip((*shared, *contracted), (*other_shared, *other_contracted), strict=True):
        others[other] = names[axis]
    free = [names[axis] for axis in range(ranks[0]) if axis not in (*shared, *contracted)]
    free += [others[axis] for axis in range(ranks[1]) if axis not in (*other_shared, *other_contracted)]
    result = "".join([names[axis] for axis in shared] + free)
    return [graph.node("Einsum", *tensors, equation=f"{''.join(names)},{''.join(others)}->{result}")]


OPERATORS: dict[str, Operator] = {
    "argmax": _argmax,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _max_pool,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "transpose": _transpose,
}


def operate(graph: Graph, equation: Equation) -> list[Value]:
    """Write an operation.

    Args:
        graph: the graph.
        equation: the operation; at least one input or length depends on the pictures or their number.

    Returns:
        Its outputs.

    Raises:
        UserError: ONNX has it in another form than is known here.
    """
    if equation.name in ELEMENTWISE:
        held = repeated([value.held for value in equation.inputs])
        return [
            Value(tensor, lengths, held, dtype)
            for tensor, (lengths, dtype) in zip(
                ELEMENTWISE[equation.name](graph, equation), equation.outputs, strict=True
            )
        ]
    if equation.name not in OPERATORS:
        raise _unknown(equation.name)
    return [
        Value(tensor, lengths, lengths, dtype)
        for tensor, (lengths, dtype) in zip(OPERATORS[equation.name](graph, equation), equation.outputs, strict=True)
    ]


def repeated(of_inputs: list[Lengths]) -> Lengths:
    """Lengths of an element-wise result: along each axis those of the inputs that are not 1."""
    rank = max(map(len, of_inputs))
    aligned = [(1,) * (rank - len(one)) + one for one in of_inputs]
    return tuple(next((length for length in axis if length != 1), 1) for axis in zip(*aligned, strict=True))


def broadcast(graph: Graph, equation: Equation) -> Value:
    """`broadcast_in_dim`: axes of length 1 are added, and nothing is repeated yet."""
    [value], [(lengths, dtype)] = equation.inputs, equation.outputs
    places = equation.parameters["broadcast_dimensions"]
    held = [1] * len(lengths)
    for place, length in zip(places, value.held, strict=True):
        held[place] = length
    held = tuple(held)
    if not isinstance(value.content, str):
        return Value(value.content.reshape(held), lengths, held, dtype)
    content = value.content if held == value.held else reshaped(graph, value.content, held)
    return Value(content, lengths, held, dtype)


def _unknown(operation: str) -> UserError:
    return UserError(
        f"the network has an operation that the ONNX export does not know ({operation}); use --format stablehlo."
    )
