"""A data set with other masks than its own: seeds or pseudo masks to train on, instead of the truth."""

from tqdm import tqdm

from ..machine.errors import UserError
from .masks import MaskFolder
from .pictures import shown
from .records import Record, RecordSource, Subset


class Relabelled:
    """The pictures of a source that have a mask in a folder, with that mask; the others are left out, and counted.

    source: the pictures
    masks:  ID.png of the picture's size: 0 background, n + 1 class n of the source, 255 no label

    Raises UserError when no picture has a mask; a mask that does not fit is named when it is read.
    """

    has_masks = True

    def __init__(self, source: RecordSource, masks: MaskFolder):
        kept = [index for index, name in enumerate(source.ids) if masks.file(name).exists()]
        if not kept:
            raise UserError(
                f"{shown(masks.directory)} has no mask for any of the {len(source)} pictures to train on: there is no "
                f"{shown(source.ids[0])}.png, for one; check --data.masks, --data.root and --data.train."
            )
        if left_out := len(source) - len(kept):
            tqdm.write(f"{left_out} of {len(source)} pictures have no mask in {shown(masks.directory)}: left out")
        self._source, self._masks = Subset(source, kept), masks
        self.class_names, self.ids, self.labels = source.class_names, self._source.ids, self._source.labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        mask, size = self._masks.read(record.id, classes=len(self.class_names))
        if size != record.image.shape[:2]:
            raise UserError(
                f"{shown(self._masks.file(record.id))} is {size[1]}x{size[0]}, its picture {record.image.shape[1]}x"
                f"{record.image.shape[0]} (width x height); store masks of the picture's size."
            )
        return record._replace(mask=mask)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return self._source.size(index)
