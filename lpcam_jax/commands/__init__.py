"""The commands of `python -m lpcam_jax`, one a file: flags in, one call, what happened out."""
