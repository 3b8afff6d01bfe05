"""JSON, JSONL, CSV and Excel files of benchmarks -> checked rows; every error is one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_xlsx import read_xlsx
from tga_jax.files import read_text

Row = dict[str, Any]


def read_json(path: Path) -> Any:
    """A whole JSON file.

    Raises:
        UserError: the file is missing, no text or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: malformed JSON: {error}") from error


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSON list, of JSON lines, or of a CSV, TSV or XLSX file with a header."""
    if path.suffix.lower() == ".xlsx":
        return list(read_xlsx(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_rows(path)
    text = read_text(path)
    values = read_json(path) if text.lstrip().startswith("[") else _json_lines(path, text)
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise UserError(f"{path}: record number {number} is not a JSON object")
    return values


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


def _json_lines(path: Path, text: str) -> list[Any]:
    values = []
    # Not splitlines(): JSON strings may hold U+2028 and other "line ends" as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{path}: malformed JSON at line {number}: {error}") from error
    return values


def _csv_rows(path: Path) -> list[Row]:
    text = read_text(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{path}: record number {number} has another number of columns")
    return rows
