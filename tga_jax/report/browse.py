"""Section in which all answers can be looked through: the data that the page's script filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.html.formats import words
from tga_jax.html.render import render
from tga_jax.report.collect import Arm
from tga_jax.report.examples import spaced
from tga_jax.report.outcomes import OUTCOMES, judges_differ, outcome

MOST_ARMS = 6  # whose answers are on the page, so that it stays small
Json = dict[str, Any]


def chosen_arms(arms: Sequence[Arm], pair: Sequence[Arm]) -> list[Arm]:
    """The compared arms, and the first of the others."""
    others = [arm for arm in arms if arm not in pair]
    return [arm for arm in [*pair, *others][:MOST_ARMS] if arm.answers]


def browse_data(arms: Sequence[Arm], limit: int) -> Json | None:
    """Every question with the answers of all arms; None where there are no answers.

    Args:
        arms: whose answers are shown.
        limit: how many questions at most, evenly taken over all benchmarks.

    Returns:
        "arms", "benchmarks", "scenes" and "outcomes" are names; "total" says how many questions
        there are; "rows" has [benchmark, scene, harmful, prompt, answers] each, names by number,
        and an answer is [text, outcome, cut off, judges differ], or null.
    """
    questions = _questions(arms)
    if not questions:
        return None
    kept = [questions[i] for i in spaced(len(questions), limit)]
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in kept))
    scenes = list(dict.fromkeys(_scene(answers) for _, answers in kept))
    rows = [
        [
            benchmarks.index(benchmark),
            scenes.index(_scene(answers)),
            _about(answers).get("harmful"),
            next(answer["prompt"] for answer in answers if answer),
            [_answer(answer) for answer in answers],
        ]
        for benchmark, answers in kept
    ]
    return {
        "arms": [arm.name for arm in arms],
        "benchmarks": [words(name) for name in benchmarks],
        "scenes": [words(name) for name in scenes],
        "outcomes": OUTCOMES,
        "total": len(questions),
        "rows": rows,
    }


def _questions(arms: Sequence[Arm]) -> list[tuple[str, list[Json | None]]]:
    """(benchmark, an answer an arm) of every question, in the order of the first arm."""
    found: dict[tuple[str, str, str], list[Json | None]] = {}
    for place, arm in enumerate(arms):
        for benchmark, answers in arm.answers.items():
            for answer in answers:
                key = (benchmark, str(answer["question_id"]), answer["prompt"])
                found.setdefault(key, [None] * len(arms))[place] = answer
    return [(key[0], answers) for key, answers in found.items()]


def _about(answers: Sequence[Json | None]) -> Json:
    return next(answer["metadata"] for answer in answers if answer)


def _scene(answers: Sequence[Json | None]) -> str:
    return _about(answers).get("scene") or ""


def _answer(answer: Json | None) -> list[Any] | None:
    if answer is None:
        return None
    cut = bool(answer["metadata"].get("truncated"))
    marks = [int(cut), int(judges_differ(answer))]
    return [answer["text"], OUTCOMES.index(outcome(answer)), *marks]


def browse(data: Json | None) -> Markup | None:
    """The filters, and the place where the script puts what they let through."""
    if data is None:
        return None
    size = len(json.dumps(data["rows"])) / 1e6
    return render("browse.html", data=data, shown=len(data["rows"]), megabytes=size)
