"""AMN, the activation manipulation network: a segmentation network conditioned on the classes of the picture.

    g(x) = sum_r  conv3x3_r( f(x) * (E y + b) ),  r = 6, 12, 18, 24          y: 1 for the classes of the picture

The labels weight the channels of the features, so the convolutions only have to locate the classes. The logits,
background first, are on the feature grid, 16 pixels per position. Exact on padded pictures.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.heads import AtrousSum, scaled_rates
from ...backbones.layers.convolution import TORCH_UNIFORM
from ...backbones.layers.drops import dropout
from ...backbones.layers.valid import Sizes
from ...backbones.preprocessing import Preprocessing
from .config import AMNModel


class LabelEncoder(nnx.Module):
    """One linear layer from the labels of a picture to a weight for every channel of its features."""

    def __init__(self, classes: int, features: int, *, rngs: nnx.Rngs):
        bound = classes**-0.5
        self.kernel = nnx.Param(TORCH_UNIFORM(rngs.params(), (classes, features), jnp.float32))
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (features,), jnp.float32, -bound, bound))

    def __call__(self, labels: jax.Array) -> jax.Array:
        """Channel weights float32 (b, d) for labels float (b, c)."""
        return jnp.matmul(labels, self.kernel[...], precision="highest") + self.bias[...].reshape(1, -1)


class AMN(nnx.Module):
    """Features weighted by the labels, followed by a sum of four dilated convolutions.

    Args:
        backbone: the feature extractor; AMN's has output stride 16.
        classes: c, without the background.
        preprocessing: matches the backbone's weights.
        rates: dilations of the convolutions at output stride 16; rescaled for other strides to the same reach in
            pixels.
        dtype: dtype of the head's convolutions; parameters and logits stay float32.
        rngs: random streams for the initialization.

    Source: Lee et al., Threshold matters in WSSS: manipulating the activation for the robust and accurate segmentation
    model against thresholds (CVPR 2022), as in the authors' code.
    """

    dropout = 0.1

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        preprocessing: Preprocessing,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        self.rates = scaled_rates(rates, 16, backbone)
        self.labels = LabelEncoder(classes, backbone.channels[-1], rngs=rngs)
        self.activation = AtrousSum(backbone.channels[-1], classes + 1, self.rates, dtype=dtype, rngs=rngs)

    def __call__(
        self, images: jax.Array, labels: jax.Array, sizes: Sizes = None, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """Logits of pictures.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            labels: float (b, c), 1 for the classes of each picture, else 0.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            dropout_key: random key of the dropout in training; None: no dropout.

        Returns:
            float32 (b, h', w', c + 1), the background first, zero outside the valid region.
        """
        features = self.backbone(images, sizes, **drawn_with(self.backbone, dropout_key))[-1]
        features = (features * self.labels(labels)[:, None, None]).astype(features.dtype)
        features = dropout(dropout_key, features, rate=self.dropout)
        return self.activation(features, self.grid_sizes(sizes))

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the logits for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-1]


def build_amn(model: AMNModel, classes: int, *, seed: int = 0) -> AMN:
    """Build AMN from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the config; its `weights` are not loaded here.
        classes: c, without the background.
        seed: random seed of the initialization.
    """
    rngs = nnx.Rngs(seed)
    options = {"preprocessing": Preprocessing.of(model), "dtype": jnp.dtype(model.precision), "rngs": rngs}
    if model.rates:
        options["rates"] = model.rates
    return AMN(model.build(rngs=rngs), classes, **options)
