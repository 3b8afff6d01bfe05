"""ScienceQA (arXiv 2209.09513) as LLaVA asks it.

problems.json               {"1": {"question", "choices", "answer", "image", "split", ...}}
pid_splits.json             {"test": ["4", ...], ...}
llava_test_CQM-A.json       LLaVA rows: the question with its context and choices
images/test/<id>/image.png
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import read_rows, text_of
from tga_jax.evaluation.items import FILES, EvalItem, Missing
from tga_jax.files import read_json

LETTERS = "ABCDE"
INSTRUCTION = "Answer with the option's letter from the given choices directly."
OPTIONS = ("split", "letter")


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Options: split (test); letter: "no" leaves LLaVA's request for a single letter out."""
    split = options.get("split", "test")
    files = [path / n for n in ("problems.json", "pid_splits.json", f"llava_{split}_CQM-A.json")]
    absent = [file for file in files if not file.is_file()]
    yield from (
        Missing(f"{file}: no such file", unit=FILES, whole=len(files), name=file.name)
        for file in absent
    )
    if absent:
        return
    problems, splits = read_json(files[0]), read_json(files[1])
    if split not in splits:
        raise UserError(f"{files[1]}: has no split {split!r}")
    rows = {str(row.get("id")): row for row in read_rows(files[2])}
    folder = image_dir or path / "images" / split
    for problem in map(str, splits[split]):
        if problem not in problems or problem not in rows:
            yield Missing(f"{files[0] if problem in rows else files[2]}: no problem {problem}")
            continue
        where = f"{files[2]}: id {problem}"
        ask = options.get("letter", "yes") == "yes"
        yield _item(rows[problem], problems[problem], folder, ask=ask, where=where)


def _item(
    row: Mapping[str, Any], problem: Mapping[str, Any], folder: Path, *, ask: bool, where: str
) -> EvalItem:
    try:
        choices, answer = list(problem["choices"]), LETTERS[problem["answer"]]
        question = row["conversations"][0]["value"]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f'{where}: needs "choices", "answer" and "conversations"') from error
    text = question.replace("<image>", "").strip()
    image = row.get("image")
    if ask:
        text += f"\n{INSTRUCTION}"
    return EvalItem(
        id=str(row["id"]),
        # LLaVA's script tells the questions with an image by this mark in the saved prompt.
        text=text if image is None else f"<image>\n{text}",
        image=None if image is None else text_of(row, "image", where=where),
        image_dir=folder,
        scene="text" if image is None else "image",
        harmful=False,
        label=answer,
        extra={"choices": choices},
    )
