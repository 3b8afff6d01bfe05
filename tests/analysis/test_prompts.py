"""Under which system text job `analyze` asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tga_jax.analysis.prompts import (
    analysis_profile,
    analysis_system,
    make_prompts,
    pieces_warning,
)
from tga_jax.config import base_config
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.benchmarks.registry import Entry
from tga_jax.evaluation.items import EvalItem
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


@pytest.mark.parametrize("caption", ["", "a cup"])
def test_an_image_is_one_sample_whatever_is_asked_about_it(caption: str) -> None:
    items = [
        EvalItem(f"{image}-{q}", f"Is there a {q}?", image=f"{image}.png", harmful=False,
                 extra={"caption": caption} if caption else {})
        for image in range(3) for q in ("cup", "dog")
    ] + [EvalItem(q, q, harmful=True) for q in ("One.", "Two.", "One.")]  # fmt: skip
    benchmark = Benchmark(Entry("b", "questions", Path("p"), {}), items, [])
    found = make_prompts([benchmark], image_prompt="Say.", scene_prompt="{caption}", limit=0)
    asked = [(p.set, p.item.image, p.item.text) for p in found if p.set != "benign_scenes"]
    text = "Say." if caption else "Is there a cup?"
    assert sorted(asked, key=str) == sorted(
        [("benign_images", f"{i}.png", text) for i in range(3)]
        + [("harmful_texts", None, "One."), ("harmful_texts", None, "Two.")],
        key=str,
    )


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
