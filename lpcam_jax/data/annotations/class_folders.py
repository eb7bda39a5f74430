"""One folder per class: cat/*.jpg, dog/*.jpg. Each picture has one class, the folder that it is in."""

from collections import defaultdict
from operator import itemgetter
from pathlib import Path

from ..findings import listed, shown
from ..search import among
from ..walk import entry, walk
from .rows import MASKS, Labels, Report, Row, default_pictures, is_split


def read_class_folders(root: Path, report: Report) -> Labels:
    """The folders in `root` or in its folder of pictures, as classes; no origin where none holds a picture."""
    pictures = default_pictures(root)
    found = walk(pictures)
    if pictures in found.closed:
        report(f"{shown(pictures)}: cannot be read; check its permissions")
        return Labels(pictures, pictures, [], [])
    masks = entry(root, MASKS)
    of_class = defaultdict(list)
    for path in among(found, pictures).pictures:
        folder, *inside = path.relative_to(pictures).parts
        if inside and pictures / folder != masks:
            of_class[folder].append(Row(path.relative_to(pictures).as_posix(), [folder]))
    if not of_class:
        return Labels(None, pictures, [], [])
    # The classes take turns, so that the first pictures, to which a limit or slice restricts a run, show all of them.
    turns = [turn for folder in sorted(of_class) for turn in enumerate(of_class[folder])]
    rows = [row for _, row in sorted(turns, key=itemgetter(0))]
    # Folders without a picture, unless that is because they lead to results of this program or to other folders.
    leading = {path.relative_to(pictures).parts[0] for path in [*found.own, *found.again]}
    unused = [
        path.name
        for path in sorted(pictures.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and path != masks
        and path.name not in leading | set(of_class)
    ]
    folders = sorted(of_class)
    is_outer = len(folders) == 1 and all(row.name.count("/") > 1 for row in rows)
    # A class may have the name of a part, such as train; of two such folders, neither is one.
    parts = [name for name in folders if is_split(name)]
    if is_outer or parts == folders or len(parts) > 1:
        report(
            f"{shown(pictures)}: its folders ({listed(folders)}) are data sets, not classes; name one of them: "
            f"{shown(pictures / (parts or folders)[0])}"
        )
        return Labels(pictures, pictures, [], [])
    return Labels(pictures, pictures, rows, unused)
