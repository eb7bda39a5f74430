"""What pyproject.toml cannot say: the recipes in configs/ are installed as the folder lpcam_jax/recipes."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["lpcam_jax*"]),
        "lpcam_jax.recipes",
        *(f"lpcam_jax.recipes.{folder}" for folder in find_namespace_packages("configs")),
    ],
    package_dir={"lpcam_jax.recipes": "configs"},
)
