"""Whether an answer is right: the published parsing rules, and labels."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tga_jax.evaluation.items import EvalItem

LETTERS = tuple("ABCDE")


def pope_says_yes(text: str) -> bool:
    """POPE's and LLaVA's rule: of the first sentence without commas, "No", "not" or "no" is no."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def pope_correct(item: EvalItem, text: str) -> bool | None:
    """Whether the parsed answer is the label, "yes" or "no"; an empty one is wrong."""
    return bool(text.strip()) and pope_says_yes(text) == (item.label == "yes")


def scienceqa_letter(text: str, choices: Sequence[str]) -> str | None:
    """LLaVA's rule, exactly: "A", or "A. ..." in front, or one "The answer is A" in the text.

    Behind that letter one more character must follow, and it must be the only such sentence. None
    for all else, which is wrong.
    """
    if text in LETTERS:
        letter = text
    elif len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        letter = text[0]
    else:
        found = re.findall(r"The answer is ([A-Z]).", text)
        letter = found[0] if len(found) == 1 else ""
    return letter if letter in LETTERS[: len(choices)] else None


def scienceqa_letter_lenient(text: str, choices: Sequence[str]) -> str | None:
    """As `scienceqa_letter`, and also "B" at a line's end, blanks around it, the first of several.

    It is no published rule.
    """
    text = text.replace("\n", ". ")
    match = (
        re.fullmatch(r"\s*([A-E])\s*", text)
        or re.match(r"([A-E])\. ", text)
        or re.search(r"The answer is ([A-E])\b", text)
    )
    letter = match.group(1) if match else None
    return letter if letter in LETTERS[: len(choices)] else None


def scienceqa_correct(item: EvalItem, text: str) -> bool | None:
    """Whether the letter by the published rule is the label."""
    return scienceqa_letter(text, item.extra["choices"]) == item.label


def scienceqa_correct_lenient(item: EvalItem, text: str) -> bool | None:
    """Whether the letter by the lenient rule is the label."""
    return scienceqa_letter_lenient(text, item.extra["choices"]) == item.label


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
