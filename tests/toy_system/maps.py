"""The heat maps: positive scores, fused over scales, for the labels of a picture."""

import jax
import numpy as np

from lpcam_jax.class_activation import fuse, normalize
from lpcam_jax.inference.forward import mirrored_back, with_mirror_images
from lpcam_jax.inference.passes import finish_each
from lpcam_jax.machine.devices import local_mesh
from lpcam_jax.results.folder import write_all
from lpcam_jax.results.heatmaps import HeatMapFolder
from lpcam_jax.results.picture_maps import PictureMaps
from lpcam_jax.results.refinement import refinement
from lpcam_jax.systems.protocol import model_protocol
from lpcam_jax.training.state import inference_network, network_of


def peak_maps(model, pictures, sizes):
    """Scores of pictures and mirror images, added, where they are positive."""
    images, extents = with_mirror_images(model, pictures, sizes)
    straight, mirrored = mirrored_back(model.maps(images, extents), model.grid_sizes(extents))
    return {"logits": jax.nn.relu(straight) + jax.nn.relu(mirrored)}


def make_maps(run, state, source, out):
    """Map the pictures that have no maps yet, then score all."""
    config, classes = run.config, len(run.class_names)
    stride = network_of(config, classes).backbone.strides[-1]
    protocol = model_protocol(run, state, classes="labels", scales=list(config.inference.scales), crf=False)
    how = refinement("none", background=config.inference.background, out=out)
    folder = HeatMapFolder(out, run.class_names, ("peak",), protocol, refinement=how)

    def finish(record, outputs):
        labels = np.flatnonzero(record.labels)
        maps = fuse([scale["logits"][..., labels] for scale in outputs], record.image.shape[:2], stride=stride)
        return PictureMaps(labels, {"peak": np.moveaxis(normalize(maps), -1, 0)})

    skipped = []
    if missing := folder.missing(source):
        network = inference_network(config, state, classes, devices=local_mesh())
        options = {"scales": config.inference.scales, "batches": config.inference, "description": "peaks"}
        results = network.run(peak_maps, source, only=missing, **options)
        skipped = write_all(finish_each(results, finish), lambda _, record, maps: folder.write(record, maps))
    return folder.finish(source, skipped)
