"""JSON files -> their rows: a list, or one value a line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import read_text

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
    text = read_text(path)
    _refuse_object(text, path)
    try:
        values: Iterable[Any] = (
            json.loads(text) if text.lstrip().startswith("[") else _json_lines(text, path)
        )
    except json.JSONDecodeError as error:
        raise _malformed(path, error, error.lineno) from error
    except RecursionError as error:
        raise UserError(f"{path}: malformed JSON: nested too deeply") from error
    if not values:
        raise UserError(f"{path}: holds no records")
    for index, value in enumerate(values):
        where = f"{path}: record number {index + 1}"
        if not isinstance(value, dict | UserError):
            value = UserError(f"{where}: expected a JSON object, got {kind(value)}")
        yield where, value


def _refuse_object(text: str, path: Path) -> None:
    """Refuses a file that is one JSON object, unless that is a record on one line."""
    if not text.lstrip().startswith("{"):
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # lines of objects, or malformed: said later
        return
    if "\n" in text.strip() or not RECORD_KEYS & value.keys():
        keys = ", ".join(map(repr, list(value)[:5]))
        raise UserError(
            f"{path}: line 1: holds one JSON object (keys {keys}), not a list of records: write a "
            "list [...], or one record a line"
        )


def kind(value: Any) -> str:
    """A JSON value in words."""
    names = {type(None): "nothing", dict: "an object", list: "a list", bool: "true/false"}
    return names.get(type(value), f"{value!r:.40}")


def _json_lines(text: str, path: Path) -> list[Any]:
    # Not splitlines(): JSON strings may hold U+2028 and other "line ends" as they are.
    values: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            # The error's own line is 1: each line was parsed alone. Place it in the file.
            values.append(_malformed(path, error, number))
        except RecursionError:
            values.append(UserError(f"{path}: malformed JSON at line {number}: nested too deeply"))
    return values


def _malformed(path: Path, error: json.JSONDecodeError, line: int) -> UserError:
    return UserError(f"{path}: malformed JSON at line {line}, column {error.colno}: {error.msg}")
