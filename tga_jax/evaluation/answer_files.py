"""Answers that were made elsewhere, in the files that evaluation tools write.

LLaVA          {"question_id", "prompt", "text", "model_id"}, JSONL; also our own answers.jsonl
lmms-eval      {"doc_id", "doc", "input", "resps", "filtered_resps"}, the samples JSONL
VLMEvalKit     index, question, prediction, category; .tsv, .csv or .xlsx
anything else  JSONL, a JSON list, .csv, .tsv or .xlsx with a column that is named
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.columns import column, harmful_of, known
from tga_jax.evaluation.benchmarks.read_table import Row, columns_of, read_rows
from tga_jax.evaluation.items import EvalItem, scene_name

TEXT_COLUMNS = ("text", "prediction", "filtered_resps", "resps")
ID_COLUMNS = ("question_id", "index", "doc_id", "id")
PROMPT_COLUMNS = ("prompt", "question", "input")
SCENE_COLUMNS = ("category", "scene")


@dataclasses.dataclass(frozen=True)
class AnswerFile:
    """What a file of answers holds.

    Attributes:
        answered: the questions and their answers.
        model: who answered; "": the file does not say.
        has_ids: whether a column has the ids of the questions.
    """

    answered: list[tuple[EvalItem, str]]
    model: str
    has_ids: bool


def read_answers(
    path: Path, *, text: str = "", identity: str = "", harmful: str = "", scene: str = ""
) -> AnswerFile:
    """The answers of a file, and the questions as far as it has them.

    Where no column has the ids, an answer's id is the number of its row, from 1.

    Args:
        path: the file.
        text: the column of the answers; "": the first of `TEXT_COLUMNS` that is there.
        identity: the column of the questions' ids; "": the first of `ID_COLUMNS` that is there.
        harmful: the column that says whether a request is harmful; "": "harmful", if it is there.
        scene: the column to break the figures down by; "": "category" or "scene".

    Raises:
        UserError: naming the file, the row and the key.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: the file has no rows, and so no answers")
    names = columns_of(rows)
    chosen = {
        "text": column(names, text, TEXT_COLUMNS, key="config.judge.column", path=path),
        "id": column(names, identity, ID_COLUMNS, key="config.judge.id_column", path=path),
        "prompt": column(names, "", PROMPT_COLUMNS),
        "harmful": column(
            names, harmful, ("harmful",), key="config.judge.harmful_column", path=path
        ),
        "scene": column(names, scene, SCENE_COLUMNS, key="config.judge.scene_column", path=path),
    }
    if chosen["text"] is None:
        raise UserError(f"{path}: no known column has the answers; {_advice(names, chosen)}")
    answered = [
        (_item(row, chosen, number, path=path), _answer(row, chosen["text"], number, path=path))
        for number, row in enumerate(rows, start=1)
    ]
    return AnswerFile(answered, _model(rows), chosen["id"] is not None)


def repeated(answered: Sequence[tuple[EvalItem, str]]) -> list[int | str]:
    """The id of every answer whose id an earlier one has, in their order."""
    seen: set[int | str] = set()
    found = []
    for item, _ in answered:
        if item.id in seen:
            found.append(item.id)
        seen.add(item.id)
    return found


def _advice(names: Sequence[str], chosen: Mapping[str, str | None]) -> str:
    """Which columns may be the answers: those that are known as nothing else."""
    others = [name for name in names if name not in chosen.values()]
    if not others:
        return f"it has only {known(names)}, which are no answers"
    return f"set config.judge.column to one of {known(others)}"


def _item(row: Row, chosen: Mapping[str, str | None], number: int, *, path: Path) -> EvalItem:
    values = {name: row.get(key) if key else None for name, key in chosen.items()}
    about = row.get("metadata")
    ours = about if isinstance(about, dict) else {}  # of an answers file of this project
    harmful = values["harmful"] if chosen["harmful"] else ours.get("harmful")
    scene = scene_name(values["scene"]) if chosen["scene"] else str(ours.get("scene") or "")
    identity = values["id"]
    image, folder = _image(ours)
    return EvalItem(
        id=identity if isinstance(identity, int | str) and identity != "" else number,
        text=str(values["prompt"] or ""),
        image=image,
        image_dir=folder,
        scene=scene,
        harmful=harmful_of(
            harmful, key=chosen["harmful"] or "harmful", where=f"{path}: record number {number}"
        ),
    )


def _image(ours: Mapping[str, Any]) -> tuple[str | None, Path | None]:
    """The image and its folder that an answers file of this project names, if it is still there."""
    image, folder = ours.get("image"), ours.get("image_dir")
    if isinstance(image, str) and isinstance(folder, str) and (Path(folder) / image).is_file():
        return image, Path(folder)
    return None, None


def _answer(row: Row, key: str, number: int, *, path: Path) -> str:
    """The answer; lists of one, as lmms-eval nests them, are opened; nothing there is ""."""
    value: Any = row.get(key)
    while isinstance(value, list) and value:
        value = value[0]
    if value is None or value == []:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f'{path}: record number {number}: "{key}" must be a text, got {value!r:.40}; another '
            "column is chosen by config.judge.column"
        )
    return value


def _model(rows: Sequence[Row]) -> str:
    """The name that all rows give, or ""."""
    names = {str(row.get("model_id") or "") for row in rows}
    return names.pop() if len(names) == 1 else ""
