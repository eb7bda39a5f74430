"""Forms of a 3x3 convolution on CPUs, forward and gradients, each beside the others in turns.

    python -m benchmarks.convolutions

XLA's own, nine matrix products, and Winograd's, which the package takes where it suits. Checks that all agree; prints
Markdown, milliseconds, the best of six.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lpcam_jax.backbones.layers.winograd import at_dilation, trainable_winograd

# Pictures, side of the map, channels, stride, dilation.
SHAPES = (
    (16, 64, 64, 1, 1),
    (16, 32, 256, 1, 1),
    (8, 32, 512, 1, 1),
    (8, 32, 512, 1, 2),
    (4, 41, 512, 1, 4),
    (16, 64, 128, 2, 1),
    (8, 32, 512, 2, 1),
)
TURNS = 6


def main() -> None:
    """Compare and print."""
    names = ("forward", "gradient of the kernel", "gradient of the input")
    forms = ("XLA", "nine products", "Winograd")
    print(f"| pictures, side, channels, stride, dilation | {' | '.join(f'{n}: {f}' for n in names for f in forms)} |")
    print("|" + "---|" * (1 + len(names) * len(forms)))
    for shape in SHAPES:
        times = measured(*shape)
        cells = [f"{1000 * times[n, f]:.0f}" if (n, f) in times else "" for n in names for f in forms]
        print(f"| {', '.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)


def measured(b: int, side: int, channels: int, stride: int, dilation: int) -> dict[tuple[str, str], float]:
    """Seconds of (what, form)."""
    random, small = np.random.default_rng(0), -(-side // stride)
    sizes = (b, side, side, channels), (3, 3, channels, channels), (b, small, small, channels)
    x, kernel, cotangent = (jnp.asarray(random.normal(size=size), jnp.float32) for size in sizes)
    options = {"stride": stride, "dilation": dilation}
    of_forms: dict[str, Callable] = {"XLA": partial(xla, **options), "nine products": partial(products, **options)}
    if stride == 1:
        of_forms["Winograd"] = lambda x, kernel: at_dilation(trainable_winograd, x, kernel, dilation)
    programs = {}
    for form, convolve in of_forms.items():
        programs["forward", form] = jax.jit(lambda x, kernel, _, convolve=convolve: convolve(x, kernel))
        for what, number in (("gradient of the kernel", 1), ("gradient of the input", 0)):
            programs[what, form] = jax.jit(partial(gradient, convolve, number))
    results = {key: program(x, kernel, cotangent) for key, program in programs.items()}
    for (what, form), result in results.items():
        expected = results[what, "XLA"]
        assert jnp.abs(result - expected).max() < 1e-3 * jnp.abs(expected).max(), f"{what}: {form} disagrees"
    best = dict.fromkeys(programs, np.inf)
    for _ in range(TURNS):
        for key, program in programs.items():
            start = time.perf_counter()
            program(x, kernel, cotangent).block_until_ready()
            best[key] = min(best[key], time.perf_counter() - start)
    return best


def gradient(convolve: Callable, number: int, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Of the map (0) or of the kernel (1)."""
    inputs = [x, kernel]

    def of_one(value):
        return convolve(*inputs[:number], value, *inputs[number + 1 :])

    return jax.vjp(of_one, inputs[number])[1](cotangent)[0]


def xla(x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """XLA's convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def products(x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int) -> jax.Array:
    """A matrix product for each tap of the kernel; its gradients are nine products, too."""
    b, h, w, d = x.shape
    rows, columns = -(-h // stride), -(-w // stride)
    x = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    total = jnp.zeros((b * rows * columns, kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            top, left = row * dilation, column * dilation
            tap = x[:, top : top + h : stride, left : left + w : stride].reshape(-1, d)
            total += tap @ kernel[row, column]
    return total.reshape(b, rows, columns, -1)


if __name__ == "__main__":
    main()
