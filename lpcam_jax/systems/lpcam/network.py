"""The multi-label classifier: a backbone, the mean over positions, a bias-free head.

    logits_n = mean_x w_n . f(x)

Because the head has no bias and the mean is linear, the head's output at every position (`lpcam_jax.cam`) averages to
exactly these logits.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.config import BackboneConfig
from ...backbones.layers.valid import Sizes
from ...backbones.preprocessing import Preprocessing


class Classifier(nnx.Module):
    """Backbone, head and preprocessing of the classifier."""

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        head_init: Literal["random", "zero"] = "random",
        rngs: nnx.Rngs,
    ):
        features = backbone.channels[-1]
        bound = features**-0.5 if head_init == "random" else 0.0
        self.backbone = backbone
        self.head = nnx.Param(jax.random.uniform(rngs.params(), (features, classes), jnp.float32, -bound, bound))
        self.preprocessing = preprocessing

    def features(
        self, images: jax.Array, sizes: Sizes = None, *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """The feature block f, from which logits and maps are computed.

        Args:
            images: float (b, h, w, 3), preprocessed.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.
            key: random key of a backbone that draws, in training; None: all of it is used.

        Returns:
            float32 (b, h', w', d), zero outside the valid region.
        """
        # Not stored in the training step: the mean is taken as they are made.
        return self.backbone(images, sizes, train=train, **drawn_with(self.backbone, key))[-1].astype(jnp.float32)

    def logits(self, features: jax.Array, sizes: Sizes = None) -> jax.Array:
        """Logits of a feature block.

        Args:
            features: float (b, h', w', d), from `features` with the same sizes.
            sizes: int32 (b, 2), valid sizes of the pictures; None: all valid.

        Returns:
            float32 (b, c).
        """
        return self.scores(self.pooled(features, sizes))

    def pooled(self, features: jax.Array, sizes: Sizes = None) -> jax.Array:
        """The mean over positions of a feature block, as for `logits`: float32 (b, d)."""
        if sizes is None:
            return features.mean(axis=(-3, -2))
        return features.sum(axis=(-3, -2)) / self.grid_sizes(sizes).prod(axis=1)[:, None]

    def scores(self, pooled: jax.Array) -> jax.Array:
        """The head's output for mean features: float (b, d) -> float32 (b, c)."""
        return jnp.matmul(pooled, self.head[...], precision="highest")

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the features for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-1]

    def __call__(
        self, images: jax.Array, sizes: Sizes = None, *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of pictures: float (b, h, w, 3), preprocessed -> float32 (b, c)."""
        return self.logits(self.features(images, sizes, train=train, key=key), sizes)


def build_classifier(model: BackboneConfig, classes: int, *, head_init: str = "random", seed: int = 0) -> Classifier:
    """Build the classifier from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the backbone's config; its `weights` are not loaded here.
        classes: c.
        head_init: "random" (uniform, within 1 / sqrt(d)) or "zero".
        seed: random seed of the initialization.
    """
    rngs = nnx.Rngs(seed)
    backbone = model.build(rngs=rngs)
    preprocessing = Preprocessing.of(model)
    return Classifier(backbone, classes, preprocessing=preprocessing, head_init=head_init, rngs=rngs)
