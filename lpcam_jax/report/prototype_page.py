"""A page that explains every prototype: its patches, its score, and where it matches a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .overlays import heat_ramp
from .page import write_page

_SUMMARY = (
    "Each card is a cluster of local features of the training pictures: the patches are cut out around the features "
    "nearest to its centre, and the map shows where the picture you choose resembles it.",
    "LPCAM averages the maps of the clusters that were kept for a class, its prototypes, and subtracts the average of "
    "its context prototypes: things that occur with the class but are not it. The result is on top, beside other "
    "methods.",
)


class HeatMap(NamedTuple):
    """One method's map of a picture and a class.

    Attributes:
        title: of the method.
        file: URL of the maps of all the picture's classes, stacked vertically, grey (`layers.map_layer`).
        cell: index of the class's map among them.
        cells: number of maps.
    """

    title: str
    file: str
    cell: int
    cells: int


class Prototype(NamedTuple):
    """A cluster of the features of a class or of its context.

    Attributes:
        score: probability of the class, in [0, 1].
        kept: whether it is a prototype.
        share: share of its set's features that are in the cluster, in [0, 1].
        strip: URL, relative to the page, of a picture with its square patches side by side; "" if there are none.
        patches: ids of the pictures that the patches are from, in the same order.
    """

    score: float
    kept: bool
    share: float
    strip: str
    patches: tuple[str, ...]


class MappedPicture(NamedTuple):
    """A picture with the similarity maps of a class: of its prototypes, then of its context's, stacked vertically.

    Attributes:
        id: name of the picture.
        photo: URL of the picture, of any size.
        size: (H, W) of the picture in pixels.
        similarity: URL of the maps, grey, 255 a cosine of 1, 0 one of `floor`; each has a border of one feature
            position around its grid.
        grid: (h, w) of a map without the border.
        stride: pixels of the picture per feature position.
        floor: cosine of black: 0, or -1 where features may be negative.
        range: smallest and largest cosine, which get the darkest and the lightest colour.
        maps: the heat maps of the class.
    """

    id: str
    photo: str
    size: tuple[int, int]
    similarity: str
    grid: tuple[int, int]
    stride: float
    floor: float
    range: tuple[float, float]
    maps: Sequence[HeatMap]


class PrototypeClass(NamedTuple):
    """A class of the page.

    Attributes:
        name: of the class.
        prototypes: the k clusters of the class.
        context: the k clusters of its context.
        pictures: the pictures to show them on.
    """

    name: str
    prototypes: Sequence[Prototype]
    context: Sequence[Prototype]
    pictures: Sequence[MappedPicture]


def write_prototypes(
    path: Path, classes: Sequence[PrototypeClass], *, mu_f: float, context: tuple[float, float]
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        classes: the classes to show.
        mu_f: the score that class prototypes had to exceed.
        context: the scores that context prototypes had to lie between.

    Raises:
        UserError: the file cannot be written.
    """
    data = {
        "mu_f": mu_f,
        "context": list(context),
        "heat": heat_ramp(),
        "classes": [
            {
                "name": entry.name,
                "class": [prototype._asdict() for prototype in entry.prototypes],
                "context": [prototype._asdict() for prototype in entry.context],
                "pictures": [
                    picture._asdict() | {"maps": [heat_map._asdict() for heat_map in picture.maps]}
                    for picture in entry.pictures
                ],
            }
            for entry in classes
        ],
    }
    write_page(path, "prototypes.html", title="Prototypes", summary=_SUMMARY, data=data)
