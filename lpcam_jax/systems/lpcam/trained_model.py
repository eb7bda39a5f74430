"""A finished run as a function from pictures to maps: `lpcam_jax.load` for notebooks and other programs.

Pictures are processed as by infer.py, with the same scales, mirror images and batches.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...data.in_memory import Picture, PicturesInMemory, is_single
from ...inference.forward import as_they_are
from ...inference.plan import Outputs
from ...machine.devices import jit_forward, mesh
from ...machine.errors import UserError
from ...training.run import Run
from ...training.state import inference_network, network_of, trained_state
from ..prototyping.stored_prototypes import load_prototypes
from .config import LPCAMConfig
from .maps import map_pictures
from .network import Classifier


class NamedMaps(NamedTuple):
    """The maps of a picture.

    Attributes:
        image: uint8 (H, W, 3), the picture as it was read: upright, RGB.
        classes: int (n,), the mapped classes, ascending.
        names: names of these n classes.
        probabilities: probability of every class, in [0, 1], by name.
        maps: float32 (H, W, n), rounded to float16, normalized, in [0, 1], by method: "cam", "lpcam_f", "lpcam", and
            "taught" and "affinity" if the run has them.
    """

    image: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    probabilities: dict[str, float]
    maps: dict[str, np.ndarray]


class TrainedModel:
    """The classifier and the prototypes of a run, as returned by `lpcam_jax.load`.

    Attributes:
        config: the run's config.
        class_names: c names.
        head: float32 (d, c), the classifier's bias-free weights.
        stride: pixels per feature position.
        prototypes: Prototypes of the c classes.
    """

    def __init__(self, run: Run):
        self.config: LPCAMConfig = run.config
        self.class_names = run.class_names
        devices, classes = mesh(), len(run.class_names)
        state = trained_state(run, devices=devices)
        self._network = inference_network(run.config, state, classes, devices=devices)
        self.stride: int = network_of(run.config, classes).backbone.strides[-1]
        self.head: jax.Array = state.parameters["head"]
        self.prototypes = jax.tree.map(jnp.asarray, load_prototypes(run, state))

    @classmethod
    def open(cls, directory: str | Path) -> "TrainedModel":
        """Load the model of a classifier's run; raises UserError as `lpcam_jax.load` does, or for another kind."""
        return cls(Run.open(directory).expect("classifier"))

    def __call__(
        self, pictures: Picture | Sequence[Picture], *, classes: str | Sequence[str] | None = None
    ) -> NamedMaps | list[NamedMaps]:
        """CAM, LPCAM-F and LPCAM of one picture or several; LPCAM-T and LPCAM-A if the run has them.

        Each shape (in steps of 32 pixels), and number of pictures of it, is compiled once: pictures of few different
        sizes, one a call or always as many, are fastest.

        Args:
            pictures: one picture or a sequence of them, each a path, a PIL image, or uint8 (H, W, 3) RGB.
            classes: names of the classes to map in every picture; None: the predicted ones.

        Returns:
            NamedMaps of the picture, or a list with the NamedMaps of each.

        Raises:
            UserError: a picture cannot be read or is invalid, or a class is not one of the run's.
        """
        if is_single(pictures):
            return self([pictures], classes=classes)[0]
        source = PicturesInMemory(pictures, self.class_names, self._labels(classes))
        results: list[Any] = [None] * len(source)
        for index, record, mapped in map_pictures(
            self._network,
            self.prototypes,
            source,
            stride=self.stride,
            inference=self.config.inference,
            description=source.titled("heat maps"),
        ):
            names = tuple(self.class_names[n] for n in mapped.classes)
            probabilities = dict(zip(self.class_names, map(float, mapped.probabilities), strict=True))
            maps = {method: np.moveaxis(stack, 0, -1).astype(np.float32) for method, stack in mapped.maps.items()}
            results[index] = NamedMaps(record.image, mapped.classes, names, probabilities, maps)
        return results

    def features(self, picture: Picture) -> np.ndarray:
        """The feature block f of a picture at scale 1, an input of `lpcam_jax.cam` and `lpcam_jax.lpcam`.

        Args:
            picture: a path, a PIL image, or uint8 (H, W, 3) RGB.

        Returns:
            float32 (h, w, d), >= 0 if the backbone ends in a ReLU; h, w = H / `stride`, W / `stride`, rounded up, of
            the picture as the network sees it: with a side of more than `config.data.longest` pixels it is shrunk to
            that.

        Raises:
            UserError: the picture cannot be read or is invalid.
        """
        source = PicturesInMemory([picture], self.class_names)
        batches = self.config.inference
        results = self._network.run(features_of, source, scales=[1.0], batches=batches, description=None)
        ((_, _, (outputs,)),) = results
        return outputs["features"]

    def probabilities(self, pictures: jax.Array | np.ndarray) -> jax.Array:
        """Class probabilities of pictures of equal size, at that size.

        Args:
            pictures: uint8 or float (b, H, W, 3), RGB, in [0, 255]; large ones are not shrunk. Each shape is compiled
                once.

        Returns:
            float32 (b, c), each in [0, 1]. Under `jax.jit`, `jax.grad` and `jax.vmap`, too.
        """
        # A program with compiler options of its own cannot be a part of another.
        inside = isinstance(pictures, jax.core.Tracer)
        function = self._probabilities_of if inside else self._compiled_probabilities
        return function(*self._network.arrays, pictures)

    @cached_property
    def _compiled_probabilities(self) -> Callable[..., jax.Array]:
        return jit_forward(self._probabilities_of)

    def _probabilities_of(
        self, parameters: dict[str, Any], batch_stats: dict[str, Any], pictures: jax.Array
    ) -> jax.Array:
        model = nnx.merge(self._network.graph, parameters, batch_stats)
        whole = jnp.array([[0, 0, *pictures.shape[1:3]]], jnp.int32)
        return jax.nn.sigmoid(model(model.preprocessing(pictures, whole)))

    def _labels(self, classes: str | Sequence[str] | None) -> np.ndarray | None:
        """float32 (c,), 1 for the named classes."""
        if classes is None:
            return None
        names = [classes] if isinstance(classes, str) else list(classes)
        if unknown := [name for name in names if name not in self.class_names]:
            raise UserError(f"there is no class {unknown[0]!r}; the run has {', '.join(self.class_names)}.")
        return np.float32([name in names for name in self.class_names])


def features_of(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Features float32 (b, h', w', d) of padded pictures, without mirror images."""
    return {"features": model.features(as_they_are(model, pictures, sizes), sizes)}
