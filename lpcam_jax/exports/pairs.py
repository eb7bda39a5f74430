"""Pictures with their masks beside them, as FiftyOne and Hugging Face's datasets read them.

The masks are grey, not of a palette: programs that read a palette PNG as colours would find other numbers in it.
"""

import json
from collections.abc import Iterable, Sequence


def mask_targets(class_names: Sequence[str]) -> dict[str, str]:
    """The names of the values in masks, by the values as text: keys of JSON."""
    return {"0": "background", **{str(n): name for n, name in enumerate(class_names, start=1)}}


def metadata(pictures: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    """The metadata.jsonl of an imagefolder, whose rows get the columns image, mask and labels.

    Args:
        pictures: of each its file name in images/, the name of its mask in masks/ without .png, and its classes.

    Returns:
        A line of JSON for each picture.
    """
    rows = (
        {"file_name": f"images/{file}", "mask_file_name": f"masks/{mask}.png", "labels": list(labels)}
        for file, mask, labels in pictures
    )
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
