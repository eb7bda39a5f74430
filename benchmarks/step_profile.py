"""Where the time of a training step goes: its share by kind of operation, forward and backward.

    python -m benchmarks.step_profile                   # ResNet-50, batch 4 of 256 x 256
    python -m benchmarks.step_profile --batch 16 --side 512

Five steps are traced by JAX's profiler; an operation's kind is the primitive that it was compiled from. Operations that
run side by side count with their whole times, so run it on a machine that does nothing else. Prints Markdown.
"""

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from benchmarks import draws
from benchmarks.ours.trained import with_drawn_weights
from benchmarks.steps import classifier_step
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining

STEPS = 5
_OPERATION = re.compile(r'%?([\w.-]+) = .*metadata=\{[^}]*op_name="([^"]+)"')


def main() -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    compiled, state, data = step(arguments.batch, arguments.side)
    kinds = dict(_OPERATION.findall(compiled.as_text()))
    state, _ = compiled(state, data)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(STEPS):
                state, metrics = compiled(state, data)
            jax.block_until_ready(metrics)
        times = traced(Path(directory))
    shares = Counter()
    for operation, nanoseconds in times.items():
        shares[kind_of(kinds.get(operation, operation))] += nanoseconds
    total = sum(shares.values())
    print(f"ResNet-50, batch {arguments.batch} of {arguments.side} x {arguments.side}, {jax.devices()[0].device_kind}:")
    print(f"{total / STEPS / 1e6:,.0f} ms of operations a step.\n\n| operation | share |\n|---|---|")
    for kind, nanoseconds in shares.most_common(20):
        print(f"| {kind} | {nanoseconds / total:.1%} |")


def step(batch: int, side: int):
    """The compiled step, its state and a batch."""
    config = LPCAMConfig(training=LPCAMTraining(batch_size=batch, crop=side, learning_rate=1e-3))
    function, optimizer, *_ = classifier_step(config)
    box = np.tile(np.int32([[0, 0, side, side]]), (batch, 1))
    data = jax.device_put({"image": draws.images(batch, side), "box": box, "labels": draws.labels(batch)})
    state = with_drawn_weights(config, optimizer)
    return function.lower(state, data).compile(), state, data


def traced(directory: Path) -> Counter:
    """Nanoseconds of each operation of the compiled program."""
    times: Counter = Counter()
    [file] = directory.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name and not event.name.startswith("end: "):
                    times[name] += event.duration_ns
    return times


def kind_of(path: str) -> str:
    """The primitive at the end of an operation's path, and whether it belongs to a gradient."""
    primitive = path.rpartition("/")[2]
    part = "backward" if "transpose(" in path else "forward" if "jvp(" in path else "optimizer and rest"
    return f"{primitive}, {part}"


if __name__ == "__main__":
    main()
