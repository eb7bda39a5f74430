"""The network: one score map a class; a picture's logit is the largest score in it."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lpcam_jax.backbones.base import Backbone
from lpcam_jax.backbones.layers.convolution import Conv
from lpcam_jax.backbones.layers.valid import Sizes, keep_valid
from lpcam_jax.backbones.preprocessing import Preprocessing
from lpcam_jax.data.pipeline import Batch


class PeakNet(nnx.Module):
    """logits_n = max_x w_n . f(x)."""

    def __init__(self, backbone: Backbone, classes: int, *, preprocessing: Preprocessing, rngs: nnx.Rngs):
        self.backbone, self.preprocessing = backbone, preprocessing
        self.scores = Conv(backbone.channels[-1], classes, 1, rngs=rngs)

    def maps(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> jax.Array:
        """Scores float32 (b, h', w', c) of preprocessed pictures, zero outside the valid region."""
        features = self.backbone(images, sizes, train=train)[-1]
        return keep_valid(self.scores(features), self.grid_sizes(sizes))

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the maps."""
        return self.backbone.grids(sizes)[-1]


def peak_loss(model: PeakNet, batch: Batch, _: jax.Array) -> jax.Array:
    """Binary cross entropy of the largest scores."""
    scores = model.maps(model.preprocessing(batch["image"], batch["box"]), train=True)
    return optax.sigmoid_binary_cross_entropy(jnp.max(scores, axis=(1, 2)), batch["labels"]).mean()
