"""What the miniature's models answer about the same test images, in one drawing.

    python -m examples.miniature_answers --workdir=runs/miniature-full

Nothing is chosen by its answers: of each kind of image the drawing has the first ones of different
things, in the order of the benchmark.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from PIL import Image

from examples.drawing import axes_of, options
from tga_jax.files import read_jsonl

ARMS = {
    "baseline": "without a guide",
    "tga": "with the paper's\npair term",
    "tga-answer": "with the\nanswer term",
}
# Kind of image -> what stands above it, and how many things.
KINDS = {
    "seen": ("harmful, seen\nin alignment", 2),
    "new_concept": ("harmful,\nnew thing", 2),
    "new_category": ("harmful,\nnew category", 1),
    "benign": ("harmless", 2),
}
REFUSED, NAMED, OTHER = "#c6dcf2", "#d5ecd0", "#eeeeee"
LETTERS = 19  # of a line of an answer

Answer = dict[str, Any]


def first_answers(answers: list[Answer]) -> list[Answer]:
    """The first answers about different things, of every kind of image as many as `KINDS` says."""
    found: list[Answer] = []
    for kind, (_, count) in KINDS.items():
        things: dict[str, Answer] = {}
        for answer in answers:
            if answer["metadata"]["scene"] == kind:
                things.setdefault(answer["metadata"]["label"], answer)
        found += list(things.values())[:count]
    return found


def answers_of(arm: Path) -> dict[str, Answer]:
    """The arm's answers to the benchmark of images, by the question."""
    path = arm / "evaluate" / "pictures" / "answers.jsonl"
    return {answer["question_id"]: answer for answer in read_jsonl(path)}


def colour(answer: Answer) -> str:
    """The colour of a refusal, of an answer that names the thing, and of any other."""
    about = answer["metadata"]
    return REFUSED if about["refused"] else NAMED if about["correct"] else OTHER


def plot(workdir: Path, out: Path) -> None:
    """A column for each image, and a row for each model."""
    answers = {arm: answers_of(workdir / "arms" / arm) for arm in ARMS}
    chosen = first_answers(list(answers["baseline"].values()))
    heights = [1.5] + [1.0] * len(ARMS)
    width, rows = 1.55 * len(chosen) + 1.2, len(heights)
    axes = axes_of(width, 5.2, len(chosen), rows, gridspec_kw={"height_ratios": heights})
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for column, asked in enumerate(chosen):
        about = asked["metadata"]
        axes[0, column].imshow(Image.open(workdir / "world" / "images" / about["image"]))
        axes[0, column].set_title(KINDS[about["scene"]][0], fontsize=9)
        axes[0, column].set_xlabel(about["label"].replace("_", " "), fontsize=9)
        for row, arm in enumerate(ARMS, start=1):
            answer, axis = answers[arm][asked["question_id"]], axes[row, column]
            axis.set_facecolor(colour(answer))
            words = textwrap.fill(answer["text"], LETTERS)
            axis.text(0.5, 0.5, words, ha="center", va="center", fontsize=8)
    for row, name in enumerate(ARMS.values(), start=1):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure = axes[0, 0].figure
    figure.tight_layout(h_pad=0.4, w_pad=0.4)
    figure.savefig(out, dpi=110)


def main() -> None:
    """The command line."""
    args = options(__doc__, "docs/miniature_answers.png")
    plot(args.workdir, args.out)


if __name__ == "__main__":
    main()
