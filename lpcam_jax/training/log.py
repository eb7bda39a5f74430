"""The numbers of a training run: JSON lines always, TensorBoard when tensorboardX is installed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..machine.errors import UserError
from ..machine.files import write_atomically


class MetricsLog:
    """One JSON object a line in `path`; lines after step `start` (of a run that was killed) are dropped."""

    def __init__(self, path: Path, *, start: int):
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= start:
                        kept.append(line + "\n")
                except (ValueError, KeyError):  # a line cut short by a kill
                    continue
        write_atomically(path, "".join(kept).encode())
        self._path, self._file, self._board = path, path.open("a", encoding="utf-8"), None
        if find_spec("tensorboardX"):
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start + 1)

    def write(self, values: dict[str, float]) -> None:
        """Add a line; `values` holds "step" and numbers."""
        with self._errors_in_one_line():
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        if self._board:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, values["step"])

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        if self._board:
            self._board.close()
        with self._errors_in_one_line():  # what could not be written is tried once more
            self._file.close()

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path} ({error.strerror}); free some space and run again.") from None


class Silence:
    """The log of a process that is not the first."""

    def write(self, values: dict[str, float]) -> None:
        """Write nothing."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_) -> None:
        pass
