"""The error that is meant for users: one line that says what is wrong, where, and how to fix it."""


class UserError(Exception):
    """Something outside the program is wrong, such as a file, a flag or a disk; the message is one complete line.

    `train.py`, `infer.py` and `python -m lpcam_jax` print it without a traceback and exit with code 2.
    """
