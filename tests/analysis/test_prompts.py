"""Under which system text job `analyze` asks."""

from __future__ import annotations

import pytest

from tga_jax.analysis.prompts import analysis_profile, analysis_system
from tga_jax.config import base_config
from tga_jax.evaluation.profiles import PAPER_REQUEST


@pytest.mark.parametrize("profile", ["none", "paper"])
def test_analyze_asks_as_evaluate_does_unless_told_otherwise(profile: str) -> None:
    config = base_config()
    config.evaluate.profile = profile
    expected = None if profile == "none" else f"Base. {PAPER_REQUEST}"
    assert analysis_profile(config) == profile
    assert analysis_system(config, base="Base.") == expected
    other = {"none": "paper", "paper": "none"}[profile]
    config.analyze.profile = other
    assert analysis_profile(config) == other
    assert (analysis_system(config, base="Base.") is None) == (other == "none")


def test_a_custom_text_of_evaluate_is_taken_too() -> None:
    config = base_config()
    config.evaluate.profile, config.evaluate.system = "custom", "Be kind."
    assert analysis_system(config, base="Base.") == "Be kind."
