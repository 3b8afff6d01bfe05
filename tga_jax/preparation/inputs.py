"""What job `prepare` reads: the records, the texts beside them, and whether any of it changed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.data.prepared import VERSION
from tga_jax.data.records import Record, texts_by_id
from tga_jax.data.stored import Outcome, Row
from tga_jax.errors import UserError
from tga_jax.files import digest, file_digest
from tga_jax.run.samples import SIDE_FILES, side_file
from tga_jax.run.usable_rows import named, read_rows


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The input, read.

    Attributes:
        path: the LLaVA file.
        total: how many rows it has.
        rows: those that are records, by their place in the file, captions and texts filled in.
        bad: the others.
        side_texts: "captions" and "retrieved" -> {id: text}, where there is such a file.
    """

    path: Path
    total: int
    rows: list[Row]
    bad: list[Outcome]
    side_texts: Mapping[str, Mapping[str, str]]


def read_inputs(config: ConfigDict, workdir: Path) -> Inputs:
    """Reads config.data.path and the texts beside it; a broken row is no error here.

    Raises:
        UserError: a file is missing or broken as a whole.
    """
    path = Path(config.data.path)
    if not config.data.path or path.is_dir():
        raise UserError(f"config.data.path={str(path)!r}: job prepare needs a LLaVA JSON file")
    files = {name: side_file(config, workdir, name) for name in SIDE_FILES}
    texts = {name: texts_by_id(p, key=SIDE_FILES[name]) for name, p in files.items() if p}
    rows, bad = read_rows(path)
    filled = [(number, _filled(record, texts)) for number, record in rows]
    return Inputs(path, len(rows) + len(bad), filled, bad, texts)


def _filled(record: Record, texts: Mapping[str, Mapping[str, str]]) -> Record:
    return dataclasses.replace(
        record,
        caption=record.caption or texts.get("captions", {}).get(record.id),
        retrieved=record.retrieved or texts.get("retrieved", {}).get(record.id),
    )


def made_from(config: ConfigDict, workdir: Path, inputs: Inputs, image_dir: Path) -> dict[str, Any]:
    """All that decides what is written; pictures by name, size and time of change."""
    names = sorted({name for _, r in inputs.rows if not r.tox for name in r.images})
    files = {name: side_file(config, workdir, name) for name in SIDE_FILES}
    return {
        "version": VERSION,
        "records": file_digest(inputs.path),
        "images": digest([_stat(image_dir / name) for name in names]),
        "validation": config.data.validation,
        "max_bad_fraction": config.data.max_bad_fraction,
    } | {name: file_digest(path) if path else None for name, path in files.items()}


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_size, about.st_mtime_ns


def about_ids(inputs: Inputs) -> dict[str, Any]:
    """Ids that occur twice, side texts without a record, and pictures without texts."""
    ids = Counter(record.id for _, record in inputs.rows)
    pictures = [record for _, record in inputs.rows if record.images and not record.tox]
    out: dict[str, Any] = {"duplicate_ids": named(name for name, n in ids.items() if n > 1)}
    for name, texts in inputs.side_texts.items():
        out[name] = {"texts": len(texts), "unknown_ids": named(texts.keys() - ids.keys())}
    out["pictures_without_caption"] = named(r.id for r in pictures if r.caption is None)
    out["pictures_without_retrieved"] = named(r.id for r in pictures if r.retrieved is None)
    return out
