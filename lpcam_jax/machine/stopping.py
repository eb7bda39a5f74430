"""Being asked to stop, by Ctrl-C or SIGTERM, at a place where nothing is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Self

from . import processes

# Seconds within which a second signal is the same wish: a terminal and a parent may both send it.
_SAME = 1.0


def say_after_this_step(number: int) -> None:
    """Tell whoever waits; not by print, as the signal may have come within one."""
    try:
        os.write(2, b"\nstopping after this step; once more: at once\n")
    except OSError:  # nobody reads it any more, such as `tee`, which was stopped as well: bars must not fail by that
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)


class Stopping:
    """Within it, the first Ctrl-C or SIGTERM only says so, in `asked`; the next one, a second later, ends the program.

    So whoever works in steps can save after a step, and then call `end`; who leaves it after it was asked ends, too. Of
    several processes each has its own signals, at other steps: there, and outside of the main thread, signals are as
    ever.

    Args:
        tell: called with the number of the first signal, in its handler.

    Attributes:
        asked: number of the signal; None: there was none.
    """

    def __init__(self, tell: Callable[[int], None] = say_after_this_step) -> None:
        self.asked: int | None = None
        self._tell, self._since = tell, 0.0
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and not processes.are_joined():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):  # and not ignored, or left to the system
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None and self.asked is not None:
            self.end()

    def end(self) -> None:
        """End as the signal would have done."""
        self._before[self.asked](self.asked, None)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked, self._since = number, time.monotonic()
            self._tell(number)
        elif time.monotonic() - self._since > _SAME:
            self._before[number](number, frame)
