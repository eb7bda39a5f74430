"""The tutorial, followed to the letter: command after command, then its Python; on fewer scenes and tiny networks."""

import re
import shlex
from pathlib import Path

import pytest
from test_docs import commands
from test_help import LESS, folder  # noqa: F401, the fixture: recipes as they are, of tiny networks

REPOSITORY = Path(__file__).parents[1]
# Run elsewhere: an example of --help, and the first command with another flag.
NOT_AGAIN = {"sweep", "runs/demo_k20"}
PAGE = (REPOSITORY / "docs" / "tutorial.md").read_text()


@pytest.fixture
def enough_scenes(folder):  # noqa: F811
    """The recipe of the segmentation network trains on the first 400 scenes; here there are 16."""
    recipe = folder / "configs" / "shapes_deeplab.py"
    recipe.write_text(recipe.read_text().replace("400", "12"))


@pytest.mark.rest
@pytest.mark.minutes
@pytest.mark.usefixtures("enough_scenes")
def test_every_command_works_after_those_before_it(program):
    blocks = "".join(re.findall(r"^```\n.*?^```\n", PAGE, re.MULTILINE | re.DOTALL))
    for words in commands(blocks):
        if not NOT_AGAIN.isdisjoint(words):
            continue
        name, rest = (f"{words[1]}.__main__", words[2:]) if words[0] == "-m" else (words[0], words[1:])
        less = [flag for one, flags in LESS.items() if one in rest for flag in flags]
        finished = program(name, *rest, *less)
        assert finished.code == 0, f"{shlex.join(words)}: {finished.err}"
    [notebook] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names = {}
    exec(notebook, names)
    assert names["mask"].shape == names["scene"].image.shape[:2]
    assert names["by_hand"].shape[:2] == names["features"].shape[:2]
