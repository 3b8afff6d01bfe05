"""What pyproject.toml cannot say: these folders lie beside the package and travel inside it."""

from setuptools import find_packages, setup

BESIDE = {"tga_jax.configs": "configs", "tga_jax.assets": "assets"}
setup(packages=[*find_packages(include=["tga_jax*"]), *BESIDE], package_dir=BESIDE)
