"""The drawing of the search: the kind of each arm, and a drawing of those that there are."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image

from configs.miniature import arms
from examples.miniature_search import kind, plot


def test_the_kind_of_every_arm() -> None:
    kinds = {name: kind(changes) for name, changes in arms("search").items()}
    assert {name for name, one in kinds.items() if one == "none"} == {
        "baseline", "baseline-17-tokens", "captioned-baseline"
    }  # fmt: skip
    answers = [name for name, one in kinds.items() if one == "answer"]
    assert answers == ["tga-answer", "tga-answer-17-tokens"]


def test_a_drawing_of_the_arms_that_were_run(tmp_path: Path) -> None:
    figures = {"naming_accuracy": 0.9, "picture_dsr_at_5pct": 0.2}
    plot({"seconds": {}, "baseline": figures, "tga": figures}, tmp_path / "search.png")
    assert matplotlib.image.imread(tmp_path / "search.png").std() > 0
