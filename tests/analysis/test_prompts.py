"""Under which system text job `analyze` asks."""

from __future__ import annotations

import pytest

from tga_jax.analysis.prompts import analysis_profile, analysis_system, pieces_warning
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


def test_apology_tokens_that_are_pieces_of_words_are_warned_of() -> None:
    from examples.first_run.prepare import train_tokenizer

    tokenizer = train_tokenizer(["Sorry, I cannot help. a Sorry I'm sorry My As It"] * 4)
    config = base_config()
    config.evaluate.apologies = ("Sorry", "I'm sorry")
    assert pieces_warning(config, tokenizer) is None
    config.analyze.apologies = ("Zq",)  # of which the tokenizer knows "Z" alone
    found = pieces_warning(config, tokenizer)
    assert found is not None and '("Z")' in found and "config.analyze.apologies" in found
