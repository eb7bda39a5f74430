"""A page that opens from disk: a single HTML file that needs no network and runs no script but its own."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..machine.files import write_atomically


def write_page(path: Path, template: str, *, title: str, summary: Sequence[str], data: Any) -> None:
    """Fill one of the templates beside this file and write it.

    Args:
        path: the HTML file.
        template: name of the template, with {{policy}}, {{title}}, {{style}}, {{summary}}, {{data}} and {{script}};
            all pages share their style and script.
        title: the heading.
        summary: lines of text below it.
        data: plain JSON values for the page's script.

    Raises:
        UserError: the file cannot be written.
    """
    folder = files(__package__)
    # Style and script first, because the policy holds their hashes.
    page = folder.joinpath(template).read_text(encoding="utf-8")
    for part, file in (("style", "page.css"), ("script", "page.js")):
        page = page.replace(f"{{{{{part}}}}}", folder.joinpath(file).read_text(encoding="utf-8"))
    parts = {
        "policy": _policy(page),
        "title": escape(title),
        "summary": "".join(f"<p>{escape(line)}</p>" for line in summary),
        "data": _json(data),
    }
    # In one pass, so that braces in a name are not substituted.
    page = re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], page)
    write_atomically(path, page.encode(errors="backslashreplace"))


def url(path: str) -> str:
    """A path as a relative URL, quoted from the bytes of the file name."""
    return quote(os.fsencode(path))


def _policy(page: str) -> str:
    """The Content-Security-Policy: pictures, this style and this script, and nothing else."""
    hashes = {}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        hashes[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src 'self' file: data:; style-src 'sha256-{hashes['style']}'; "
        f"script-src 'sha256-{hashes['script']}'; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON in ASCII that no HTML parser mistakes for a tag or a comment.

    Lone surrogates, of file names that are not UTF-8, become the letters that a terminal shows (\\udce9): a browser has
    none for them, and would confuse such names.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text = re.sub("[\ud800-\udfff]", lambda lone: rf"\\u{ord(lone[0]):04x}", text)
    text = json.dumps(json.loads(text), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
