"""Numbers that nothing can be computed with are refused, whatever recipe holds them; the line names the flag."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.config import check_numbers, numbers, registry
from lpcam_jax.config.numbers import Limit
from lpcam_jax.machine.errors import UserError
from lpcam_jax.systems.edam.config import EDAMHead
from lpcam_jax.systems.lpcam.config import Teachers


def limit_of(hint: Any) -> Limit:
    return next(one for one in get_args(hint) if isinstance(one, Limit))


# Of every limit: values that it refuses, how they are shown, and the advice; values that it takes.
LIMITS = {
    limit_of(numbers.Count): ([(0, " is 0;"), (-1, " is -1;")], "use at least 1", [1, 7]),
    limit_of(numbers.Seed): ([(-1, " is -1;")], "use at least 0", [0, 3]),
    limit_of(numbers.Share): (
        [(1, " is 1;"), (-0.5, " is -0.5;")],
        "give a share, at least 0 and below 1",
        [0, 0.5],
    ),
    limit_of(numbers.Scales): (
        [((), ":"), ((1.0, 0.0), " 1 0:")],
        "give at least one scale, each above 0",
        [(1.0,), (0.5, 2.0)],
    ),
    limit_of(Teachers): ([((), ":")], "give at least one, crf or affinity", [("crf",), ("crf", "affinity")]),
    limit_of(numbers.PixelRange): (
        [((80, 64), " 80 64:"), ((0, 8), " 0 8:")],
        "give the smallest and the largest, at least 1",
        [(64, 64), (64, 80)],
    ),
    limit_of(numbers.OptionalPixelRange): (
        [((80, 64), " 80 64:"), ((0, 8), " 0 8:")],
        "give the smaller and the larger, at least 1",
        [None, (64, 64), (64, 80)],
    ),
    limit_of(get_type_hints(ViTConfig, include_extras=True)["depth"]): ([(3, " is 3;")], "use at least 4", [4]),
    limit_of(get_type_hints(SwinConfig, include_extras=True)["depths"]): (
        [((2, 2, 2), " 2 2 2:"), ((2, 0, 2, 2), " 2 0 2 2:")],
        "give the blocks of four stages, at least 1",
        [(1, 1, 1, 1)],
    ),
    limit_of(get_type_hints(EDAMHead, include_extras=True)["width"]): (
        [(0, " is 0;"), (7, " is 7;")],
        "give an even number, at least 2",
        [2, 128],
    ),
    limit_of(numbers.Level): (
        [(-0.5, " is -0.5;"), (2, " is 2;"), (math.nan, " is nan;")],
        "give a number from 0 to 1",
        [0, 1],
    ),
    limit_of(numbers.Factor): (
        [(0, " is 0;"), (1.5, " is 1.5;"), (math.nan, " is nan;")],
        "give a number above 0, at most 1",
        [0.5, 1],
    ),
    limit_of(numbers.Exponent): (
        [(0, " is 0;"), (-1, " is -1;"), (math.inf, " is inf;"), (math.nan, " is nan;")],
        "give a number above 0",
        [0.5, 30],
    ),
    limit_of(numbers.Radius): ([(1, " is 1;"), (500, " is 500;")], "give a number from 2 to 64", [2, 64]),
    limit_of(numbers.Jitter): (
        [((-1, 0, 0, 0), " -1 0 0 0:"), ((0, 0, 0, 0.6), " 0 0 0 0.6:")],
        "give four numbers from 0 to 1, the last at most 0.5",
        [(0, 0, 0, 0), (1, 1, 1, 0.5)],
    ),
    limit_of(numbers.ChannelMeans): (
        [((0.485, 0.456, 0.406), " 0.485 0.456 0.406:"), ((-1, 9, 9), " -1 9 9:"), ((math.nan, 9, 9), " nan 9 9:")],
        "give means of pictures from 0 to 255, those of pictures from 0 to 1 times 255",
        [(0, 0, 0), (104, 117, 123), (0.5, 2, 0.5)],
    ),
    limit_of(numbers.ChannelDivisors): (
        [((0.229, 0.224, 0.225), " 0.229 0.224 0.225:"), ((0, 1, 1), " 0 1 1:"), ((1, 1, math.nan), " 1 1 nan:")],
        "give divisors of pictures from 0 to 255, those of pictures from 0 to 1 times 255; 1 1 1 divides by nothing",
        [(1, 1, 1), (58.395, 57.12, 57.375)],
    ),
    limit_of(numbers.ScaleRange): (
        [((1.5, 0.5), " 1.5 0.5:"), ((0.0, 1.0), " 0 1:")],
        "give the smallest and the largest, above 0",
        [(0.5, 0.5), (0.5, 1.5)],
    ),
}


def limited(config: Any, *place: str) -> Iterator[tuple[tuple[str, ...], Limit]]:
    """The fields of a config that have a limit, and those of its parts."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(getattr(config, field.name)):
            yield from limited(getattr(config, field.name), *place, field.name)
        for one in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(one, Limit):
                yield (*place, field.name), one


