"""The peers' side of every contest; runs in .venv-bench and imports nothing of lpcam_jax."""
