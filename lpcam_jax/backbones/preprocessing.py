"""Preprocessing of uint8 pictures for pretrained weights; on the device, so that only bytes are transferred."""

from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from .config import BackboneConfig


class Preprocessing(NamedTuple):
    """(picture - mean) / std in the channel order of the weights; part of a network and stored with it.

    Attributes:
        channel_order: channel order that the weights expect.
        mean: subtracted from the 0..255 picture, in `channel_order`.
        std: divisor after subtracting the mean.
    """

    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @classmethod
    def of(cls, model: BackboneConfig) -> Self:
        """The preprocessing described by a backbone's config."""
        return cls(model.channel_order, model.mean, model.std)

    def __call__(self, pictures: jax.Array, boxes: jax.Array) -> jax.Array:
        """Normalize canvases; outside the picture they become zero, which is the mean colour.

        Args:
            pictures: uint8 (b, h, w, 3), RGB, 0..255.
            boxes: int32 (b, 4), box of the picture on its canvas: top, left, bottom, right (exclusive).

        Returns:
            float32 (b, h, w, 3).
        """
        x = pictures.astype(jnp.float32)
        if self.channel_order == "bgr":
            x = x[..., ::-1]
        mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3) for values in (self.mean, self.std))
        x = (x - mean) / std
        rows = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 1)
        columns = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 2)
        top, left, bottom, right = (boxes[:, side].reshape(-1, 1, 1, 1) for side in range(4))
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        return jnp.where(inside, x, 0)
