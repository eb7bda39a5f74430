"""The positions of a vision transformer are resized as torch does it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpcam_jax.backbones.positions import resize_positions

torch = pytest.importorskip("torch")

from reference.torch_vit import resized  # noqa: E402 (it needs torch)

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]


@pytest.mark.parametrize("resize", ["antialiased", "bicubic", "offset"])
def test_positions_are_resized_as_in_torch(resize):
    """Of many grids at once, smaller and larger, on one canvas."""
    positions = np.random.default_rng(0).normal(size=(7, 7, 3)).astype(np.float32)
    sizes = [(7, 7), (1, 1), (2, 31), (7, 8), (13, 7), (40, 3), (6, 6), (28, 37)]
    resize_all = jax.jit(lambda sizes: resize_positions(jnp.asarray(positions), sizes, (40, 40), resize=resize))
    for values, (height, width) in zip(resize_all(jnp.int32(sizes)), sizes, strict=True):
        expected = resized(torch.from_numpy(positions).double().reshape(-1, 3), (height, width), resize)
        expected = expected.numpy().reshape(height, width, 3)
        np.testing.assert_allclose(values[:height, :width], expected, atol=1e-5)
        assert not values[height:].any()
        assert not values[:, width:].any()
        if (height, width) == (7, 7):
            np.testing.assert_allclose(values[:7, :7], positions, atol=1e-6)
