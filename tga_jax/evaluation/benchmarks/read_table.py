"""JSON, JSONL, CSV and Excel files of benchmarks -> checked rows; every error is one line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_xlsx import read_xlsx
from tga_jax.files import json_values, read_text

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSON list, of JSON lines, or of a CSV, TSV or XLSX file with a header."""
    if path.suffix.lower() == ".xlsx":
        return list(read_xlsx(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_rows(path)
    rows = []
    for number, value in enumerate(json_values(path), start=1):
        if isinstance(value, UserError):
            raise value
        if not isinstance(value, dict):
            raise UserError(f"{path}: record number {number} is not a JSON object")
        rows.append(value)
    return rows


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The keys of all rows, in the order in which they first come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def text_of(row: Mapping[str, Any], key: str, *, where: str) -> str:
    """A text that must be there.

    Raises:
        UserError: naming the record.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{where}: "{key}" must be a text, got {value!r:.40}')
    return value


def id_of(row: Mapping[str, Any], key: str, *, where: str) -> int | str:
    """A record's id, in its JSON type."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise UserError(f'{where}: "{key}" must be a text or an integer, got {value!r:.40}')
    return value


def _csv_rows(path: Path) -> list[Row]:
    text = read_text(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    _check_delimiter(path, text, delimiter)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{path}: record number {number} has another number of columns")
    return rows


def _check_delimiter(path: Path, text: str, delimiter: str) -> None:
    """Refuse a header that is one column now and several with another delimiter."""
    first = text.partition("\n")[0]
    others = {";": "semicolons", "\t": "tabs", ",": "commas"}
    wanted = others.pop(delimiter)
    if len(next(csv.reader([first], delimiter=delimiter), [])) > 1:
        return
    for other, name in others.items():
        if len(next(csv.reader([first], delimiter=other), [])) > 1:
            ends = {"\t": "name it .tsv", ",": "name it .csv"}
            advice = ends.get(other, f"save it with {wanted}")
            raise UserError(
                f"{path}: its columns are separated by {name}, not by {wanted}; {advice}"
            )
