"""What pyproject.toml cannot say: the recipes in configs/ are installed as the folder lpcam_jax/recipes."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lpcam_jax*"]), "lpcam_jax.recipes"],
    package_dir={"lpcam_jax.recipes": "configs"},
)
