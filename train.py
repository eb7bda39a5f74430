"""Train the system of a recipe: see `python train.py --help`."""

import sys

from lpcam_jax.commands.train import main
from lpcam_jax.machine.programs import run_program

if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
