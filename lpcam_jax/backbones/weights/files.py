"""Weight files as arrays under their own names: npz, torch, safetensors, MXNet, ONNX; also from the Hub."""

import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import deserialize

from ...machine import hub
from ...machine.errors import UserError, reason
from ...machine.files import read_arrays
from .mxnet_files import START, read_params
from .onnx_files import read_onnx
from .torch_files import is_legacy, read_state_dict

_KINDS = "an .npz, .pth, .pt, .bin, .safetensors, .params or .onnx file, or hf:OWNER/NAME"
_ENDINGS = {".npz": "npz", ".safetensors": "safetensors", ".params": "mxnet", ".onnx": "onnx"}
_ENDINGS |= dict.fromkeys((".pth", ".pt", ".bin"), "torch")
_SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": jnp.bfloat16, "BOOL": "?"} | {
    f"{sign}{bits}": f"{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)
}


def read_weight_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file of any supported format; no code in it is run.

    Args:
        path: an npz file, a torch state dict, a safetensors file, or one of MXNet or ONNX, detected by the content if
            possible and otherwise by the name; or `hf:OWNER/NAME[/FILE]` on the Hugging Face Hub, where FILE defaults
            to model.safetensors. An earlier download is used without asking the Hub again.

    Returns:
        The arrays under the file's names, with the file's dtypes (bfloat16 as `jnp.bfloat16`).

    Raises:
        UserError: the file does not exist, is damaged, or has no supported format.
    """
    file = Path(hub.file_of(str(path)) if hub.is_address(path) else path)
    try:
        if not file.exists():
            raise UserError(f"weights file {path} does not exist; give {_KINDS}.")
        if not file.is_file():
            raise UserError(f"{path} is not a file of weights; give {_KINDS}.")
        kind = _format(file)
    except OSError as error:
        raise UserError(f"weights file {path} cannot be read: {error.strerror or error}; give {_KINDS}.") from None
    match kind:
        case "npz":
            arrays = _read_npz(file)
        case "torch":
            arrays = read_state_dict(file)
        case "safetensors":
            arrays = _read_safetensors(file)
        case "mxnet":
            arrays = read_params(file)
        case "onnx":
            arrays = read_onnx(file)
        case _:
            raise UserError(f"{path} has no known format of weights; give {_KINDS}.")
    if invalid := [name for name in arrays if len(name) > 200 or not name.isprintable()]:
        raise UserError(f"{path} has an entry with the name {invalid[0][:80]!a}: it is damaged; download it again.")
    return arrays


def _format(file: Path) -> str | None:
    """The kind of a file by its content, if that is conclusive; otherwise by its name. Raises OSError."""
    with file.open("rb") as content:
        start = content.read(64)
        if start.startswith(b"PK"):
            try:
                with zipfile.ZipFile(content) as archive:
                    names = archive.namelist()
            except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
                names = []  # damaged: the reader for the kind that its name suggests will report how
            if any(name.endswith("data.pkl") for name in names):
                return "torch"
            if any(name.endswith(".npy") for name in names):
                return "npz"
    if is_legacy(start):
        return "torch"
    if start.startswith(START):
        return "mxnet"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size:
        return "safetensors"
    return _ENDINGS.get(file.suffix.lower())


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(2**30, 64 * file.stat().st_size):
            raise ValueError(f"it would expand to {unpacked / 2**30:,.0f} GiB")
        return read_arrays(file)
    except Exception as error:  # a damaged zip can raise anything
        raise UserError(
            f"{file} is not a readable npz file of arrays ({reason(error)}); export the weights again."
        ) from None


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        # safetensors.numpy does not support bfloat16 in all versions and functions.
        entries = deserialize(file.read_bytes())
        arrays = {}
        for name, entry in entries:
            count = int(np.prod(entry["shape"], dtype=object))
            dtype = _SAFETENSORS.get(entry["dtype"], f"V{len(entry['data']) // max(count, 1)}")
            arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    except Exception as error:
        raise UserError(f"{file} is not a readable safetensors file ({reason(error)}); download it again.") from None
    return arrays
