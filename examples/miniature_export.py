"""Does the aligned model of the miniature experiment say the same in transformers?

    python -m examples.miniature_export --workdir=runs/miniature --arm=tga-answer

Compares the answers that job `evaluate` wrote with greedy answers of the arm's `export/` folder by
transformers alone (torch is needed), on questions about harmful and harmless images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.first_run.check import transformers_answers
from tga_jax.files import read_jsonl
from tga_jax.report.examples import spaced


def differing(workdir: Path, arm: str, count: int) -> list[str]:
    """One line a question that is answered otherwise, of `count` taken from the whole list."""
    folder = workdir / "arms" / arm
    rows = list(read_jsonl(folder / "evaluate" / "pictures" / "answers.jsonl"))
    rows = [rows[index] for index in spaced(len(rows), count)]
    questions = [{"text": row["prompt"], "image": row["metadata"]["image"]} for row in rows]
    theirs = transformers_answers(folder / "export", workdir / "world" / "images", questions)
    return [
        f"{row['question_id']}: tga_jax says {row['text']!r}, transformers {their!r}"
        for row, their in zip(rows, theirs, strict=True)
        if row["text"] != their
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--arm", default="tga-answer")
    parser.add_argument("--questions", type=int, default=100)
    flags = parser.parse_args()
    lines = differing(flags.workdir, flags.arm, flags.questions)
    print(*lines, f"{flags.questions - len(lines)} of {flags.questions} answers equal", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
