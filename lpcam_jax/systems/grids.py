"""What some systems ask of a network's grid."""

from typing import Any

from ..machine.errors import UserError


def expect_rounded_up_grid(config: Any, what: str, *, or_less: bool = False) -> None:
    """Raise UserError if a network may have another number of positions than the sides over the stride, rounded up.

    Args:
        config: of a run.
        what: needs such a grid, in words.
        or_less: whether a position less will do.
    """
    pool = getattr(config.model, "stem_pool", "")
    if pool == "symmetric_ceil" or (pool == "ceil" and not or_less):
        more = "less" if pool == "ceil" else "more"
        raise UserError(
            f"--model.stem-pool {pool}: with this pool some grids have a position {more} than {what} takes; give "
            "--model.stem-pool symmetric."
        )
