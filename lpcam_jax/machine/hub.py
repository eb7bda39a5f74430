"""Files and runs on the Hugging Face Hub, hf:OWNER/NAME[/FILE]: fetched once, then used without asking the Hub again.

A run there has a config.json that lists its other files (`training.packed`).
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError, reason

_NAME = r"\b[\w.-]{1,96}\b"  # as the Hub allows them; nor may they hold -- or .., or end with .git
_SECONDS = 5  # without a network, a download itself would retry for half a minute


def is_address(name: str | Path) -> bool:
    """Whether a name is of the Hub, not of this disk."""
    return str(name).startswith("hf:")


def file_of(address: str) -> str:
    """The local path of a file on the Hub, downloaded if necessary.

    Args:
        address: hf:OWNER/NAME/FILE; without FILE, model.safetensors.

    Raises:
        UserError: the address is none, the client is not installed, or the file cannot be downloaded.
    """
    repository, file = _parts(address)
    file = file or "model.safetensors"
    by_hand = f"fetch {file} by hand from https://huggingface.co/{repository} and give its path"
    hub = _client(address, by_hand)
    try:
        try:
            return hub.hf_hub_download(repository, file, local_files_only=True)
        except hub.errors.LocalEntryNotFoundError:
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=_SECONDS)
            return hub.hf_hub_download(repository, file)
    except Exception as error:  # from the network, the disk or the Hub, of different kinds in each version
        raise UserError(f"{address} cannot be downloaded ({reason(error)}); {by_hand}.") from None


def folder_of(name: str | Path) -> str | Path:
    """The folder of a run: that of an address, downloaded if necessary; any other name is the folder itself.

    Raises:
        UserError: as `file_of`; or the repository holds no run.
    """
    if not is_address(name):
        return name
    repository, file = _parts(name)
    config = Path(file_of(f"hf:{repository}/config.json"))
    files = _listed(config)
    if file or not files:
        raise UserError(
            f"{name} holds no run; a run is hf:OWNER/NAME, made by python -m lpcam_jax export --format hub."
        )
    if all((config.parent / one).is_file() for one in files):
        return config.parent
    by_hand = f"fetch its files by hand from https://huggingface.co/{repository} and give their folder"
    hub = _client(name, by_hand)
    try:
        return hub.snapshot_download(repository, allow_patterns=["config.json", *files])
    except Exception as error:
        raise UserError(f"{name} cannot be downloaded ({reason(error)}); {by_hand}.") from None


def is_run(name: str) -> bool:
    """Whether a name is of a run, in a folder or on the Hub, and not of a file of weights."""
    if not is_address(name):
        return bool(name) and Path(name, "config.json").is_file()
    repository, file = _parts(name)
    if file:
        return False
    with suppress(ImportError):
        import huggingface_hub as hub

        weights, config = (hub.try_to_load_from_cache(repository, one) for one in ("model.safetensors", "config.json"))
        if isinstance(weights, str) and not isinstance(config, str):  # as others' weights are left after a download
            return False
    try:
        return bool(_listed(Path(file_of(f"hf:{repository}/config.json"))))
    except UserError:  # whoever reads the weights says what is wrong
        return False


def _parts(address: str | Path) -> tuple[str, str | None]:
    """The repository, and the file in it if one is named."""
    match = re.fullmatch(rf"hf:({_NAME}/{_NAME})(?:/([\w./-]+))?", str(address))
    if match is None or re.search(r"--|\.\.|\.git$", match[1]):
        raise UserError(f"{str(address)!r} is not a file on the Hub; write hf:OWNER/NAME or hf:OWNER/NAME/FILE.")
    return match[1], match[2]


def _listed(config: Path) -> list[str]:
    """The files that the config.json of a run on the Hub lists; of anything else none."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        values: Any = json.loads(config.read_text(encoding="utf-8"))
        return [str(name) for name in values["files"]] if "class_names" in values else []
    return []


def _client(address: str | Path, by_hand: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{address} needs the Hub's client: pip install 'lpcam_jax[hub]', or {by_hand}.") from None
    return huggingface_hub
