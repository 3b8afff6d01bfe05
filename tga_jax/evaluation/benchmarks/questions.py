"""Any LLaVA question file: {"question_id", "image", "text"}, and what it may say besides.

"label"             the right answer; "accept": further right ones
"category"          the scene, unless the option `scene` names other keys
"harmful"           true or false
"image_caption" or "caption", "retrieved"    texts that the prompt may have
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.options import yes_or_no
from tga_jax.evaluation.benchmarks.read_table import id_of, read_rows, text_of
from tga_jax.evaluation.items import EvalItem, Missing, scene_name

OPTIONS = ("scene", "harmful", "only")
_OWN = {"question_id", "image", "text", "label", "harmful", "image_caption"}


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """Reads a question file.

    Options: scene: one or two keys of the records, joined by "+" (category); harmful: yes or no
    where the records don't say; only: "kind:what+describe" keeps records whose "kind" is one of
    these.
    """
    keys = options.get("scene", "category").split("+")
    if len(keys) > 2:
        raise UserError(f"questions: scene={options['scene']!r}: one or two keys")
    default = yes_or_no(options, "harmful", default=None)
    key, _, wanted = options.get("only", "").partition(":")
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}: record number {number} (question_id {row.get('question_id')})"
        if key and str(row.get(key)) not in wanted.split("+"):
            continue
        yield _item(row, keys, default=default, image_dir=image_dir, where=where)


def _item(
    row: Mapping[str, Any],
    keys: list[str],
    *,
    default: bool | None,
    image_dir: Path | None,
    where: str,
) -> EvalItem:
    harmful, label = row.get("harmful", default), row.get("label")
    if harmful not in (True, False, None):
        raise UserError(f'{where}: "harmful" must be true or false, got {harmful!r:.40}')
    extra = {name: value for name, value in row.items() if name not in _OWN}
    if "image_caption" in row:
        extra["caption"] = row["image_caption"]
    image = row.get("image")
    return EvalItem(
        id=id_of(row, "question_id", where=where),
        text=text_of(row, "text", where=where),
        image=None if image is None else text_of(row, "image", where=where),
        image_dir=image_dir,
        scene=scene_name(*(row.get(key) for key in keys)),
        harmful=None if harmful is None else bool(harmful),
        label=None if label is None else str(label),
        extra=extra,
    )
