"""Published parsing rules against a second reading of them, and labels."""

from __future__ import annotations

import pytest

from tga_jax.evaluation import answers
from tga_jax.evaluation.items import EvalItem


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True), ("No", False), ("no", False), ("No, there isn't.", False),
        ("There is not a dog in the image.", False), ("yes, there is no doubt", False),
        ("Yes. There is no cat though.", True), ("NO", True), ("None", True), ("?", True),
        ("nothing of that kind", True), ("No\nmore", True), ("Not at all", True),
    ],
)  # fmt: skip
def test_pope_as_published(text: str, yes: bool) -> None:
    assert answers.pope_says_yes(text) == yes
    assert answers.pope_correct(EvalItem(1, "?", label="yes"), text) == yes
    assert answers.pope_correct(EvalItem(1, "?", label="no"), text) != yes


def test_an_empty_answer_is_never_right() -> None:
    for label in ("yes", "no"):
        assert answers.pope_correct(EvalItem(1, "?", label=label), " \n") is False
    assert answers.label_in_answer(EvalItem(1, "?", label="cup"), "") is False


@pytest.mark.parametrize(
    ("text", "letter", "lenient"),
    [
        ("A", "A", "A"), (" B \n", None, None), ("B ", None, "B"), ("C. because", "C", "C"),
        ("C.", None, None), ("The answer is B.", "B", "B"), ("The answer is B", None, "B"),
        ("I think The answer is C, or so", "C", "C"), ("D", None, None), ("D. x", None, None),
        ("The answer is E.", None, None), ("a", None, None), ("AB", None, None), ("", None, None),
        ("A\ncat", None, "A"), ("the answer is A.", None, None),
        ("The answer is B\ncat", None, "B"),
        ("The answer is A or The answer is B.", None, "A"),
    ],
)  # fmt: skip
def test_scienceqa_as_published(text: str, letter: str | None, lenient: str | None) -> None:
    choices = ["red", "green", "blue"]
    assert answers.scienceqa_letter(text, choices) == letter
    assert answers.scienceqa_letter_lenient(text, choices) == lenient
    item = EvalItem("1", "?", label="B", extra={"choices": choices})
    assert answers.scienceqa_correct(item, text) == (letter == "B")
    assert answers.scienceqa_correct_lenient(item, text) == (lenient == "B")


@pytest.mark.parametrize(
    ("text", "exact", "within"),
    [
        ("A violin.", True, True), ("fiddle", True, True), ("it is a violin.", False, True),
        ("violinist", False, False), ("a viola", False, False), ("", False, False),
        ("The FIDDLE!", True, True), ("two violins", False, False),
    ],
)  # fmt: skip
def test_labels(text: str, exact: bool, within: bool) -> None:
    item = EvalItem(1, "What?", label="violin", extra={"accept": ["violin", "fiddle"]})
    assert answers.exact_match(item, text) == exact
    assert answers.label_in_answer(item, text) == within
    assert answers.exact_match(EvalItem(1, "What?"), text) is None
    assert answers.label_in_answer(EvalItem(1, "What?"), text) is None
