"""Files that all processes of a run share: the first process alone writes and reads them.

Every process calls these functions, in the same order. What the first one finds on the disk is
sent to the others, so that all decide alike, however late a shared file system shows a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax import files
from tga_jax.cluster import hosts


def write_json(path: Path, value: Any) -> None:
    """The first process writes a JSON file, as `files.write_json` does."""
    if hosts.is_first():
        files.write_json(path, value)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """As `files.write_jsonl`; the rows of the other processes are not looked at."""
    if hosts.is_first():
        files.write_jsonl(path, rows)


def remove(path: Path) -> None:
    """Removes a file; one that does not exist is no error."""
    if hosts.is_first():
        path.unlink(missing_ok=True)


def read_json(path: Path, *, missing_ok: bool = False) -> Any:
    """As `files.read_json`, with the same value in every process."""
    return hosts.broadcast_from_first(lambda: files.read_json(path, missing_ok=missing_ok))