def with_value(config: Any, place: tuple[str, ...], value: Any) -> Any:
    name, *rest = place
    return dataclasses.replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


CONFIGS = {kind: registry.load_system(kind).config() for kind in registry.kinds()}
PLACES = [(kind, place, limit) for kind, config in CONFIGS.items() for place, limit in limited(config)]


@pytest.mark.parametrize(("kind", "place", "limit"), PLACES, ids=[f"{kind}-{'.'.join(at)}" for kind, at, _ in PLACES])
def test_every_number_with_a_limit_is_refused_by_the_name_of_its_flag(kind, place, limit):
    refused, advice, taken = LIMITS[limit]
    flag = "--" + ".".join(place).replace("_", "-")
    for value, shown in refused:
        with pytest.raises(UserError, match=rf"^{re.escape(flag + shown)} {re.escape(advice)}\.$"):
            check_numbers(with_value(CONFIGS[kind], place, value))
    for value in taken:
        check_numbers(with_value(CONFIGS[kind], place, value))


@pytest.mark.parametrize(
    ("kind", "flags"),
    {
        "classifier": "training.epochs training.batch_size training.crop training.long_side training.checkpoint_every "
        "prototypes.cam_scales prototypes.clusters prototypes.pictures prototypes.taught inference.scales "
        "inference.batch_pixels inference.max_shapes model.width model.mean model.std seed data.held_out",
        "irn": "training.crop training.scale_range training.radius inference.radius inference.steps seed",
        "amn": "training.crop training.scale_range training.smoothing inference.scales seed",
        "segmentation": "training.steps training.batch_size training.accumulate training.crop training.scales "
        "training.hold training.average training.validate_every training.checkpoint_every inference.scales "
        "inference.max_shapes model.mean model.std model.head_width",
        "upernet": "head.width head.auxiliary_width training.steps training.fit training.scale_range training.crop "
        "training.largest_class training.warm_up inference.fit inference.scales",
    }.items(),
)
def test_these_have_a_limit(kind, flags):
    assert {tuple(flag.split(".")) for flag in flags.split()} <= {place for at, place, _ in PLACES if at == kind}


def test_the_defaults_are_within_their_limits():
    for config in CONFIGS.values():
        check_numbers(config)


@pytest.mark.parametrize("place", [("prototypes", "pictures"), ("prototypes", "taught")])
def test_a_number_that_may_be_left_out_may_be_none(place):
    for value in (None, 1):
        check_numbers(with_value(CONFIGS["classifier"], place, value))


def test_the_part_of_a_config_is_named_as_its_flags_are():
    part = dataclasses.replace(CONFIGS["amn"].inference, scales=())
    with pytest.raises(UserError, match=r"^--inference\.scales: give at least one scale"):
        check_numbers(part, "inference.")


def test_infer_refuses_them_too(program, trained, tmp_path):
    finished = program("infer.py", "--ckpt", trained, "--out", tmp_path / "out", "--inference.batch-pixels", 0)
    assert (finished.code, finished.err) == (2, "error: --inference.batch-pixels is 0; use at least 1.\n")
    assert not (tmp_path / "out").exists()
