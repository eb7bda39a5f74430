"""The page of the functions: docstrings of all that is public, in the order of the paper."""

import inspect
import re
from textwrap import dedent
from types import ModuleType
from typing import Any

import lpcam_jax
from lpcam_jax import (
    class_activation,
    clustering,
    local_features,
    metrics,
    prototype_activation,
    prototypes,
    seeds,
)
from lpcam_jax.refine import affinity, crf, pixel_adaptive, random_walk
from lpcam_jax.systems.lpcam.trained_model import NamedMaps, TrainedModel
from lpcam_jax.systems.segmentation.trained_segmenter import Segmentation, TrainedSegmenter

INTRODUCTION = """# Functions

`import lpcam_jax as lp`: `load`, `UserError` and the sections from class_activation to metrics are `lp.NAME`; what
`load` returns is described here, and not imported. Each function of these sections works under `jax.jit` and `jax.vmap`
where its text does not say otherwise. Arrays are NHWC: `b` pictures, `h` by `w` positions, `d` channels, `c` classes,
`k` prototypes; `*b` is any number of leading axes. [In a notebook](../in_a_notebook.md) composes them, and
[the method](../method.md) explains them.
"""
PAPER = (class_activation, local_features, clustering, prototypes, prototype_activation, seeds, metrics)
# What `load` returns, each with what it returns when it is called; nobody else constructs them.
LOADED = (TrainedModel, NamedMaps, TrainedSegmenter, Segmentation)
# Not `lp.NAME`, but on the pages.
BEYOND = {
    affinity: ["spread"],
    crf: ["CRF", "label_unary", "softmax_unary", "mean_field"],
    pixel_adaptive: ["pixel_adaptive"],
    random_walk: ["random_walk"],
}
SIGNATURE = 100  # columns; a longer one has a line for each parameter


def files() -> dict[str, str]:
    """The page, by its path in the site's sources."""
    parts = [INTRODUCTION, "## Runs", *described("load", lpcam_jax.load)]
    parts += [part for kind in LOADED for part in described(kind.__name__, kind, constructed=False)]
    parts += ["### UserError", text(inspect.getdoc(lpcam_jax.UserError))]
    for module in PAPER:
        names = [name for name in vars(module) if name in lpcam_jax.__all__]
        parts += of_module(module, [name for name in names if vars(module)[name].__module__ == module.__name__])
    for module, names in BEYOND.items():
        parts += of_module(module, names)
    return {"reference/functions.md": "\n\n".join(parts)}


def of_module(module: ModuleType, names: list[str]) -> list[str]:
    """What a module says, and what is in it."""
    name = module.__name__.removeprefix("lpcam_jax.")
    parts = [f"## {name}", text(inspect.getdoc(module))]
    return parts + [part for name in names for part in described(name, getattr(module, name))]


def described(name: str, member: Any, *, level: int = 3, constructed: bool = True) -> list[str]:
    """A function, or a class with its methods: heading, signature (of a class that is `constructed`) and docstring."""
    call = [f"```python\n{signature(name, member)}\n```"] if constructed else []
    heading = name.replace("__", r"\_\_")
    parts = [f"{'#' * level} {heading}", *call, text(inspect.getdoc(member))]
    if inspect.isclass(member) and not issubclass(member, tuple):
        for method, function in vars(member).items():
            if inspect.isfunction(function) and (method == "__call__" or not method.startswith("_")):
                parts += described(f"{name}.{method}", function, level=level + 1)
    return parts


def signature(name: str, member: Any) -> str:
    """The call of a function."""
    # Where JAX and NumPy define their arrays is of no interest.
    its = re.sub(r"[\w.]+\.(Array|ndarray|Path)\b", r"\1", str(inspect.signature(member)))
    if len(line := f"{name}{its}") <= SIGNATURE:
        return line
    inside, _, returned = its.rpartition(")")
    lines, depth = [""], 0
    for letter in inside.removeprefix("("):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            lines.append("")
        else:
            lines[-1] += letter
    return "\n".join([f"{name}(", *(f"    {line.strip()}," for line in lines), f"){returned}"])


def text(docstring: str) -> str:
    """A docstring as Markdown: sections have a bold line, and each argument one of a list; equations are code."""
    parts = []
    for block in re.split(r"\n{2,}", docstring):
        heading, _, rest = block.partition("\n")
        if heading in ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:"):
            parts.append(f"**{heading.removesuffix(':')}**")
            parts.append(escaped(items(dedent(rest), named=heading not in ("Returns:", "Yields:"))))
        elif block.startswith("    "):
            parts.append(f"```text\n{dedent(block)}\n```")
        else:
            parts.append(escaped(block))
    return "\n\n".join(parts)


def items(lines: str, *, named: bool) -> str:
    """The entries of a section; where they are `named`, as a list."""
    if not named:
        return lines
    entries = re.split(r"\n(?! )", lines)
    return "\n".join(re.sub(r"^(\w+):", r"* `\1`:", " ".join(entry.split())) for entry in entries)


def escaped(markdown: str) -> str:
    """The same without what Markdown would take for emphasis or HTML, such as *b and < tau; code stays."""
    pieces = re.split(r"(`[^`]*`)", re.sub(r"^\* ", "\0", markdown, flags=re.MULTILINE))
    pieces = [piece if piece.startswith("`") else re.sub(r"([*<|])", r"\\\1", piece) for piece in pieces]
    return "".join(pieces).replace("\0", "* ")
