"""Text-only sets, for text safety and for over-refusal: CSV, TSV or JSONL with prompts.

XSTest (arXiv 2308.01263) and what looks like it: a column with the prompt and one with
"safe" or "unsafe"; XSTest's first version says it by a "type" that begins with "contrast_".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.options import yes_or_no
from tga_jax.evaluation.benchmarks.read_table import read_rows, text_of
from tga_jax.evaluation.items import EvalItem, Missing, scene_name

PROMPT_COLUMNS = ("prompt", "text", "question", "goal", "instruction")
ID_COLUMNS = ("id", "id_v2", "question_id")
SCENE_COLUMNS = ("type", "category", "group")
LABELS = {"safe": False, "benign": False, "unsafe": True, "harmful": True}
OPTIONS = ("prompt", "scene", "harmful")


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Options: prompt, scene: the columns' names; harmful: yes or no where no column says it."""
    rows = read_rows(path)
    columns = rows[0].keys() if rows else ()
    prompt = options.get("prompt") or _first(columns, PROMPT_COLUMNS)
    scene = options.get("scene") or _first(columns, SCENE_COLUMNS)
    name = _first(columns, ID_COLUMNS)
    if prompt is None:
        raise UserError(f"{path}: no column of prompts; name it with the option prompt=")
    default = yes_or_no(options, "harmful", default=None)
    for number, row in enumerate(rows, start=1):
        where = f"{path}: record number {number}"
        answer = row.get("answer")
        yield EvalItem(
            id=row[name] if name and row.get(name) not in (None, "") else number,
            text=text_of(row, prompt, where=where),
            scene=scene_name(row.get(scene)) if scene else "",
            harmful=_harmful(row, default, where=where),
            label=answer if isinstance(answer, str) else None,
        )


def _harmful(row: Mapping[str, Any], default: bool | None, *, where: str) -> bool:
    label = row.get("label")
    if isinstance(label, str) and label.strip().lower() in LABELS:
        return LABELS[label.strip().lower()]
    if label not in (None, ""):
        raise UserError(f'{where}: "label" must be one of {", ".join(LABELS)}, got {label!r:.40}')
    if default is not None:
        return default
    if "type" in row and "label" not in row:
        return str(row["type"]).startswith("contrast_")
    raise UserError(f'{where}: no "label" (safe or unsafe); or say harmful=yes or harmful=no')


def _first(columns: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)
