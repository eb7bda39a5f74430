"""Whatever the terminal, what is printed arrives: letters that it does not have are escaped."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY

PRINTS = """
import sys
from tqdm import tqdm
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.programs import run_program

def main():
    print("τ of été and 猫, caf\\udce9.jpg")
    tqdm.write("τ of été and 猫, caf\\udce9.jpg")
    for _ in tqdm(range(2), "été"):
        pass
    raise UserError("no été, no caf\\udce9.jpg; choose τ")

run_program(main)
"""


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"\u03c4 of \xe9t\xe9 and \u732b, caf\udce9.jpg"),
        ({"PYTHONIOENCODING": "latin-1"}, rb"\u03c4 of " + "été".encode("latin-1") + rb" and \u732b, caf\udce9.jpg"),
        ({"PYTHONIOENCODING": "utf-8:strict"}, "τ of été and 猫, ".encode() + rb"caf\udce9.jpg"),
        ({"LC_ALL": "C"}, "τ of été and 猫, ".encode() + rb"caf\udce9.jpg"),  # which Python takes for UTF-8
        (
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            rb"\u03c4 of \xe9t\xe9 and \u732b, caf\udce9.jpg",
        ),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_letters_that_the_terminal_does_not_have_are_escaped(tmp_path, settings, line):
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, tmp_path / "prints.py"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", **settings},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stdout.splitlines() == [line, line]
    assert finished.stderr.splitlines()[-1].startswith(b"error: no ")
    assert b"Traceback" not in finished.stderr
