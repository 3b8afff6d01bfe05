"""JSON files -> their rows: a list, or one value a line."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import json_values, read_text

TABLES = (".csv", ".tsv", ".xlsx", ".parquet")
RECORD_KEYS = {"id", "question_id", "conversations"}  # one of them is in every row


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where, object) for every record; `where` is what an error message starts with.

    Raises:
        UserError: naming the file, the place in it and what is wrong there.
    """
    rows = list(tolerant_rows(path))
    for _, value in rows:
        if isinstance(value, UserError):
            raise value
    yield from ((where, value) for where, value in rows if not isinstance(value, UserError))


def tolerant_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    """As `json_rows`, with a UserError in the place of a row that is wrong on its own.

    Of a JSON list that is a value which is no object; of lines also one that is no JSON.

    Raises:
        UserError: for a file that can't be read, is empty, or is a malformed list.
    """
    if path.suffix.lower() in TABLES:
        raise UserError(
            f"{path}: is a table; write JSON (a list of records) or JSONL (one record on each line)"
        )
    values = json_values(path)
    begin = list(islice(values, 2))
    if begin and (len(begin) == 1 or isinstance(begin[0], UserError)):
        _refuse_object(path)
    index = -1
    for index, value in enumerate(chain(begin, values)):
        where = f"{path}: record number {index + 1}"
        if not isinstance(value, dict | UserError):
            value = UserError(f"{where}: it must be a JSON object, got {kind(value)}")
        yield where, value
    if index < 0:
        raise UserError(f"{path}: holds no records")


def _refuse_object(path: Path) -> None:
    """Refuses a file that is one JSON object, unless that is a record on one line."""
    text = read_text(path).strip()
    if not text.startswith("{"):
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # lines of objects, or malformed: said elsewhere
        return
    holds_more = any(isinstance(item, list | dict) for item in value.values())
    if "\n" in text or (holds_more and not RECORD_KEYS & value.keys()):
        keys = ", ".join(map(repr, list(value)[:5]))
        raise UserError(
            f"{path}: line 1: holds one JSON object (keys {keys}), not a list of records: write a "
            "list [...], or one record on each line"
        )


def kind(value: Any) -> str:
    """A JSON value in words."""
    names = {type(None): "nothing", dict: "an object", list: "a list", bool: "true/false"}
    return names.get(type(value), f"{value!r:.40}")
