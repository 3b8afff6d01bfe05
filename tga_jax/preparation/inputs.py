"""What job `prepare` reads: the records, the texts beside them, and whether any of it changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tga_jax.data.image_files import place_of
from tga_jax.data.prepared import VERSION
from tga_jax.data.records import BadRow, Record, named, read_rows
from tga_jax.data.sample_sets import duplicate_ids
from tga_jax.data.side_texts import (
    FIELDS,
    SIDE_FILES,
    about_texts,
    images_of,
    read_side_files,
    with_texts,
)
from tga_jax.errors import UserError
from tga_jax.files import file_digest
from tga_jax.run.fingerprint import stat_digest


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The samples and the texts beside them that job `prepare` works on.

    Attributes:
        path: the LLaVA file.
        files: those of `SIDE_FILES` that there are, and None for the others.
        records: those rows that are records, captions and texts filled in.
        bad: the other rows.
        about_texts: what the files of texts are to the records.
    """

    path: Path
    files: Mapping[str, Path | None]
    records: list[Record]
    bad: list[BadRow]
    about_texts: Mapping[str, Mapping[str, Any]]

    @property
    def total(self) -> int:
        """How many rows there are."""
        return len(self.records) + len(self.bad)


def read_inputs(path: str, files: Mapping[str, Path | None]) -> Inputs:
    """Reads a LLaVA file and the texts beside it; a broken row is no error here.

    Args:
        path: config.data.path.
        files: of `SIDE_FILES`.

    Raises:
        UserError: a file is missing or broken as a whole.
    """
    if not path or Path(path).is_dir():
        raise UserError(f"config.data.path={path!r}: job prepare needs a LLaVA JSON file")
    texts = read_side_files(files)
    records, bad = read_rows(Path(path))
    images = images_of(records)
    filled = with_texts(records, texts, images)
    return Inputs(Path(path), files, filled, bad, about_texts(texts, filled, images))


def made_from(
    inputs: Inputs, image_dir: Path, *, validation: float, max_bad_fraction: float
) -> dict[str, Any]:
    """Returns all that decides what is written; images by name, size and time of change."""
    names = sorted({name for r in inputs.records if not r.tox for name in r.images})
    return {
        "version": VERSION,
        "records": file_digest(inputs.path),
        "images": stat_digest(place_of(image_dir, name) for name in names),
        "validation": validation,
        "max_bad_fraction": max_bad_fraction,
    } | {name: file_digest(path) if path else None for name, path in inputs.files.items()}


def about_ids(inputs: Inputs) -> dict[str, Any]:
    """Returns ids that occur twice, side texts without a record, and images without texts."""
    images = [record for record in inputs.records if record.images and not record.tox]
    out: dict[str, Any] = {"duplicate_ids": duplicate_ids(inputs.records)} | dict(
        inputs.about_texts
    )
    for name in SIDE_FILES:
        lacking = (r.id for r in images if getattr(r, FIELDS[name]) is None)
        out[f"pictures_without_{FIELDS[name]}"] = named(lacking)
    return out
