"""Section of examples: a card a question, with its picture and the answers."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.html.formats import words
from tga_jax.html.markup import Markup, join, tag
from tga_jax.report.collect import Arm
from tga_jax.report.curves import absent
from tga_jax.report.evidence import legend
from tga_jax.report.examples import Answer, Example


def examples(arms: Sequence[Arm], found: Sequence[Example], *, blur: bool) -> Markup:
    """Cards: picture, question, the answers side by side."""
    if not found:
        return absent("No examples: there is no evaluate/<benchmark>/answers.jsonl with pictures.")
    lead = (
        f"{len(found)} questions, chosen by rule: as evenly as can be over the scenes, and "
        "evenly spaced in the benchmark's own order. None was picked by hand."
    )
    if blur and any(example.harmful for example in found):
        lead += " Harmful pictures are blurred: click one, or press space on it, to see it."
    cards = [_card(example, arms, blur=blur) for example in found]
    return join([tag("p", lead, class_="lead"), legend(arms), tag("div", cards, class_="examples")])


def _card(example: Example, arms: Sequence[Arm], *, blur: bool) -> Markup:
    where = " \u00b7 ".join(words(part) for part in (example.benchmark, example.scene) if part)
    answers = [
        _answer(answer, arm, place, harmful=example.harmful)
        for place, (arm, answer) in enumerate(
            zip(arms, example.answers, strict=True), start=2 - len(arms)
        )
    ]
    text = tag("div", tag("p", where, class_="where"), tag("p", example.prompt, class_="prompt"),
               answers)  # fmt: skip
    return tag("article", _picture(example, blur=blur), text, class_="example")


def _picture(example: Example, *, blur: bool) -> Markup:
    if example.picture is None:
        gone = tag("span", "The picture is no longer there.", class_="gone")
        return tag("div", gone, class_="picture")
    name = f"picture of the question: {example.prompt}"
    if not (blur and example.harmful):
        return tag("div", tag("img", src=example.picture, alt=name), class_="picture")
    box = tag("input", type="checkbox", aria_label="show the harmful picture")
    shown = tag("img", src=example.picture, alt=f"harmful {name}")
    return tag("label", box, shown, tag("span", "show", class_="show"), class_="picture blurred")


def _answer(answer: Answer | None, arm: Arm, place: int, *, harmful: bool | None) -> Markup:
    if answer is None:
        who = tag("span", f"{arm.name}: not asked", class_="who")
        return tag("div", who, class_=f"answer arm{place}")
    marks = []
    judged = answer.correct is not None and not harmful and not answer.refused
    if answer.refused is not None and not judged:
        wanted = None if harmful is None else answer.refused == harmful
        look = {None: "plain", True: "good", False: "bad"}[wanted]
        marks.append(tag("span", "refused" if answer.refused else "answered",
                         class_=f"mark {look}"))  # fmt: skip
    if judged:
        text, look = ("\u2713 right", "good") if answer.correct else ("\u2717 wrong", "bad")
        marks.append(tag("span", text, class_=f"mark {look}"))
    who = tag("span", tag("span", arm.name), marks, class_="who")
    return tag("div", who, answer.text, class_=f"answer arm{place}")
