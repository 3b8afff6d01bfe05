"""Whether an answer is right: the published parsing rules, and labels."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tga_jax.evaluation.items import EvalItem

LETTERS = "ABCDE"


def pope_says_yes(text: str) -> bool:
    """POPE's and LLaVA's rule: of the first sentence without commas, "No", "not" or "no" is no."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def pope_correct(item: EvalItem, text: str) -> bool | None:
    """Whether the parsed answer is the label, "yes" or "no"; an empty one is wrong."""
    return bool(text.strip()) and pope_says_yes(text) == (item.label == "yes")


def scienceqa_letter(text: str, choices: Sequence[str]) -> str | None:
    """LLaVA's rule: "A", "A. ..." or "The answer is A"; None for all else, which is wrong."""
    text = text.replace("\n", ". ")
    match = (
        re.fullmatch(r"\s*([A-E])\s*", text)
        or re.match(r"([A-E])\. ", text)
        or re.search(r"The answer is ([A-E])\.", text)
        or re.search(r"The answer is ([A-E])", text)
    )
    letter = match.group(1) if match else None
    return letter if letter in tuple(LETTERS[: len(choices)]) else None


def scienceqa_correct(item: EvalItem, text: str) -> bool | None:
    """Whether the parsed letter is the label."""
    return scienceqa_letter(text, item.extra["choices"]) == item.label


def normalised(text: str) -> str:
    """Lower case, without punctuation, single blanks, no article in front."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    words = text.split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def exact_match(item: EvalItem, text: str) -> bool | None:
    """Whether the answer is the label, or one of the further right answers, up to `normalised`."""
    if item.label is None:
        return None
    return normalised(text) in map(normalised, _right_answers(item))


def label_in_answer(item: EvalItem, text: str) -> bool | None:
    """Whether the label, or one of the further right answers, stands in the answer as words."""
    if item.label is None:
        return None
    words = f" {normalised(text)} "
    return any(f" {right} " in words for right in map(normalised, _right_answers(item)) if right)


def _right_answers(item: EvalItem) -> list[str]:
    accept = item.extra.get("accept") or ()
    assert item.label is not None
    return [item.label, *(str(answer) for answer in accept)]
