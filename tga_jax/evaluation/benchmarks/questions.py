"""Any question file: JSON, JSONL, CSV, TSV or XLSX; LLaVA's {"question_id", "image", "text"}, and

"label"             the right answer; "accept": further right ones
"category"          the scene, unless the option `scene` names other columns
"harmful"           true or false
"image_caption" or "caption", "retrieved"    texts that the prompt may have

Columns of other names are named by options, so a benchmark that is not known here needs no code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.columns import HarmfulColumn, column, id_or, known
from tga_jax.evaluation.benchmarks.read_table import Row, columns_of, read_rows, text_of
from tga_jax.evaluation.items import EvalItem, Missing, scene_name

OPTIONS = ("text", "image", "label", "id", "scene", "harmful", "caption", "only")
TEXT_COLUMNS = ("text", "question", "prompt", "instruction")
IMAGE_COLUMNS = ("image", "image_path", "img")
ID_COLUMNS = ("question_id", "id", "index")
CAPTION_COLUMNS = ("image_caption", "caption")
_OWN = {"question_id", "image", "text", "label", "harmful", "image_caption"}


@dataclasses.dataclass(frozen=True)
class _Columns:
    text: str
    image: str | None
    label: str | None
    id: str | None
    scene: list[str]
    harmful: HarmfulColumn
    caption: str | None

    @classmethod
    def of(cls, names: list[str], options: Mapping[str, str], path: Path) -> _Columns:
        """The columns of a file that the options name, or that have their usual names."""

        def chosen(key: str, usual: tuple[str, ...]) -> str | None:
            return column(names, options.get(key, ""), usual, key=key, path=path)

        text = chosen("text", TEXT_COLUMNS)
        if text is None:
            raise UserError(
                f"{path}: no known column has the questions; name it with ?text=COLUMN, one "
                f"of {known(names)}"
            )
        scenes = options.get("scene", "category").split("+")
        if len(scenes) > 2:
            raise UserError(f"questions: scene={options['scene']!r}: name one or two columns")
        if "scene" in options:
            for name in scenes:
                column(names, name, (), key="scene", path=path)
        return cls(
            text=text,
            image=chosen("image", IMAGE_COLUMNS),
            label=chosen("label", ("label",)),
            id=chosen("id", ID_COLUMNS),
            scene=scenes,
            harmful=HarmfulColumn.of(names, options.get("harmful", ""), ("harmful",), path=path),
            caption=chosen("caption", CAPTION_COLUMNS),
        )


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Reads a file of questions: JSON, JSON lines, CSV or TSV.

    Options: text, image, label, id, caption: the columns' names; scene: one or two columns,
    joined by "+" (category); harmful: yes or no for all questions that don't say it themselves, or
    the column that says it; only: "kind:what+describe" keeps records whose "kind" is one of these.
    """
    rows = read_rows(path)
    if not rows:
        return
    names = columns_of(rows)
    columns = _Columns.of(names, options, path)
    key, _, wanted = options.get("only", "").partition(":")
    column(names, key, (), key="only", path=path)
    for number, row in enumerate(rows, start=1):
        if key and str(row.get(key)) not in wanted.split("+"):
            continue
        yield _item(row, columns, number, image_dir=image_dir, path=path)


def _item(
    row: Row, columns: _Columns, number: int, *, image_dir: Path | None, path: Path
) -> EvalItem:
    name = columns.id or "question_id"
    where = f"{path}: record number {number} ({name} {row.get(name)})"
    image = row.get(columns.image) if columns.image else None
    label = row.get(columns.label) if columns.label else None
    return EvalItem(
        id=id_or(row, columns.id, number, where=where),
        text=text_of(row, columns.text, where=where),
        image=None if image in (None, "") else text_of(row, str(columns.image), where=where),
        image_dir=image_dir,
        scene=scene_name(*(row.get(key) for key in columns.scene)),
        harmful=columns.harmful.of_row(row, where=where),
        label=None if label in (None, "") else str(label),
        extra=_extra(row, columns.caption),
    )


def _extra(row: Row, caption: str | None) -> dict[str, Any]:
    extra = {name: row[name] for name in row if name not in _OWN | {"caption"}}
    said = row.get(caption) if caption else None
    return extra | ({} if said in (None, "") else {"caption": said})
