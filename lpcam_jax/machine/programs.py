"""How a program ends: what is wrong outside of it is one line, a stop says that the same command goes on."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
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
        processes.end(f"error: {' '.join(str(error).splitlines())}", 2)
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
