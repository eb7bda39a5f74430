"""The one error a user is meant to read: one line, what was found, where, and what to do."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a flag, a disk); the text is one complete line.

    `train.py`, `infer.py` and `python -m lpcam_jax` print it without a traceback and exit with code 2.
    """
