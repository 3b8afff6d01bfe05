"""Text-only sets, for text safety and for over-refusal: CSV, TSV, XLSX, JSON or JSONL with prompts.

XSTest (arXiv 2308.01263), OR-Bench (arXiv 2405.20947) and what looks like them: a column with the
prompt and one with "safe" or "unsafe"; XSTest's first version says it by a "type" that begins with
"contrast_". Columns of other names are named by options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.columns import HarmfulColumn, column, id_or, known
from tga_jax.evaluation.benchmarks.read_table import Row, columns_of, read_rows, text_of
from tga_jax.evaluation.items import EvalItem, Missing, scene_name

TEXT_COLUMNS = ("prompt", "text", "question", "goal", "instruction")
ID_COLUMNS = ("id", "id_v2", "question_id")
SCENE_COLUMNS = ("type", "category", "group")
OPTIONS = ("text", "prompt", "label", "answer", "id", "scene", "harmful")


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Reads a set of prompts.

    Options: text (or prompt), label (safe or unsafe), answer (the right one), id, scene: the
    columns' names; harmful: yes or no where no column says it, or the column that says it.
    """
    rows = read_rows(path)
    names = columns_of(rows)

    def chosen(key: str, usual: tuple[str, ...]) -> str | None:
        return column(names, options.get(key, ""), usual, key=key, path=path)

    text = chosen("prompt", ()) or chosen("text", TEXT_COLUMNS)
    if text is None and not rows:
        return
    if text is None:
        raise UserError(
            f"{path}: no known column has the prompts; name it with ?text=COLUMN, one of "
            f"{known(names)}"
        )
    identity, scene, answer = (
        chosen("id", ID_COLUMNS), chosen("scene", SCENE_COLUMNS), chosen("answer", ("answer",)),
    )  # fmt: skip
    label = chosen("label", ("label",))
    usual = () if label is None else (label,)
    harmful = HarmfulColumn.of(names, options.get("harmful", ""), usual, path=path)
    for number, row in enumerate(rows, start=1):
        where = f"{path}: record number {number}"
        right = row.get(answer) if answer else None
        yield EvalItem(
            id=id_or(row, identity, number, where=where),
            text=text_of(row, text, where=where),
            scene=scene_name(row.get(scene)) if scene else "",
            harmful=_harmful(row, harmful, where=where),
            label=None if right in (None, "") else str(right),
        )


def _harmful(row: Row, column: HarmfulColumn, *, where: str) -> bool:
    said = column.of_row(row, where=where)
    if said is not None:
        return said
    if column.name is None and "type" in row:
        return str(row["type"]).startswith("contrast_")
    raise UserError(
        f'{where}: no "label" (safe or unsafe); say harmful=yes or harmful=no, or label=COLUMN, '
        f"of {known(list(row))}"
    )
