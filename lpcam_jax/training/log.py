"""The metrics of a training run as JSON lines, and for TensorBoard if tensorboardX is installed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from threading import enumerate as threads

from tqdm import tqdm

from ..machine.errors import UserError
from ..machine.files import write_atomically


class MetricsLog:
    """Writes metrics to a file, one JSON object per line.

    Args:
        path: The file. If it exists, it is continued.
        start: The last step to keep; lines of later steps, which a killed run wrote, are dropped.

    Raises:
        UserError: The file cannot be written; raised by all methods.
    """

    def __init__(self, path: Path, *, start: int):
        lines = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= start:
                        lines.append(line + "\n")
                except (ValueError, KeyError):  # a line that was cut off by a kill
                    continue
        write_atomically(path, "".join(lines).encode())
        self._path, self._file, self._board = path, path.open("a", encoding="utf-8"), None
        self._writers: set[Thread] = set()
        if find_spec("tensorboardX"):
            from tensorboardX import SummaryWriter

            before = set(threads())
            # With a queue that does not fill up between two of our looks at the thread that empties it.
            self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start + 1, max_queue=10_000)
            self._writers = set(threads()) - before

    def write(self, values: dict[str, float]) -> None:
        """Add a line.

        Args:
            values: The step, under "step", and the metrics.
        """
        with self._errors_in_one_line():
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        if self._board and not all(writer.is_alive() for writer in self._writers):
            # Nobody empties its queue any more: training would wait for room in it for ever.
            tqdm.write("note: TensorBoard's file cannot be written any more; metrics.jsonl has everything")
            self._board = None
        if self._board:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, values["step"])

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        with self._errors_in_one_line():  # closing writes what is still buffered
            self._file.close()
        if self._board and all(writer.is_alive() for writer in self._writers):
            with self._errors_in_one_line():
                self._board.close()

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path} ({error.strerror}); free some space and run again.") from None


class Silence:
    """The log of all processes but the first: it writes nothing."""

    def write(self, values: dict[str, float]) -> None:
        """Write nothing."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_) -> None:
        pass
