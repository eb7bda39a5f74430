"""Peak memory and time of the feature sampling, against the number of pictures: it must not grow.

    python -m benchmarks.flat_memory 500 5000 50000

Drawn scenes and a small random network, so that many pictures are few minutes; each count in a process of its own.
Prints Markdown for RESULTS.md.
"""

import dataclasses
import resource
import subprocess
import sys
import time

import jax

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine import devices
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig, LPCAMInference, LPCAMTraining
from lpcam_jax.systems.lpcam.feature_sampling import sample_features
from lpcam_jax.systems.lpcam.training import classifier_optimizer
from lpcam_jax.training.state import initial_state, network_of

CONFIG = LPCAMConfig(
    data=Data(source="shapes"),
    model=ResNetConfig(blocks=(1, 1, 1, 1), width=8, stem_width=8),
    training=LPCAMTraining(batch_norm="train"),
    prototypes=Clustering(cam_scales=(1.0,), sample=2048),
    inference=LPCAMInference(scales=(1.0,), max_shapes=3),
)


def main() -> None:
    """Start a process for each count and print the table."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        return sample(int(sys.argv[2]))
    print("| pictures | peak memory, MiB | time, s | pictures / s |\n|---|---|---|---|", flush=True)
    for count in map(int, sys.argv[1:]):
        command = [sys.executable, "-m", "benchmarks.flat_memory", "--one", str(count)]
        peak, seconds = map(
            float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1].split()
        )
        print(f"| {count:,} | {peak:,.0f} | {seconds:.1f} | {count / seconds:.0f} |", flush=True)
    return None


def sample(count: int) -> None:
    """Sample the features of so many scenes; prints peak memory in MB, and seconds."""
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, scenes=count))
    source, mesh = seed_source(config), devices.mesh()
    classes = len(source.class_names)
    optimizer = classifier_optimizer(config.training, network_of(config, classes), steps=1)
    state = jax.jit(lambda: initial_state(config, classes, optimizer))()
    start = time.perf_counter()
    sample_features(config, state, source, thresholds=(config.prototypes.threshold,), devices=mesh)
    seconds = time.perf_counter() - start
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


if __name__ == "__main__":
    main()
