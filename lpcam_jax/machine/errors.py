"""The error that is meant for users: one line that says what is wrong, where, and how to fix it."""


class UserError(Exception):
    """Something outside the program is wrong, such as a file, a flag or a disk; the message is one complete line.

    `train.py`, `infer.py` and `python -m lpcam_jax` print it without a traceback and exit with code 2.
    """


def reason(error: Exception) -> str:
    """What another library says of an error, in at most 150 letters of one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 150 else f"{text[:150]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)
