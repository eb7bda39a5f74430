"""A program as an ONNX model: traced by JAX, written operator by operator.

trace.py walks the trace and computes what depends on no picture; operators.py says what each operation of JAX is in
ONNX; graph.py is the graph that they write, with the batch free.
"""

from .graph import INPUT
from .trace import load_onnx, onnx_model

__all__ = ["INPUT", "load_onnx", "onnx_model"]
