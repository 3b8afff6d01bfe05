"""The drawing of answers: which images it has, and what its colours say."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from examples.miniature_answers import (
    ARMS,
    KINDS,
    NAMED,
    OTHER,
    REFUSED,
    colour,
    first_answers,
    plot,
)
from tga_jax.files import write_jsonl


def answer(
    kind: str, label: str, number: int, *, refused: bool = False, correct: bool = False
) -> dict:
    about = {
        "scene": kind, "label": label, "image": f"{label}{number}.png", "refused": refused,
        "correct": correct,
    }  # fmt: skip
    return {"question_id": f"{kind}-{label}-{number}", "text": "a thing", "metadata": about}


# Two answers about each of three things of a kind.
ANSWERS = [
    answer(kind, f"{kind}{thing}", number)
    for kind in reversed(KINDS)
    for thing in range(3)
    for number in range(2)
]


def test_the_first_things_of_each_kind_are_shown_once() -> None:
    wanted = [f"{kind}{thing}" for kind, (_, count) in KINDS.items() for thing in range(count)]
    found = first_answers(ANSWERS)
    assert [one["metadata"]["label"] for one in found] == wanted
    assert all(one["question_id"].endswith("-0") for one in found)


@pytest.mark.parametrize(
    ("refused", "correct", "expected"),
    [(True, False, REFUSED), (False, True, NAMED), (False, False, OTHER)],
)
def test_colours(refused: bool, correct: bool, expected: str) -> None:
    assert colour(answer("seen", "knife", 0, refused=refused, correct=correct)) == expected


def test_a_drawing_is_written(tmp_path: Path) -> None:
    images = tmp_path / "world" / "images"
    images.mkdir(parents=True)
    for one in ANSWERS:
        matplotlib.image.imsave(images / one["metadata"]["image"], np.zeros((4, 4, 3)))
    for arm in ARMS:
        folder = tmp_path / "arms" / arm / "evaluate" / "pictures"
        folder.mkdir(parents=True)
        write_jsonl(folder / "answers.jsonl", ANSWERS)
    plot(tmp_path, tmp_path / "answers.png")
    assert matplotlib.image.imread(tmp_path / "answers.png").std() > 0
