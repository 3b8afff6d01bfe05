"""Can a projector make what job `oracle` finds by free embeddings? Its samples, in the miniature.

    python -m examples.miniature_projector --workdir=runs/projector

Takes a few harmful and as many harmless development images with their captions, and writes
few.jsonl, the questions that job `oracle` and the arms are asked, and few.json, the same images as
rows that train the guide alone. docs/method.md has all commands and what came of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tga_jax.analysis.prompts import evenly
from tga_jax.files import read_jsonl, write_json, write_jsonl

KIND = "describe"  # of question, which a caption answers


def chosen(questions: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """As many harmful and as many harmless questions, taken evenly from the list of each kind."""
    out = []
    for harmful in (True, False):
        rows = [row for row in questions if row["kind"] == KIND and row["harmful"] is harmful]
        if count > len(rows):
            raise SystemExit(f"--count={count}: there are {len(rows)} questions of a kind")
        out += evenly(rows, count)
    return out


def as_row(question: dict[str, Any]) -> dict[str, Any]:
    """A question as a row with a caption and no answer, which trains the guide alone."""
    return {
        "id": question["question_id"],
        "image": question["image"],
        "conversations": [{"from": "human", "value": f"<image>\n{question['text']}"}],
        "image_caption": question["image_caption"],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="where job miniature has run")
    parser.add_argument("--count", type=int, default=16, help="of images of each kind")
    args = parser.parse_args()
    questions = list(read_jsonl(args.workdir / "world/eval_dev/questions.jsonl"))
    few = chosen(questions, args.count)
    write_jsonl(args.workdir / "few.jsonl", few)
    write_json(args.workdir / "few.json", [as_row(question) for question in few])


if __name__ == "__main__":
    main()
