"""Picture files to arrays: the only module that opens them.

Every file is decoded to upright 8-bit RGB (in `masks.py`, to class indices), and every problem with a file is reported
as one line that names it.
"""

import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

from ..machine.errors import UserError
from .findings import Finding, Severity, say, shown
from .formats import COMPANIONS, FORMATS, SUFFIXES, UNREAD, how_to_read, suffix_of_content
from .records import Origin, Record
from .walk import Walk, apart, walk

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class Encoded(NamedTuple):
    """A picture file in memory, with a name for messages; accepted wherever a path is."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_picture(path: str | Path | Encoded, *, upright: bool = True, enough: int | None = None) -> np.ndarray:
    """Read the first frame as RGB; transparent parts become white, and 16-bit values keep their high byte.

    Values of 10, 12 or 14 bits stored in 16 without scaling come out nearly black. The file does not say how many bits
    are used, so they are not rescaled; a note warns about it.

    Args:
        path: the file.
        upright: apply the EXIF orientation; not for the benchmarks, whose masks match the pixels as stored.
        enough: pixels of the longest side that are enough: a JPEG of twice as many or more is decoded at a half, a
            quarter or an eighth of its sides, in a fraction of the time, but never to fewer than these; None: as it is.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UserError: the file is not a readable picture.
    """
    with opened(path) as image:
        _decode_less(image, enough)
        turn = _UPRIGHT.get(_orientation(image)) if upright else None
        image = _to_rgb(image, path)
        return np.array(image if turn is None else image.transpose(turn))


def picture_size(path: str | Path | Encoded, *, upright: bool = True, enough: int | None = None) -> tuple[int, int]:
    """(H, W) of what `read_picture` returns, from the header alone; raises the same UserError."""
    with opened(path) as image:
        _decode_less(image, enough)
        width, height = image.size
        return (width, height) if upright and _orientation(image) >= 5 else (height, width)


def oddities(path: str | Path | Encoded) -> list[tuple[str, str]]:
    """Unusual properties of a picture and how each is handled, from the header alone; raises UserError."""
    with opened(path) as image:
        return [
            oddity
            for oddity, holds in (
                (("rotated by EXIF", "read upright"), _orientation(image) > 1),
                (("in CMYK", "read as RGB"), image.mode == "CMYK"),
                (("of 16 bits", "the high byte of each value is read"), ";16" in f"{image.mode} {image.tile}"),
                (("of several frames", "the first is read"), getattr(image, "is_animated", False)),
                (("with transparency", "transparent parts become white"), image.has_transparency_data),
            )
            if holds
        ]


@contextmanager
def opened(path: str | Path | Encoded) -> Iterator[Image.Image]:
    """Open a picture file, undecoded, for a `with` block; any exception in it is raised as UserError."""
    # A permanent filter, for Pillow alone: `catch_warnings` around each read would not be thread-safe.
    if _QUIET not in warnings.filters[:1]:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        file = io.BytesIO(path.content) if isinstance(path, Encoded) else path
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # decoders can raise nearly anything on damaged files
        raise UserError(f"{shown(path)}: {_complaint(error, path)}") from error


class Search(NamedTuple):
    """What a search for pictures found.

    Attributes:
        pictures: sorted.
        passed_over: what else is there, and was left out.
    """

    pictures: list[Path]
    passed_over: list[Finding]


def find_pictures(pattern: str | Path) -> list[Path]:
    """Find pictures by their extension, as `search` does, and print what was passed over.

    Raises:
        UserError: there are none.
    """
    pictures, passed_over = search(pattern)
    if not pictures:
        raise UserError(no_picture(pattern, passed_over))
    say(passed_over)
    return pictures


def search(pattern: str | Path) -> Search:
    """Find pictures by their extension; hidden files are skipped, and what this program wrote is passed over.

    Args:
        pattern: a folder (searched with its subfolders, each real folder once), a glob (`**` allowed), or a single file
            of any extension.
    """
    if os.path.isfile(path := Path(pattern)):
        return Search([path], [])
    if os.path.isdir(path):
        return among(walk(path), path)
    base = re.match(r"[^*?[]*(?=/|$)", str(pattern))[0] or ("/" if str(pattern).startswith("/") else ".")
    if (wanted := path.parts[len(Path(base).parts) :]) and "**" in wanted:  # `glob` would go in the circles of links
        found = walk(base)
        files = [file for file in found.files if _matches(file.relative_to(base).parts, wanted)]
        return among(found._replace(files=files), base)
    real = {}  # each file once, though links may lead to its folder
    for file in sorted(map(Path, glob(str(pattern))), key=lambda file: (len(file.parts), file)):
        if not file.is_dir():
            real.setdefault((os.path.realpath(file.parent), file.name), file)
    files, own = apart(sorted(real.values()), base)
    return among(Walk(files, own, [], []), base)


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob, in which `**` stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        ends = len(wanted) == 1 or any(_matches(parts[start:], wanted[1:]) for start in range(len(parts)))
        return bool(parts) and ends
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])


def among(found: Walk, base: str | Path) -> Search:
    """The pictures among files.

    Args:
        found: the files, and what was not entered.
        base: the folder that names are shown relative to.
    """
    pictures, unread, misnamed, others = [], [], [], []
    for path in found.files:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            (pictures if path.is_file() or path.is_symlink() else others).append(path)
        elif suffix in UNREAD:
            unread.append(path)
        elif suffix not in COMPANIONS:
            (misnamed if suffix_of_content(path) else others).append(path)
    return Search(pictures, list(_passed_over(found, unread, misnamed, others, base)))


def _passed_over(
    found: Walk, unread: Sequence[Path], misnamed: Sequence[Path], others: Sequence[Path], base: str | Path
) -> Iterator[Finding]:
    def names(paths: Sequence[Path]) -> tuple[str, ...]:
        return tuple(Path(os.path.relpath(path, base)).as_posix() for path in paths)

    if found.own:
        fix = "left out: this program wrote them"
        yield Finding(Severity.NOTE, f"results of this program in {shown(base)}", names(found.own), fix)
    if found.again:
        fix = "not followed: each folder is read once"
        yield Finding(Severity.NOTE, "links to folders that are read already", names(found.again), fix)
    if found.closed:
        yield Finding(Severity.WARNING, "folders that cannot be read", names(found.closed), "change their permissions")
    if unread:
        kinds = Counter(path.suffix.lower() for path in unread)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())[:8])
        yield Finding(
            Severity.WARNING,
            f"pictures in formats that are not read ({counts})",
            names(unread),
            f"{how_to_read(kinds)}: they are left out",
        )
    if misnamed:
        fix = f"give them the extension of their format, such as {suffix_of_content(misnamed[0])}"
        yield Finding(Severity.WARNING, "pictures without a picture's extension", names(misnamed), fix)
    if others:
        yield Finding(Severity.NOTE, "files that are no pictures", names(others), "left out")


def no_picture(pattern: str | Path, passed_over: Sequence[Finding]) -> str:
    """That a search found nothing, and what there is instead, as the text of an error."""
    problem = "no picture in this folder" if os.path.isdir(Path(pattern)) else "no such picture, folder or match"
    for finding in sorted(passed_over, key=lambda finding: -finding.severity):
        if not finding.what.startswith("files"):
            return f"{shown(pattern)}: {problem}, only {str(finding)[:1].lower()}{str(finding)[1:]}"
    return f"{shown(pattern)}: {problem}; name a picture, a folder of pictures or a quoted glob like 'my/*.jpg'"


def unique_ids(names: Sequence[str]) -> list[str]:
    """Distinct names without their extension; those that would collide keep it (`a.jpg`, `a.png`)."""
    stems = [os.path.splitext(name)[0] for name in names]
    count = Counter(stems)
    ids = [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    # `a.jpg`, which kept its extension, can collide with the stem of `a.jpg.png`.
    return ids if len(set(ids)) == len(ids) else list(names)


class Pictures:
    """Pictures without labels or masks.

    Ids are the paths below the deepest common folder; see `unique_ids`.

    Args:
        paths: of the pictures; duplicates count once.
        class_names: c names.
    """

    labels = None
    has_masks = False

    def __init__(self, paths: Sequence[str | Path], class_names: Sequence[str]):
        given = {os.path.abspath(path): path for path in paths}
        folder = os.path.commonpath([os.path.dirname(path) for path in given]) if given else ""
        self.ids = unique_ids([Path(path).relative_to(folder).as_posix() for path in given])
        self._paths = list(given.values())
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        return Record(self.ids[index], read_picture(self._paths[index]), None, None)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return picture_size(self._paths[index])

    def origin(self, index: int) -> Origin:
        """The file."""
        path = Path(self._paths[index]).absolute()
        return Origin(str(path), (path,), b"")


_dark: dict[str, int] = {}  # pictures of 16 bits whose values are all small, and their largest
_noting = Lock()


def _note_if_dark(largest: int, path: str | Path | Encoded) -> None:
    """Say that a 16-bit picture is read nearly black: at the first one, the tenth, the hundredth, and so on.

    Args:
        largest: of its values.
        path: its file.
    """
    if not 0 < largest < 1 << 14:
        return
    with _noting:
        known = str(path) in _dark
        _dark[str(path)] = largest
        count, most = len(_dark), max(_dark.values())
    if known or str(count).strip("0") != "1":
        return
    bits = most.bit_length()
    which = shown(path) if count == 1 else f"{count} pictures, such as {shown(path)},"
    tqdm.write(
        f"note: {which} of 16 bits: no value is above {most} of 65535, which is read nearly black; if the values have "
        f"{bits} bits, multiply them by {1 << (16 - bits)} and save the pictures again."
    )


def _complaint(error: Exception, path: str | Path | Encoded) -> str:
    match error:
        case FileNotFoundError():
            return "no such file; check the name"
        case PermissionError():
            return "no permission to read it; change the permissions of the file"
        case OSError(strerror=str(reason)):
            return f"cannot be read ({reason}); check the path and the disk"
        case UnidentifiedImageError() if not (
            len(path.content) if isinstance(path, Encoded) else os.path.getsize(path)
        ):
            return "the file is empty; replace or remove it"
        case UnidentifiedImageError():
            return f"not a picture in a supported format ({', '.join(FORMATS)}); convert or remove it"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels; scale it down"
        case _:
            return f"damaged picture ({' '.join(str(error).split())}); replace or remove it"


def _decode_less(image: Image.Image, enough: int | None) -> None:
    """Of a JPEG's blocks of 8x8 only the low frequencies, see `read_picture`."""
    if enough is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, tuple(max(length * enough // max(image.size), 1) for length in image.size))


def _orientation(image: Image.Image) -> int:
    if image.format in ("TIFF", "HEIF", "JXL"):  # which are decoded upright
        return 1
    try:
        # Not image.getexif(): for a PNG, it decodes every pixel to find a tag behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image, path: str | Path | Encoded) -> Image.Image:
    stored = f"{image.mode} {image.tile}"  # the tile is gone once it is decoded
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image)
        if ";12" in stored:  # a TIFF that says so
            values = np.left_shift(values, 4)
        _note_if_dark(int(values.max()), path)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if ";16" in stored and image.mode in ("RGB", "RGBA", "L", "LA"):  # Pillow has dropped the low byte
        colours = np.asarray(image).reshape(image.height, image.width, -1)[..., : 3 if image.mode[0] == "R" else 1]
        _note_if_dark(int(colours.max()) << 8 | 255, path)
    if image.mode in ("I", "F", "LAB"):
        raise UserError(f"{shown(path)}: pixels of mode {image.mode} have no defined range; save it as 8-bit RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")
