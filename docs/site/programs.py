"""The pages of commands and recipes: what the programs themselves say with --help, when the site is built."""

import ast
import contextlib
import importlib
import io
import os
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from lpcam_jax.__main__ import COMMANDS
from lpcam_jax.commands.export import FORMATS
from lpcam_jax.config import registry
from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.config.recipes import recipes as recipe_files
from lpcam_jax.training.run import Run

COLUMNS = "100"
CHAINS = "chains"
COMMANDS_PAGE = """# Commands

In a clone, `python train.py`, `python infer.py` and `python -m lpcam_jax COMMAND`; installed, `lpcam COMMAND`. Each
prints what is below with `--help`. More flags of train.py depend on the recipe, those of infer.py on the run:
[recipes](recipes.md) has all.
"""
RECIPES_PAGE = """# Recipes

A recipe is a file with `get_config()`; every field of its config is a flag of train.py. Here are the first lines of
all; the result to expect and the commands are on top of each file. After the recipes of a system come its flags.
"""


def files() -> dict[str, str]:
    """The pages, by their paths in the site's sources."""
    return {"reference/commands.md": "\n\n".join(commands()), "reference/recipes.md": "\n\n".join(recipes())}


def help_of(command: str, *words: str) -> str:
    """What a command prints with --help, as a block of text."""
    module = importlib.import_module(f"lpcam_jax.commands.{command.replace('-', '_')}")
    printed = io.StringIO()
    with (
        patch.object(sys, "argv", [f"{command}.py" if command in ("train", "infer") else "python"]),
        patch.dict(os.environ, COLUMNS=COLUMNS),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        module.main([*words, "--help"])
    return f"```text\n{printed.getvalue().strip()}\n```"


def commands() -> list[str]:
    """The page of the commands, in parts."""
    parts = [COMMANDS_PAGE, table("command", [f"| [{name}](#{name}) | {what} |" for name, what in COMMANDS.items()])]
    for name in COMMANDS:
        parts += [f"## {name}", help_of(name)]
        if name == "export":
            formats = defaultdict(list)
            for kind, (flags, _) in FORMATS.items():
                formats[flags].append(kind)
            for kinds in formats.values():
                parts += [f"### export --format {', '.join(kinds)}", help_of(name, "--format", kinds[0])]
    return parts


def recipes() -> list[str]:
    """The page of the recipes, in parts, by the system that they train."""
    by_kind = defaultdict(dict)
    for name, file in recipe_files().items():
        tree = ast.parse(file.read_text())
        is_chain = any(isinstance(node, ast.FunctionDef) and node.name == "get_chain" for node in tree.body)
        first_line = ast.get_docstring(tree).partition("\n")[0]
        by_kind[CHAINS if is_chain else load_recipe(str(file)).kind][name] = first_line
    parts = [RECIPES_PAGE]
    with TemporaryDirectory() as folder:
        for kind in [*registry.kinds(), CHAINS]:
            rows = [f"| `configs/{name}.py` | {what} |" for name, what in by_kind[kind].items()]
            parts += [f"## {kind}", table("recipe", rows)]
            if kind == CHAINS:
                continue
            usual = min(by_kind[kind], key=lambda name: ("folder" not in name, "shapes" not in name))
            run = Run.create(Path(folder) / kind, registry.load_system(kind).config(), ("cat",)).directory
            parts += [f"### train.py with configs/{usual}.py", help_of("train", usual)]
            parts += [f"### infer.py with a run of {kind}", help_of("infer", "--ckpt", str(run))]
    return parts


def table(first: str, rows: list[str]) -> str:
    """A table of two columns."""
    return "\n".join([f"| {first} | what it is |", "|---|---|", *rows])
