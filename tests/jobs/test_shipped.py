"""The base models of the miniature experiment that the repository ships."""

import dataclasses
import json
from pathlib import Path

import pytest

from configs.miniature import get_config
from tga_jax.miniature.builder import WorldSizes
from tga_jax.miniature.phases import phase_settings

ASSETS = Path("assets/miniature")


@pytest.mark.parametrize("name", ["clip", "llm"])
def test_they_are_of_the_settings_that_the_experiment_has(name: str) -> None:
    """If not, the experiment would train them anew; see the docstring of configs/miniature.py."""
    config = get_config()
    sizes = dataclasses.asdict(WorldSizes(**config.miniature.world.to_dict()))
    world = {"sizes": sizes}
    shipped = json.loads((ASSETS / f"{name}.json").read_text())
    assert shipped["settings"] == phase_settings(config, world)[name]


def test_they_are_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 8e6
