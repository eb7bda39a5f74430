"""Equations as MathML, which browsers draw without a script or a font from elsewhere."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer, for `html_math_renderer`."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write an equation within a line."""
    writer.body.append(mathml(node, display="inline"))
    raise nodes.SkipNode


def block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write an equation of its own."""
    writer.body.append(f'<div class="equation">{mathml(node, display="block")}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, *, display: str) -> str:
    """The equation of a node; with a warning, if the converter does not know one of its commands."""
    converted = convert(node.astext(), display=display)
    if "\\" in converted:
        logging.getLogger(__name__).warning("no MathML for %s", node.astext(), location=node)
    return converted
