"""What some systems ask of a network's grid."""

from typing import Any

from ..machine.errors import UserError


def expect_rounded_up_grid(config: Any, what: str) -> None:
    """Raise UserError if the network has more positions than the sides of a picture over the stride, rounded up.

    Args:
        config: of a run.
        what: needs such a grid, in words.
    """
    if getattr(config.model, "stem_pool", "") == "symmetric_ceil":
        raise UserError(
            f"--model.stem-pool symmetric_ceil: with DeepLab's pool a grid has a position more than {what} takes; give "
            "--model.stem-pool symmetric."
        )
