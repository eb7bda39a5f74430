"""Photographs to maps, at all scales with their mirror images: the network alone, and as infer.py runs it."""

from functools import cache, partial

import jax
import numpy as np

from benchmarks import draws
from benchmarks.accelerator.compiled import compiled, device, mesh_of
from benchmarks.accelerator.parity import drawn_directions
from benchmarks.accelerator.part import Programs, Row, timed
from benchmarks.accelerator.sizes import Sizes
from benchmarks.accelerator.training import PRECISIONS
from benchmarks.ours.trained import drawn_prototypes, optimizer_of, with_drawn_weights
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.data.records import Record
from lpcam_jax.inference.forward import Network
from lpcam_jax.inference.plan import Pass, plan_batches
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMInference
from lpcam_jax.systems.lpcam.maps import grid_maps, map_pictures
from lpcam_jax.training.state import inference_network


class Photographs:
    """Pictures of one size in the memory of the host, a `RecordSource`."""

    class_names, has_masks = draws.CLASS_NAMES, False

    def __init__(self, count: int, size: tuple[int, int]):
        rng = np.random.default_rng(7)
        self._images = rng.integers(0, 256, (count, *size, 3), np.uint8)
        self.ids = tuple(f"{number:04d}" for number in range(count))
        self.labels = np.float32(
            [[n in (number % 20, (number + 7) % 20) for n in range(20)] for number in range(count)]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        return Record(self.ids[index], self._images[index], self.labels[index], None)

    def size(self, index: int) -> tuple[int, int]:
        return self._images[index].shape[:2]


def programs(sizes: Sizes) -> Programs:
    """By precision, and by the pixels of a batch."""
    height, width = sizes.picture
    name = f"photographs of {width}x{height} to maps, {len(sizes.scales)} scales with mirror images"
    for batch_pixels in sizes.batch_pixels:
        for precision in PRECISIONS:
            what = f"{batch_pixels / 1e6:g} million pixels a batch, {precision}"
            yield f"{name}, the network, {what}", partial(_network_alone, sizes, batch_pixels, precision)
    for precision in PRECISIONS:
        yield f"{name}, from the memory of the host, {precision}", partial(_from_host, sizes, precision)


@cache
def _network(sizes: Sizes, precision: str) -> Network:
    model = ResNetConfig(blocks=sizes.blocks, width=sizes.width, stem_width=sizes.width, precision=precision)
    config = LPCAMConfig(model=model)
    state = with_drawn_weights(config, optimizer_of(config, steps=1))
    return inference_network(config, state, draws.CLASSES, devices=mesh_of(device()))


def _channels(sizes: Sizes) -> int:
    return 32 * sizes.width


def _network_alone(sizes: Sizes, batch_pixels: int, precision: str) -> Row:
    """The batches that infer.py would make of these pictures; they lie on the device."""
    function = _network(sizes, precision).forward(grid_maps, drawn_directions(_channels(sizes)))
    batches = LPCAMInference(batch_pixels=batch_pixels)
    passes = [Pass(scale, function) for scale in sizes.scales]
    pictures = range(sizes.pictures)
    plan = plan_batches(dict.fromkeys(pictures, sizes.picture), passes, pictures, batches=batches, devices=1)
    work, flops, nbytes = [], 0.0, 0.0
    for key, count in plan.batch_sizes.items():
        images = np.random.default_rng(0).integers(0, 256, (count, *key.bucket, 3), np.uint8)
        inputs = jax.device_put((images, np.int32([key.bucket] * count)), device())
        arguments = (*function.args, *inputs)
        program, times = compiled(function.func, *arguments), -(-plan.items[key] // count)
        work += [(program.run, arguments)] * times
        flops, nbytes = flops + times * program.flops, nbytes + times * program.bytes

    def run(times: int) -> None:
        for _ in range(times):
            outputs = [program(*arguments) for program, arguments in work]
            jax.block_until_ready(outputs)

    facts = {"batches": len(work), "shapes": len(plan.batch_sizes)}
    made = {"pictures": sizes.pictures, "flops": flops, "bytes": nbytes, "precision": precision, "facts": facts}
    return timed(run, least=sizes.seconds) | made


def _from_host(sizes: Sizes, precision: str) -> Row:
    """Everything but the disk: resizing, batches, maps at the size of the picture."""
    prototypes, source = drawn_prototypes(_channels(sizes)), Photographs(sizes.pictures, sizes.picture)
    options = {"stride": 16, "inference": LPCAMInference(scales=sizes.scales), "description": None}

    def run(times: int) -> None:
        for _ in range(times):
            for _ in map_pictures(_network(sizes, precision), prototypes, source, **options):
                pass

    return timed(run, least=sizes.seconds) | {"pictures": sizes.pictures, "precision": precision}
