"""The pages that somebody wrote: docs/*.md, and what is outside of docs/, with links that lead from page to page."""

import base64
import json
import os
import re
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).parents[2]
NAVIGATION = Path(__file__).with_name("navigation.md")
# Of files of the repository, their pages; those in docs/ are in the site without that folder.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
    "benchmarks/SEEDS.md": "benchmarks/SEEDS.md",
    "notebooks/lpcam_in_ten_cells.ipynb": "notebooks/lpcam_in_ten_cells.md",
}


def files() -> dict[str, str | bytes]:
    """Content of the pages and pictures, by their paths in the site's sources."""
    made = {}
    for path in [*(REPOSITORY / "docs").glob("*.*"), *(REPOSITORY / name for name in OUTSIDE)]:
        source = path.relative_to(REPOSITORY).as_posix()
        name = in_site(source)
        if path.suffix == ".png":
            made[name] = path.read_bytes()
        elif path.suffix == ".ipynb":
            text, pictures = notebook(json.loads(path.read_text()))
            made[name] = with_links(text, source)
            made |= {str(PurePosixPath(name).parent / picture): content for picture, content in pictures.items()}
        else:
            made[name] = with_links(path.read_text(), source)
    made["index.md"] += NAVIGATION.read_text()
    return made


def in_site(source: str) -> str:
    """Where a file of the repository is in the site's sources."""
    return OUTSIDE.get(source, source.removeprefix("docs/"))


def with_links(markdown: str, source: str) -> str:
    """The text of a file, with links to other files of the repository as links to their pages."""

    def to_page(match: re.Match) -> str:
        target, anchor = match.groups()
        page = in_site(os.path.normpath(PurePosixPath(source).parent / target))
        return f"]({os.path.relpath(page, PurePosixPath(in_site(source)).parent)}{anchor})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*|)\)", to_page, markdown)


def notebook(content: dict) -> tuple[str, dict[str, bytes]]:
    """A notebook as it was run.

    Args:
        content: the JSON of its file.

    Returns:
        Markdown; and the pictures in it by their names.
    """
    parts, pictures = [], {}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if drawn := next((kind for kind in ("png", "jpeg") if f"image/{kind}" in data), None):
                name = f"cell_{len(pictures)}.{drawn}"
                pictures[name] = base64.b64decode(data[f"image/{drawn}"])
                parts.append(f"![What the cell draws]({name})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts), pictures
