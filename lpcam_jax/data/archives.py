"""Files of a data set, read in place: from an unpacked folder, a tar archive or a zip archive.

Names are relative to the folder that holds an anchor (`JPEGImages` of a VOC devkit), wherever it is in the archive.
Archives are never unpacked, so no entry can escape from a folder.
"""

import gzip
import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..machine.errors import UserError
from .findings import shown


class Published(NamedTuple):
    """The size in bytes of an archive as published, and the digest that was published or is in wide use."""

    size: int
    algorithm: str
    digest: str


# Sizes and SHA-256 as TensorFlow Datasets records them; SBD's MD5 as torchvision does.
PUBLISHED = {
    "VOCtrainval_11-May-2012.tar": Published(
        1_999_639_040, "sha256", "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
    ),
    "VOC2012test.tar": Published(
        1_850_626_560, "sha256", "f08582b1935816c5eab3bbb1eb6d06201a789eaa173cdf1cf400c26f0cac2fb3"
    ),
    "benchmark.tgz": Published(1_419_539_633, "md5", "82b4d87ceb2ed10f6038a1cba92111cb"),
    "train2014.zip": Published(
        13_510_573_713, "sha256", "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"
    ),
    "val2014.zip": Published(
        6_645_013_297, "sha256", "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"
    ),
    "annotations_trainval2014.zip": Published(
        252_872_794, "sha256", "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"
    ),
}


# Bytes after the end of a tar archive that only fill it up: 10 KiB by default, more if it was written for a tape.
_MOST_FILLING = 1 << 21


class Files:
    """Read-only files by name.

    Args:
        place: the folder or archive that holds them, for messages.
        names: all files of an archive; None for a folder, whose files are looked up on the disk.
        read: name -> content; raises KeyError or OSError for a missing file.
    """

    def __init__(self, place: Path, names: frozenset[str] | None, read: Callable[[str], bytes]):
        self.place, self._names, self._read = place, names, read

    def __contains__(self, name: str) -> bool:
        return name in self._names if self._names is not None else (self.place / name).is_file()

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in a folder, without the folder's own name."""
        if self._names is None:
            path = self.place / folder
            return sorted(file.name for file in path.iterdir() if file.is_file()) if path.is_dir() else []
        prefix = f"{folder}/"
        inside = (name.removeprefix(prefix) for name in self._names if name.startswith(prefix))
        return sorted(name for name in inside if "/" not in name)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return self._read(name)
        except PermissionError:
            raise UserError(f"{self.shown(name)}: no permission to read it; change the permissions") from None
        except (KeyError, FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.shown(name)}: no such file; download the data set again") from None
        except Exception as error:  # a damaged archive can raise anything
            raise UserError(f"{self.shown(name)}: cannot be read ({error}); download it again") from error

    def require(self, names: Sequence[str], what: str, *, named_in: str) -> None:
        """Check that files are present.

        Args:
            names: of the files.
            what: what they are, in the plural, for the message.
            named_in: the list that they are from, which may be what is damaged.

        Raises:
            UserError: some are missing; the message counts them and names the first.
        """
        absent = [name for name in names if name not in self]
        if absent:
            ellipsis = ", ..." if len(absent) > 3 else ""
            raise UserError(
                f"{shown(self.place)}: {len(absent)} of {len(names)} {what} are missing: "
                f"{', '.join(map(shown, absent[:3]))}{ellipsis} (named in {named_in}); unpack or "
                "download both again"
            )

    def shown(self, name: str) -> str:
        """A file's name for messages."""
        return shown(self.place / name)


def find_files(root: Path, anchor: str, *, folders: Sequence[str], archives: Sequence[str]) -> Files | None:
    """The first folder or archive below `root` that holds the anchor.

    Args:
        root: where the user keeps the data set.
        anchor: name of a file or folder that identifies it, such as `ImageSets/Segmentation/train.txt`.
        folders: candidates, relative to root.
        archives: glob patterns of names in root: .tar, .tgz, .tar.gz, .zip.

    Returns:
        Files, with names relative to the folder that holds the anchor; None if nothing matches.

    Raises:
        UserError: an archive is damaged, or its digest is not the published one.
    """
    for folder in folders:
        if (root / folder / anchor).exists():
            return Files(root / folder, None, lambda name, place=root / folder: (place / name).read_bytes())
    for pattern in archives:
        for path in sorted(root.glob(pattern)):
            if files := _open_archive(path, anchor):
                return files
    return None


