"""What must hold before a training begins, or goes on: its batch, and the pictures that it has learned from."""

import json

from jax.sharding import Mesh

from ..data.records import RecordSource, census, census_of_masks
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import write_json
from .run import Run


def check_pictures(run: Run, pictures: RecordSource) -> None:
    """Note what a run is trained on; a run that was trained on other pictures or labels cannot go on.

    Args:
        run: its folder.
        pictures: to train on.

    Raises:
        UserError: there is a checkpoint, and since then pictures were added or removed, labels corrected, or the masks
            of --data.masks made again, other than before; or the processes do not see the same.
    """
    file, now = run.directory / "pictures.json", {"pictures": len(pictures), "census": census(pictures)}
    if masks := census_of_masks(pictures):
        now["masks"] = masks
    if any(seen != [now, run.steps()] for seen in processes.gather_values([now, run.steps()])):
        raise UserError(
            f"the processes do not see the same pictures or the same checkpoints in {run.directory}; let --data.root, "
            "--data.masks and --workdir lead to one disk, and if they do, run the same command again."
        )
    if run.steps() and file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            same, count = before["census"] == now["census"], int(before["pictures"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be read ({error}); delete it if the pictures are the same.") from None
        if not same:
            raise UserError(
                f"{run.directory} was trained on {count} pictures; now there are {len(pictures)}, or their names or "
                "labels are others. Choose another --workdir to train on them, or, of a classifier, cluster them with "
                "what it has learned: --stages prototypes."
            )
        if before.get("masks", masks) != masks:  # runs of before did not note them
            raise UserError(
                f"{run.directory} was trained on other masks than are there now, under the same names; choose another "
                "--workdir to train on them, or delete this one to start again."
            )
    elif processes.is_first():
        write_json(file, now)


def check_batch(batch_size: int, parts: int, devices: Mesh, *, least: int = 1) -> None:
    """Raise UserError if a batch cannot be split into so many parts, each over all devices and of `least` pictures."""
    if batch_size % (parts * devices.size):
        counts = [f"{parts} parts"] * (parts > 1) + [f"{devices.size} devices"] * (devices.size > 1)
        over = " and ".join(counts)
        raise UserError(f"a batch of {batch_size} does not divide over {over}; choose another --training.batch-size.")
    if batch_size // parts < least:
        raise UserError(
            f"a batch of {batch_size} in {parts} part{'s'[: parts > 1]} has {batch_size // parts} picture in each, and "
            f"this network's batch norm needs {least}; give a larger --training.batch-size or a smaller "
            "--training.accumulate."
        )
