import jax

# A (c,) added to a (b, h, w, c) by accident is an error, not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")
