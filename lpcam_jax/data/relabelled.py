"""A data set whose own masks are replaced: by seeds or pseudo masks to train on, instead of the ground truth."""

import hashlib

from tqdm import tqdm

from ..machine.errors import UserError
from ..seeds import IGNORE
from .findings import listed, shown
from .masks import MaskFolder
from .records import Origin, Record, RecordSource, Subset


class Relabelled:
    """The pictures of a source that have a mask in a folder, with that mask; the others are counted and left out.

    Args:
        source: the pictures.
        masks: ID.png of the picture's size: 0 background, n + 1 class n of the source, 255 no label.

    Raises:
        UserError: no picture has a mask; or, when a record is read, its mask does not fit.
    """

    has_masks = True

    def __init__(self, source: RecordSource, masks: MaskFolder):
        masked = [index for index, name in enumerate(source.ids) if masks.file(name).exists()]
        if not masked:
            raise UserError(
                f"{shown(masks.directory)} has no mask for any of the {len(source)} pictures to train on: there is no "
                f"{shown(source.ids[0])}.png, for one; check --data.masks, --data.root and --data.train."
            )
        if left_out := len(source) - len(masked):
            tqdm.write(f"{left_out} of {len(source)} pictures have no mask in {shown(masks.directory)}: left out")
        self._source, self._masks = Subset(source, masked), masks
        self.class_names, self.ids, self.labels = source.class_names, self._source.ids, self._source.labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index]
        mask, size = self._masks.read(record.id, classes=len(self.class_names))
        if size != record.image.shape[:2]:
            raise UserError(
                f"{shown(self._masks.file(record.id))} is {size[1]}x{size[0]}, its picture {record.image.shape[1]}x"
                f"{record.image.shape[0]} (width x height); masks must have their picture's size."
            )
        return record._replace(mask=mask)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) from the header."""
        return self._source.size(index)

    def expect_a_class(self) -> None:
        """Expect that the masks are not black and white, as those of programs are that mean an object by 255.

        Raises:
            UserError: all hold 0 and 255 alone, and some 255; or one on the way does not fit.
        """
        has_ignored = False
        for name in self.ids:
            mask, _ = self._masks.read(name, classes=len(self.class_names))
            if ((mask > 0) & (mask != IGNORE)).any():
                return
            has_ignored |= (mask == IGNORE).any()
        if has_ignored:
            raise UserError(
                f"{shown(self._masks.directory)}: none of its {len(self)} masks holds a class, only 0, the background, "
                f"and 255, no label; number the pixels of {listed([self.class_names[0]])} 1, and so on."
            )

    def census_of_masks(self) -> str:
        """16 hex digits that tell the masks from others: of the sizes of all files, and the bytes of a hundred."""
        files = [self._masks.file(name) for name in self.ids]
        digest = hashlib.sha256(repr([file.stat().st_size for file in files]).encode())
        for file in files[:: -(-len(files) // 100)]:
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def origin(self, index: int) -> Origin:
        """What the picture is made from, and its mask here."""
        origin = self._source.origin(index)
        return origin._replace(files=(*origin.files, self._masks.file(self.ids[index])))
