"""What every stage costs on paper: flops, bytes, peak memory, and the least time that chips could take for it.

    python -m benchmarks.cost
    python -m benchmarks.cost --run MCTformer    # and what these programs take here, in seconds
    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python -m benchmarks.cost --tpu    # ahead of time for a v5e; needs libtpu

Without --run nothing is run: programs are lowered for every platform and compiled for this one, with plain
convolutions, and the compiler is asked. The roofline is max(flops / peak flops, bytes / bandwidth); bytes are those
that this CPU's compiler counts, which fuses less than that of an accelerator; with --tpu the TPU's own does, of the
training steps only with --steps: they take it minutes. Prints Markdown for RESULTS.md.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.chips import CHIPS, least_time, roofline
from benchmarks.steps import CLASSES, classifier_step, edam_step, segmentation_step, upernet_step
from lpcam_jax import cam, kmeans, lpcam
from lpcam_jax.backbones.folding import fold_batch_norm
from lpcam_jax.machine.devices import portable
from lpcam_jax.systems.deeplab.config import DeepLabConfig
from lpcam_jax.systems.edam.config import EDAMConfig
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.lpcam.maps import features_of_both
from lpcam_jax.systems.mctformer.config import MCTformerConfig
from lpcam_jax.systems.mctformer.maps import grid_maps
from lpcam_jax.systems.upernet.config import UperNetConfig
from lpcam_jax.training.state import graph_of

PLATFORMS = ("cpu", "cuda", "tpu")
SHOWN = {name: CHIPS[name] for name in ("v5e", "H100")}


class Program(NamedTuple):
    """What is lowered: a function of arguments that are shapes; how often it runs, and in which precision.

    unrolled: whether flops and bytes are those of its loops written out, because compilers count their bodies once.
    """

    name: str
    function: Callable
    arguments: tuple
    times: int = 1
    precision: str = "highest"
    unrolled: bool = False


def main() -> None:
    """Lower, compile, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tpu", action="store_true", help="compile for a TPU v5e, which need not be here")
    parser.add_argument("--steps", action="store_true", help="with --tpu: the training steps as well")
    parser.add_argument(
        "--run", metavar="TEXT", help="only run the programs of pictures whose name holds this, and time them"
    )
    arguments = parser.parse_args()
    if arguments.run is not None:
        for program in programs(steps=False):
            if arguments.run in program.name:
                print(f"{program.name}: {seconds_of(program):.2f} s", flush=True)
        return
    if arguments.tpu:
        everywhere, chips = NamedSharding(one_v5e(), PartitionSpec()), {"v5e": SHOWN["v5e"]}
    else:
        here = dict.fromkeys(("highest", "float32", "bfloat16"), products_a_second()) | {"bytes": reads_a_second()}
        everywhere, chips = None, SHOWN | {"here": here}
        print(f"These cores: {here['float32'] / 1e9:,.0f} GFLOP/s (product), {here['bytes'] / 1e9:.0f} GB/s (sum).")
    columns = ["GFLOP", "GB", "peak GB", *(f"{chip}, ms" for chip in chips)]
    print(f"\n| program | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
    for program in programs(steps=everywhere is None or arguments.steps):
        cost = cost_of(program, everywhere)
        times = (1000 * roofline(cost.flops, cost.bytes, chip, program.precision) for chip in chips.values())
        cells = [f"{cost.flops / 1e9:,.1f}", f"{cost.bytes / 1e9:,.2f}", f"{cost.peak / 1e9:,.2f}"]
        cells += [f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}" for ms in times]
        print(f"| {program.name} | {' | '.join(cells)} |", flush=True)


class Cost(NamedTuple):
    """Of a program: flops and bytes it moves, all times together; most bytes of memory at once."""

    flops: float
    bytes: float
    peak: int


def cost_of(program: Program, everywhere: NamedSharding | None = None) -> Cost:
    """What the compiler says; `everywhere`: of other devices than these, and then it is not lowered for PLATFORMS."""
    arguments = jax.tree.map(partial(_placed, sharding=everywhere), program.arguments)

    def compiled():
        # Not the function itself, which is traced only once.
        function = program.function if hasattr(program.function, "lower") else jax.jit(lambda *a: program.function(*a))
        with portable():
            if everywhere is None:
                jax.export.export(function, platforms=PLATFORMS)(*arguments)
            return function.lower(*arguments).compile()

    as_it_is = compiled()
    memory, cost = as_it_is.memory_analysis(), as_it_is.cost_analysis()
    if program.unrolled:
        with mock.patch.object(jax.lax, "scan", partial(jax.lax.scan, unroll=True)):
            cost = compiled().cost_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak -= memory.alias_size_in_bytes  # what is donated
    return Cost(program.times * cost["flops"], program.times * cost["bytes accessed"], peak)


def seconds_of(program: Program) -> float:
    """The least time that a program takes here: of small random parameters, and a picture that fills its canvas."""
    numbers = np.random.default_rng(0)
    leaves, kinds = jax.tree.flatten(program.arguments)
    picture = next((leaf.shape for leaf in leaves if leaf.dtype == np.uint8), ())

    def filled(leaf):
        if leaf.dtype == np.int32:
            return jnp.broadcast_to(jnp.array(picture[1:3], np.int32), leaf.shape)
        values = (
            numbers.integers(256, size=leaf.shape) if leaf.dtype == np.uint8 else numbers.normal(0, 0.02, leaf.shape)
        )
        return jnp.asarray(values, leaf.dtype)

    return least_time(jax.jit(program.function), *jax.tree.unflatten(kinds, map(filled, leaves)))


def one_v5e() -> Mesh:
    """A chip of a topology that is only described: programs can be compiled for it, not run."""
    try:
        topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    except Exception as error:  # without libtpu, JAX says so in several ways
        sys.exit(f"error: no TPU compiler here ({str(error).splitlines()[0]}); pip install 'libtpu==0.0.42.*'.")
    return Mesh(np.array(topology.devices).reshape(-1)[:1], ("data",))


def _placed(leaf, *, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def programs(*, steps: bool) -> Iterator[Program]:
    """Every stage; the training steps, if they are wanted."""
    features = _floats(32, 32, 2048)
    for classes in (CLASSES, 80):
        yield Program(f"plain CAM, {classes} classes", cam, (features, _floats(2048, classes)))
        yield Program(f"LPCAM, {classes} classes", lpcam, (features, _floats(classes, 2048)))
    for classes in (CLASSES, 80):
        one = partial(kmeans, tol=0.0, max_iterations=1)
        points = (_floats(8192, 2048), _floats(8192), _floats(12, 2048))
        yield Program(
            f"k-means of {classes} classes, 8,192 features each: an iteration and the result",
            one,
            points,
            times=classes,
        )
    for precision in ("float32", "bfloat16"):
        config = LPCAMConfig()
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=precision))
        graph, *state = graph_of(config, CLASSES)
        with portable():
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), state)
            graph, *folded = fold_batch_norm(graph, *zeros)
        for scale in config.inference.scales:
            shape = tuple(-(-round(length * scale) // 32) * 32 for length in (375, 500))
            network = partial(_maps, graph)
            arguments = (*folded, _floats(2 * CLASSES, 2048), _bytes(1, *shape, 3), _integers(1, 2))
            name = f"maps of a picture of 500x375, scale {scale:g}, with its mirror image, {precision}"
            yield Program(name, network, arguments, precision=precision)
    graph, *state = graph_of(MCTformerConfig(), CLASSES)
    depth, dim = MCTformerConfig().model.depth, MCTformerConfig().model.dim
    for size, scale in (((375, 500), 1), ((480, 640), 1), ((480, 640), 2)):
        shape = tuple(-(-length * scale // 32) * 32 for length in size)
        arguments = (*state, _bytes(1, *shape, 3), _integers(1, 2), _floats(depth), _floats(CLASSES, dim))
        name = f"MCTformer and LPCAM of a picture of {size[1]}x{size[0]}, scale {scale}, with its mirror image"
        yield Program(name, partial(_transformer_maps, graph), arguments, precision="float32", unrolled=True)
    if steps:
        for step in (_classifier_step, _segmentation_step, _upernet_step, _edam_step):
            for precision in ("float32", "bfloat16"):
                yield step(precision)


def _maps(graph, parameters, batch_stats, directions, pictures, sizes):
    model = nnx.merge(graph, parameters, batch_stats)
    straight, mirrored, logits = features_of_both(model, pictures, sizes)
    head = model.head[...]
    return cam(straight, head) + cam(mirrored, head), lpcam(straight + mirrored, directions), logits


def _transformer_maps(graph, parameters, batch_stats, *inputs):
    return grid_maps(nnx.merge(graph, parameters, batch_stats), *inputs)


def _classifier_step(precision: str) -> Program:
    config = LPCAMConfig()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=precision))
    b, side, step = config.training.batch_size, config.training.crop, classifier_step(config)
    name = f"classifier step, {b} pictures of {side}x{side}, {precision}"
    return Program(name, step.function, (step.state, step.batch), 1, precision)


def _segmentation_step(precision: str) -> Program:
    """Of one part of a batch: the compiler does not know how often a loop runs."""
    config = DeepLabConfig()
    training = config.training
    training = dataclasses.replace(training, batch_size=training.batch_size // training.accumulate, accumulate=1)
    model = dataclasses.replace(config.model, precision=precision)
    step = segmentation_step(dataclasses.replace(config, model=model, training=training))
    name = f"DeepLabV2 step, ResNet-101, a part of {training.batch_size} pictures of {training.crop}x{training.crop}"
    return Program(f"{name}, {precision}", step.function, (step.state, step.batch), 1, precision)


def _upernet_step(precision: str) -> Program:
    config = UperNetConfig()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=precision))
    b, side, step = config.training.batch_size, config.training.crop, upernet_step(config)
    name = f"UperNet step, Swin-S, {b} pictures of {side}x{side}, {precision}"
    return Program(name, step.function, (step.state, step.batch), 1, precision)


def _edam_step(precision: str) -> Program:
    """With the attention of one label: the compiler does not know how often a loop runs. The memory is that of all."""
    config = EDAMConfig()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=precision))
    b, side, step = config.training.batch_size, config.training.crop, edam_step(config)
    name = f"EDAM step, WideResNet-38, {b} pairs of {side}x{side}, attention of one label, {precision}"
    return Program(name, step.function, (step.state, step.batch), 1, precision)


def products_a_second() -> float:
    """Flops a second of a float32 product on these cores."""
    x = jnp.ones((2048, 2048))
    return 2 * 2048**3 / least_time(jax.jit(lambda x: x @ x), x)


def reads_a_second() -> float:
    """Bytes a second of a sum over more than the caches hold, on these cores."""
    x = jnp.ones(1 << 28)
    return x.nbytes / least_time(jax.jit(jnp.sum), x)


def _floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _bytes(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.uint8)


def _integers(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, np.int32)


if __name__ == "__main__":
    main()
