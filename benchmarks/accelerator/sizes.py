"""How large everything is: as users have it, or so small that a CPU is done in a minute."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Of networks, pictures and features.

    Attributes:
        width: of both ResNets.
        blocks, deep_blocks: of the classifier's ResNet, and of DeepLab's.
        batch: pictures of a training step.
        crop, masked_crop: their sides, of the classifier and of DeepLab.
        picture: (H, W) of a photograph.
        photograph: (H, W) of one of many megapixels.
        pictures: photographs that are mapped.
        scales: that they are mapped at.
        batch_pixels: of a device's batch in inference.
        features: blocks of 32x32x2048 that maps are made of.
        points: features of a class that are clustered.
        classes: how many of them.
        peak_side, peak_bytes: of the product and of the copy that measure the device.
        memory: bytes that a training step may take; None: as the device says.
        seconds: how long a program is timed at least.
        compiles_torch: whether torch is compiled, too.
    """

    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    deep_blocks: tuple[int, ...] = (3, 4, 23, 3)
    batch: int = 16
    crop: int = 512
    masked_crop: int = 321
    picture: tuple[int, int] = (375, 500)
    photograph: tuple[int, int] = (3000, 4000)
    pictures: int = 16
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    batch_pixels: tuple[int, ...] = (1_600_000, 16_000_000)
    features: int = 64
    points: int = 8192
    classes: tuple[int, ...] = (20, 80)
    peak_side: int = 8192
    peak_bytes: int = 1 << 30
    memory: int | None = None
    seconds: float = 1.0
    compiles_torch: bool = True


FULL = Sizes()
SHORT = Sizes(
    width=8,
    blocks=(1, 1, 1, 1),
    deep_blocks=(1, 1, 1, 1),
    batch=4,
    crop=64,
    masked_crop=65,
    picture=(48, 64),
    photograph=(96, 128),
    pictures=4,
    scales=(1.0, 0.5),
    batch_pixels=(10_000,),
    features=1,
    points=256,
    classes=(2,),
    peak_side=512,
    peak_bytes=1 << 24,
    memory=20 << 20,
    seconds=0.01,
    compiles_torch=False,
)
