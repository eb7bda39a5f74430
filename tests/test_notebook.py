"""The notebook runs from top to bottom on a run that `train.py` made, and shows something."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "lpcam_in_ten_cells.ipynb"

# In a process of its own: the sockets of the kernel end when they like. Without folders of kernels there is one kernel,
# of the Python that runs this.
EXECUTE = """
import sys
import nbclient, nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

notebook = nbformat.read(sys.argv[1], as_version=4)
kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
nbclient.NotebookClient(notebook, km=kernel, timeout=None).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code_cells(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def pictures(cell) -> list[dict]:
    return [output for output in cell["outputs"] if any(key.startswith("image/") for key in output.get("data", {}))]


@pytest.fixture
def executed(trained, tmp_path) -> dict:
    """The notebook after it ran in its folder, beside runs/demo."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(trained)
    (tmp_path / "notebooks").mkdir()
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    jupyter = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    environment = {**os.environ, "PYTHONPATH": path, **dict.fromkeys(jupyter, str(tmp_path / "jupyter"))}

    out = tmp_path / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(out)]
    finished = subprocess.run(command, cwd=tmp_path / "notebooks", env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.rest
@pytest.mark.skipif(
    not all(map(find_spec, ("nbclient", "nbformat", "ipykernel"))),
    reason="needs nbclient, nbformat and ipykernel: pip install -e '.[test]'",
)
def test_every_cell_runs_and_shows_something(executed):
    cells = code_cells(executed)
    assert all(printed(cell) or pictures(cell) for cell in cells)
    assert "6 classes: fox, pig, frog, toucan, owl, panda" in printed(cells[0])
    assert sum(len(pictures(cell)) for cell in cells) == 6
    before, after = printed(cells[2]).splitlines()[-1].removeprefix("probabilities ").split(" = ")
    assert before == after  # the logit is the mean of the map
    assert "prototypes: [2 2 2]" in printed(cells[-1])


def test_what_is_committed_ran_in_order_without_an_error_and_is_small(committed):
    cells = code_cells(committed)
    assert 1 <= len(cells) <= 10
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(printed(cell) or pictures(cell) for cell in cells)
    kinds = {output.get("name", output["output_type"]) for cell in cells for output in cell["outputs"]}
    assert kinds == {"stdout", "display_data"}
    assert NOTEBOOK.stat().st_size < 600_000


def test_every_code_cell_is_explained(committed):
    kinds = [cell["cell_type"] for cell in committed["cells"]]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2)
