"""The error that is meant for users: one line that says what is wrong, where, and how to fix it."""


class UserError(Exception):
    """Something outside the program is wrong, such as a file, a flag or a disk; the message is one complete line.

    `train.py`, `infer.py` and `python -m lpcam_jax` print it without a traceback and exit with code 2.
    """


def reason(error: Exception, *, most: int = 150) -> str:
    """What another library says of an error, in at most `most` letters of one line."""
    return _short(" ".join(str(error).split()) or type(error).__name__, most)


def first_line(error: Exception) -> str:
    """Its first line alone, in at most 200 letters: what XLA and Orbax write below is of their own C++ and files."""
    return _short(next(iter(str(error).strip().splitlines()), type(error).__name__), 200)


def _short(text: str, most: int) -> str:
    text = text if len(text) <= most else f"{text[:most]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)
