"""How a program ends: what is wrong outside of it is one line, a stop says that the same command goes on."""

import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import devices, processes
from .errors import UserError


def run_program(main: Callable[[], None]) -> None:
    """Run a program: a UserError is one line on stderr and exit code 2; Ctrl-C is one and 130, SIGTERM one and 143.

    So is what the machine is to blame for, such as memory that is full. All other errors are bugs, with a traceback.
    Of several processes, each ends when all are done, or any has failed.
    """
    _print_all_letters()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
        processes.wait()
    except UserError as error:
        processes.end(f"error: {as_called(' '.join(str(error).splitlines()))}", 2)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, _Terminated) else 130
        processes.end("stopped; the same command continues where it was.", code)
    except Exception as error:
        if (line := devices.complaint(error)) is not None:
            processes.end(f"error: {line}", 2)
        if not processes.are_joined():
            raise
        processes.end(traceback.format_exc().rstrip(), 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def called(command: str) -> str:
    """How a command was called: train.py, lpcam train, or python -m lpcam_jax train."""
    program = Path(sys.argv[0]).stem
    if program == command and _in_checkout():
        return f"{command}.py"
    return f"{'lpcam' if program == 'lpcam' else 'python -m lpcam_jax'} {command}"


def as_called(text: str) -> str:
    """A text with the commands in it as they can be called here.

    Args:
        text: what names train.py, infer.py and `python -m lpcam_jax`, as they are called in a checkout.

    Returns:
        The text with `lpcam train` and so on where the program was called so; without a checkout there is no train.py.
    """
    lpcam = Path(sys.argv[0]).stem == "lpcam"
    if _in_checkout() and not lpcam:
        return text
    program = "lpcam" if lpcam else "python -m lpcam_jax"
    text = re.sub(r"(python (?:train\.py|-m lpcam_jax (?:evaluate|chain))) configs/([\w/]+)\.py", r"\1 \2", text)
    return re.sub(
        r"(?<![\w/.])(?:python (?:-m lpcam_jax|(train|infer)\.py)|(train|infer)\.py)(?!\w)",
        lambda match: " ".join(filter(None, (program, match[1] or match[2]))),
        text,
    )


def _in_checkout() -> bool:
    """Whether the package is beside train.py, and not among installed packages."""
    return Path(__file__).parents[2].joinpath("train.py").is_file()


def _print_all_letters() -> None:
    """Letters that a terminal or a file does not have, and names that are not UTF-8, are escaped (\\u03c4, \\udce9).

    Python would end a program that prints them, which may have worked for hours.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, sent by schedulers before they kill a job; handled like Ctrl-C."""


def _terminate(*_: Any) -> None:
    raise _Terminated
