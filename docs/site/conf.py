"""The settings of Sphinx."""

import sys
from pathlib import Path

from pygments.lexers import TextLexer
from sphinx.highlighting import lexers

sys.path.insert(0, str(Path(__file__).parent))

project = "lpcam_jax"
copyright = "the authors of lpcam_jax, Apache-2.0"
extensions = ["myst_parser", "equations"]

# Pages are Markdown as GitHub shows it: links lead to files and to headings, $...$ and $$...$$ are equations.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 6
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "lpcam_jax"
html_static_path = ["style"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_search_summary = False  # its scripts may not read pages from a disk
html_permalinks_icon = "#"
smartquotes = False  # --flags stay
highlight_language = "text"
lexers["csv"] = TextLexer()  # GitHub knows it, Pygments does not
exclude_patterns = [".doctrees"]
