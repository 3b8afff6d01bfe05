"""JSON files -> their rows: a list, or one value a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.files import json_values


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
    index = -1
    for index, value in enumerate(json_values(path)):
        where = f"{path}: record number {index + 1}"
        if not isinstance(value, dict | UserError):
            value = UserError(f"{where}: expected a JSON object, got {kind(value)}")
        yield where, value
    if index < 0:
        raise UserError(f"{path}: holds no records")


def kind(value: Any) -> str:
    """A JSON value in words."""
    names = {type(None): "nothing", dict: "an object", list: "a list", bool: "true/false"}
    return names.get(type(value), f"{value!r:.40}")
