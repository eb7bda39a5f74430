"""A finished network as one function of pictures, to be used without this package: StableHLO, and what describes it.

    pictures uint8 (b, H, W, 3)  ->  {name: array (b, ...)}

The function holds parameters, mean and std; b is free, H and W are fixed. A system makes it (`System.program`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from .. import __version__
from ..machine.devices import portable
from ..systems.base import Program

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(program: Program) -> bytes:
    """The program for all of PLATFORMS, as `jax.export.deserialize` reads it."""
    shape = export.symbolic_shape(f"b, {program.size[0]}, {program.size[1]}, 3")
    # Not `devices.jit_forward`, whose compiler options are specific to this machine.
    with portable():
        exported = export.export(jax.jit(program.function), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    return bytes(exported.serialize())


def description(program: Program, *, load: list[str], **more: Any) -> dict[str, Any]:
    """Describe a file of the program, as plain JSON values.

    Args:
        program: the program.
        load: lines of Python that open the file and call it with `pictures`.
        **more: what is special of its format.
    """
    height, width = program.size
    return {
        "version": __version__,
        "jax": jax.__version__,
        **more,
        "run": program.run,
        "step": program.step,
        "class_names": list(program.class_names),
        "inputs": {"pictures": f"uint8 (b, {height}, {width}, 3), RGB, 0..255, any b; mean and std are in the program"},
        "outputs": dict(program.outputs),
        **({"without": program.without} if program.without else {}),
        "load": load,
    }


def load_stablehlo(file_name: str) -> list[str]:
    """Lines of Python that open a file of this name and call it with `pictures`."""
    return [
        "from jax import export",
        f"program = export.deserialize(bytearray(open({file_name!r}, 'rb').read()))",
        "results = program.call(pictures)",
    ]
