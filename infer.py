"""Apply a trained run to pictures: see `python infer.py --help`."""

import sys

from lpcam_jax.commands.infer import main
from lpcam_jax.machine.programs import run_program

if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
