"""The images that a projector is trained on are the samples of the oracle, with no answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples import miniature_projector
from tga_jax.analysis.oracle import captioned
from tga_jax.data.records import parse_record
from tga_jax.evaluation.benchmarks.load import load
from tga_jax.evaluation.benchmarks.registry import parse_entries
from tga_jax.files import read_json, read_jsonl, write_jsonl


def _question(number: int, *, harmful: bool, kind: str) -> dict[str, object]:
    return {
        "question_id": f"{number}", "image": f"dev/{number}.png", "text": "what is it?",
        "kind": kind, "harmful": harmful, "image_caption": f"a cup number {number}",
    }  # fmt: skip


def test_rows_and_questions_are_of_the_oracles_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [
        _question(2 * n + (kind == "what"), harmful=n % 3 == 0, kind=kind)
        for n in range(30)
        for kind in ("describe", "what")
    ]
    path = tmp_path / "world/eval_dev/questions.jsonl"
    path.parent.mkdir(parents=True)
    write_jsonl(path, questions)
    monkeypatch.setattr(sys, "argv", ["", f"--workdir={tmp_path}", "--count=4"])
    miniature_projector.main()
    few = list(read_jsonl(tmp_path / "few.jsonl"))
    (tmp_path / "dev").mkdir()
    for question in questions:
        (tmp_path / str(question["image"])).touch()
    (entry,) = parse_entries(f"questions:{path}?images={tmp_path}&only=kind:describe")
    whole = load(entry, drawings=tmp_path)
    assert [row["question_id"] for row in few] == [item.id for item in captioned([whole], 4)]
    for row, question in zip(read_json(tmp_path / "few.json"), few, strict=True):
        record = parse_record(row, where="few.json")
        assert record.guide_only and record.caption == question["image_caption"]
        assert record.images == (question["image"],)
        assert record.turns[0].question == f"<image>\n{question['text']}"
