"""EDAM: a layer that shares every position among the classes, and attention between pictures that teaches it.

    A(x) = | unit( conv3x3(f)(x) ) |          c + 1 channels, the last one for the background

The squares of A sum to 1 at every position, so what one class gains the others lose. The attention (`attention`) is
there to train this layer: heat maps are A alone. Exact on padded pictures.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ...backbones.base import Backbone, drawn_with
from ...backbones.config import BackboneConfig
from ...backbones.layers.convolution import Conv
from ...backbones.layers.valid import Sizes, keep_valid
from ...backbones.preprocessing import Preprocessing
from ...clustering import unit
from ...machine.errors import UserError
from .attention import DROPOUT, XAVIER, CollaborativeAttention

STRIDE = 8


class EDAM(nnx.Module):
    """Features, their heat maps, and the attention between two pictures.

    Args:
        backbone: the feature extractor, of 8 pixels per position; EDAM's is a WideResNet-38 without its last ReLU.
        classes: c, without the background.
        width: channels of a token of the attention.
        preprocessing: matches the backbone's weights.
        dtype: dtype of the layers on the features; parameters, maps and logits stay float32.
        rngs: random streams for the initialization.

    Source: Wu et al., Embedded discriminative attention mechanism for weakly supervised semantic segmentation (CVPR
    2021), as in the authors' code. Its 20 labels of a pair are all classes of VOC; here they are those of any data set.
    """

    dropout = DROPOUT

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        width: int = 128,
        preprocessing: Preprocessing,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.backbone, self.preprocessing = backbone, preprocessing
        features, options = backbone.channels[-1], {"kernel_init": XAVIER, "dtype": dtype, "rngs": rngs}
        self.mask_layer = Conv(features, classes + 1, 3, **options)
        self.reduction = Conv(features, width, 1, **options)
        self.attention = CollaborativeAttention(classes, width, dtype=dtype, rngs=rngs)

    def features(
        self, images: jax.Array, sizes: Sizes = None, *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """The features f.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid sizes of padded pictures; None: all valid.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.
            key: random key of a backbone that draws, in training; None: all of it is used.

        Returns:
            (b, h', w', d), in the network's precision, zero outside the valid region.
        """
        return self.backbone(images, sizes, train=train, **drawn_with(self.backbone, key))[-1]

    def heat(self, features: jax.Array, sizes: Sizes = None) -> jax.Array:
        """The heat maps A of features.

        Args:
            features: (b, h', w', d), from `features` with the same sizes.
            sizes: int32 (b, 2), valid sizes of the pictures; None: all valid.

        Returns:
            float32 (b, h', w', c + 1), in [0, 1], the background last, zero outside the valid region.
        """
        scores = self.mask_layer(features).astype(jnp.float32)
        return keep_valid(jnp.abs(unit(scores)), self.grid_sizes(sizes))

    def logits(
        self, features: jax.Array, heat: jax.Array, sizes: Sizes = None, *, dropout_key: jax.Array | None = None
    ) -> jax.Array:
        """What the pictures of a pair say of every class.

        Args:
            features: (2 b, h', w', d), from `features`; a pair is two pictures in a row.
            heat: float32 (2 b, h', w', c + 1), their heat maps.
            sizes: int32 (2 b, 2), valid sizes of the pictures; None: all valid.
            dropout_key: random key of the dropout in training; None: no dropout.

        Returns:
            float32 (2 b, c), logits that the class is in the picture.
        """
        x, maps, grids = self.reduction(features), heat[..., :-1], self.grid_sizes(sizes)
        in_pairs = [leaf if leaf is None else leaf.reshape(-1, 2, *leaf.shape[1:]) for leaf in (x, maps, grids)]
        return self.attention(*in_pairs, key=dropout_key).reshape(len(features), -1)

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of the maps for pictures of these sizes; both int32 (b, 2)."""
        return self.backbone.grids(sizes)[-1]


def build_edam(model: BackboneConfig, classes: int, *, width: int, seed: int = 0) -> EDAM:
    """Build EDAM from its config, randomly initialized.

    Call it inside `jax.jit` or `nnx.eval_shape`: run eagerly, it compiles hundreds of tiny programs.

    Args:
        model: the backbone's config; its `weights` are not loaded here.
        classes: c, without the background.
        width: channels of a token of the attention.
        seed: random seed of the initialization.

    Raises:
        UserError: the backbone has not 8 pixels per position.
    """
    rngs = nnx.Rngs(seed)
    backbone = model.build(rngs=rngs)
    if (stride := backbone.strides[-1]) != STRIDE:
        raise UserError(
            f"--model.backbone {model.backbone}: its last features have {stride} pixels per position, EDAM needs "
            f"{STRIDE}; take a WideResNet-38, a ResNet with --model.output-stride 8, a VGG-16 with --model.layout psa, "
            "or a vision transformer with --model.patch 8."
        )
    options = {"preprocessing": Preprocessing.of(model), "dtype": jnp.dtype(model.precision), "rngs": rngs}
    return EDAM(backbone, classes, width=width, **options)
