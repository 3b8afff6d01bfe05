"""Section of examples: a card a question, with its image and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.html.formats import words
from tga_jax.html.render import render
from tga_jax.report.collect import Arm
from tga_jax.report.examples import Answer, Example
from tga_jax.report.outcomes import EMPTY, RIGHT, WRONG, is_good

DEGREES = {True: "harmful", False: "harmless", None: ""}
MARKS = {RIGHT: "\u2713 right", WRONG: "\u2717 wrong", EMPTY: "empty answer"}
LOOKS = {None: "plain", True: "good", False: "bad"}


def examples(arms: Sequence[Arm], found: Sequence[Example], *, blur: bool) -> Markup | None:
    """Cards: image, question, the answers side by side; None without examples."""
    if not found:
        return None
    lead = (
        f"A rule chose these {len(found)} questions, and none was picked by hand. It takes every "
        "benchmark and scene in turn, and there the kind of question (harmful or harmless, refused "
        "or answered by each model) that it has shown least so far."
    )
    if blur and any(example.harmful and example.image for example in found):
        lead += " Harmful images are blurred: click one, or press space on it, to see it."
    return render(
        "cards.html",
        lead=lead,
        names=[arm.name for arm in arms],
        cards=[_card(example, arms, blur=blur) for example in found],
    )


def _card(example: Example, arms: Sequence[Arm], *, blur: bool) -> dict[str, Any]:
    where = (example.benchmark, example.scene, DEGREES[example.harmful])
    return {
        "where": " \u00b7 ".join(words(part) for part in where if part),
        "prompt": example.prompt,
        "has_image": example.has_image,
        "image": example.image,
        "blurred": blur and bool(example.harmful),
        "answers": [
            {"place": place, "name": arm.name} | _said(answer, example.harmful)
            for place, (arm, answer) in enumerate(
                zip(arms, example.answers, strict=True), start=2 - len(arms)
            )
        ],
    }


def _said(answer: Answer | None, harmful: bool | None) -> dict[str, Any]:
    """An answer's text and its marks: (words, look)."""
    if answer is None:
        return {"text": "", "marks": [("was not asked this", "plain")]}
    look = LOOKS[is_good(answer.outcome, harmful)]
    marks = [(MARKS.get(answer.outcome, answer.outcome), look)]
    marks += [("cut off", "plain")] if answer.truncated else []
    return {"text": answer.text, "marks": marks}
