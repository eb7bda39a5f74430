"""Two training steps, prototypes and maps of the tiny recipe in one folder, on all devices there are.

`test_inference.py` calls `run_all` on one device and starts this file on four.
"""

import sys
from dataclasses import replace

import numpy as np

from lpcam_jax import devices
from lpcam_jax.data.records import Subset
from lpcam_jax.data.sources import training_sources
from lpcam_jax.inference import map_pictures
from lpcam_jax.scripts import load_recipe
from lpcam_jax.training.checkpoints import Run
from lpcam_jax.training.classification import train_classifier
from lpcam_jax.training.prototype_stage import make_prototypes
from lpcam_jax.training.state import graph_of


def run_all(recipe: str, workdir: str) -> dict[str, np.ndarray]:
    """Every number of the run, by name."""
    config, mesh = load_recipe(recipe), devices.mesh()
    config = replace(
        config,
        data=replace(config.data, scenes=8, held_out=0.0),
        training=replace(config.training, epochs=2),
        prototypes=replace(config.prototypes, cam_scales=(1.0,)),
        inference=replace(config.inference, scales=(1.0,), max_shapes=1),
    )
    source, validation = training_sources(config)
    run = Run.create(workdir, config, source.class_names)
    state = train_classifier(run, source, validation, devices=mesh)
    prototypes = make_prototypes(run, state, source, devices=mesh)
    numbers = {"head": state.parameters["head"], **prototypes._asdict()}
    graph, *_ = graph_of(config, len(source.class_names))
    results = map_pictures(
        graph,
        (state.parameters, state.batch_stats),
        prototypes,
        Subset(source, range(4)),
        stride=config.model.output_stride,
        inference=config.inference,
        devices=mesh,
        skipped=[],
    )
    for index, _, result in results:
        numbers |= {f"{method} of picture {index}": maps for method, maps in result.maps.items()}
    return {"devices": np.array(mesh.size)} | {name: np.asarray(value) for name, value in numbers.items()}


if __name__ == "__main__":
    np.savez(sys.argv[3], **run_all(sys.argv[1], sys.argv[2]))
