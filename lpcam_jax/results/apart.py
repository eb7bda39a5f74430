"""Output folders are kept apart from input folders: what a command reads, it does not write over."""

from pathlib import Path

from ..machine.errors import UserError


def keep_apart(out: Path, folder: Path) -> None:
    """Raise UserError if the output would be inside an input folder."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out} is in the input folder {folder}; choose another place.")


def whole_folder(directory: Path) -> Path:
    """The folder that infer.py wrote, of its maps/, masks/ or seeds/; any other directory is a whole of its own."""
    return directory.parent if (directory.parent / "protocol.json").exists() else directory
