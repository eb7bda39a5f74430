"""The classes that a folder of maps or masks was made for, by the protocol.json in it or beside it."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..config.json import class_names_in
from ..machine.errors import UserError
from .findings import choice, shown

# What infer.py writes beside its protocol.json; masks of other commands lie beside it, or have it among them.
_BESIDE = ("maps", "masks", "seeds", "pseudo_masks")


def expect_classes(directory: Path, class_names: Sequence[str]) -> None:
    """Expect that a folder was made for these classes, in this order; one that does not say it is taken as it is.

    Args:
        directory: of maps or masks.
        class_names: of the data set.

    Raises:
        UserError: it was made for others, or its protocol cannot be read.
    """
    made_for = classes_made_for(directory)
    if made_for is not None and made_for != tuple(class_names):
        raise UserError(
            f"{shown(directory)} was made for the classes {choice(made_for)}, the data set has {choice(class_names)}; "
            "name another folder, or choose its classes, in their order, with --data.classes."
        )


def classes_made_for(directory: Path) -> tuple[str, ...] | None:
    """The classes of the values 1, 2, ... of a folder's masks, or of its maps; None: nothing says it.

    Args:
        directory: of maps or masks.

    Raises:
        UserError: its protocol cannot be read.
    """
    for folder in (directory, *([directory.parent] if directory.name in _BESIDE else [])):
        file = folder / "protocol.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{shown(file)} cannot be read ({error}); make {shown(folder)} again.") from None
        maps = values.get("maps") if isinstance(values, dict) else None  # that masks were made from
        for names in (values, maps):
            try:
                return class_names_in(names)
            except ValueError:  # of another program, or made from maps of one
                continue
    return None