def _open_archive(path: Path, anchor: str) -> Files | None:
    state = path.stat()
    note = _checked(path, state.st_size, state.st_mtime_ns)
    try:
        if path.suffix == ".zip":
            archive = zipfile.ZipFile(path)
            members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            read = archive.read
        elif path.suffix == ".tar":
            with tarfile.open(path, "r:", tarinfo=_Header) as archive:
                members = {member.name: (member.offset_data, member.size) for member in archive if member.isfile()}
                _expect_end(archive)

            def read(extent: tuple[int, int]) -> bytes:
                with path.open("rb") as file:
                    file.seek(extent[0])
                    content = file.read(extent[1])
                if len(content) < extent[1]:
                    raise EOFError("the archive is truncated")
                return content

        else:
            members = _compressed_members(path)
            read = bytes
    except PermissionError:
        raise UserError(f"{shown(path)}: no permission to read it; change the permissions of the file") from None
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{shown(path)}: not a readable archive ({error}){note}; download it again") from error
    prefix = _prefix(members, anchor)
    if prefix is None:
        return None
    inside = {name.removeprefix(prefix): member for name, member in members.items() if name.startswith(prefix)}
    return Files(path, frozenset(inside), lambda name: read(inside[name]))


def _prefix(names: dict, anchor: str) -> str | None:
    """The path in front of the anchor; of several anchors, the one nearest to the top."""
    inside = (f"/{name}/".partition(f"/{anchor}/") for name in names)
    prefixes = {before.removeprefix("/") for before, anchored, _ in inside if anchored}
    nearest = min(prefixes, key=lambda before: (before.count("/"), before), default=None)
    return f"{nearest}/" if nearest else nearest


def _compressed_members(path: Path) -> dict[str, bytes]:
    """All files but the pictures of a compressed tar archive, which can only be read from front to back."""
    members = {}
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    # Not by tarfile, which does not compare the checksum at the end.
    with (
        (gzip.open if is_gzip else open)(path, "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive,
    ):
        for member in tqdm(archive, f"reading {path.name}", unit="file", delay=2, leave=False):
            if member.isfile() and not member.name.lower().endswith((".jpg", ".jpeg")):
                members[member.name] = archive.extractfile(member).read()
        _expect_end(archive)
    return members


class _Header(tarfile.TarInfo):
    """A header of a tar archive; one that is damaged is an error, where tarfile takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        start = archive.offset
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # a block of zeros: the end, if another follows
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged at byte {start:,}: {error}") from None


def _expect_end(archive: tarfile.TarFile) -> None:
    """ReadError if the files that were read are not all: the end is two blocks of zeros, and then no header follows.

    One block of zeros alone is a header that was lost, and very many are what a download has not filled yet.
    """
    rest = archive.fileobj.read(_MOST_FILLING)
    blocks = [rest[start : start + tarfile.BLOCKSIZE] for start in range(0, len(rest), tarfile.BLOCKSIZE)]
    if any(rest[: tarfile.BLOCKSIZE]) or len(rest) == _MOST_FILLING or any(map(_is_header, blocks)):
        raise tarfile.ReadError(f"its files end at byte {archive.offset:,}, but the archive goes on")


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@lru_cache
def _checked(path: Path, size: int, changed: int) -> str:
    """A note for later errors if the archive does not have the published size; "" otherwise.

    The size and modification time are arguments so that a cached answer is never reused for changed content.

    Raises:
        UserError: the size is right but the digest is not.
    """
    published = PUBLISHED.get(path.name)
    if published is None:
        return ""
    if size != published.size:
        note = f"{size:,} bytes, the published one {published.size:,}"
        tqdm.write(f"note: {shown(path)} has {note}: an incomplete download, or another edition")
        return f"; it has {note}"
    digest = _digest(path, size, published.algorithm)
    if digest != published.digest:
        raise UserError(
            f"{shown(path)}: its {published.algorithm} is {digest}, the published one {published.digest}; "
            "download it again"
        )
    return ""


def _digest(path: Path, size: int, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with (
        path.open("rb") as file,
        tqdm(total=size, desc=f"checking {path.name}", unit="B", unit_scale=True, delay=1, leave=False) as bar,
    ):
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
