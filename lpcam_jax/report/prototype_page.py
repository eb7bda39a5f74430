"""A page that shows what every prototype is: its patches, its score, and where it is on a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .overlays import heat_ramp
from .page import write_page

_SUMMARY = (
    "Each card is a cluster of local features of the training pictures: the patches are cut out around the features "
    "nearest to its centre, and the map shows where the picture you choose resembles it.",
    "LPCAM takes the mean of the maps of a class's kept clusters, its prototypes, and subtracts that of its kept "
    "context prototypes: of what comes with the class and is not it. The outcome stands on top, beside other methods.",
)


class HeatMap(NamedTuple):
    """One method's map of a picture and a class.

    title: of the method
    file:  URL of the maps of all the picture's classes below each other, grey (`layers.map_layer`)
    cell:  which of them is the class's
    cells: how many there are
    """

    title: str
    file: str
    cell: int
    cells: int


class Prototype(NamedTuple):
    """A cluster of the features of a class or of its context.

    score:   probability of the class, in [0, 1]
    kept:    whether it is a prototype
    share:   of the features of its set that are in the cluster, in [0, 1]
    strip:   URL of the picture with its patches side by side, squares, relative to the page; "" when there are none
    patches: ids of the pictures they are from, in that order
    """

    score: float
    kept: bool
    share: float
    strip: str
    patches: tuple[str, ...]


class MappedPicture(NamedTuple):
    """A picture with the similarity maps of a class: of its prototypes, then of its context's, below each other.

    id:         name of the picture
    photo:      URL of the picture, of any size
    size:       (H, W) of the picture in pixels
    similarity: URL of the maps, grey, 255 a cosine of 1, 0 one of `floor`; each with an edge of one feature position
                around its grid
    grid:       (h, w) of a map without the edge
    stride:     pixels of the picture a feature position
    floor:      cosine of black: 0, or -1 where features may be negative
    range:      smallest and largest cosine, which get the darkest and the lightest colour
    maps:       the heat maps of the class
    """

    id: str
    photo: str
    size: tuple[int, int]
    similarity: str
    grid: tuple[int, int]
    stride: int
    floor: float
    range: tuple[float, float]
    maps: Sequence[HeatMap]


class PrototypeClass(NamedTuple):
    """A class of the page.

    name:       as people know it
    prototypes: of the class, k
    context:    of its context, k
    pictures:   to show them on
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
        classes: what to show.
        mu_f: score a class prototype had to pass.
        context: scores a context prototype had to be between.

    Raises:
        UserError: the file cannot be written.
    """
    data = {
        "mu_f": mu_f,
        "context": list(context),
        "heat": heat_ramp(),
        "classes": [
            {
                "name": one.name,
                "class": [prototype._asdict() for prototype in one.prototypes],
                "context": [prototype._asdict() for prototype in one.context],
                "pictures": [
                    picture._asdict() | {"maps": [one._asdict() for one in picture.maps]} for picture in one.pictures
                ],
            }
            for one in classes
        ],
    }
    write_page(path, "prototypes.html", title="Prototypes", summary=_SUMMARY, data=data)
