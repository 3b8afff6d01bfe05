"""Files that survive being killed: whole or not there, and lines that are appended.

Of several processes the first alone writes, except where `every_process` is said.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.parallel import hosts


def write_text(path: Path, text: str, *, every_process: bool = False) -> None:
    """Write a whole file, or nothing under its name."""
    if not (every_process or hosts.is_first()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any, *, every_process: bool = False) -> None:
    """`write_text` of JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text, every_process=every_process)


def write_jsonl(path: Path, rows: Iterable[Any], *, every_process: bool = False) -> None:
    """`write_text` of one JSON value a line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text, every_process=every_process)


def append_jsonl(path: Path, rows: Iterable[Any], *, every_process: bool = False) -> None:
    """Add lines to a file of finished work."""
    if not (every_process or hosts.is_first()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_appended(path: Path) -> list[Any]:
    """The whole lines of a file of finished work; a last line cut short by a kill is removed."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_text(path, whole.decode(), every_process=True)
    return [json.loads(line) for line in whole.split(b"\n")[:-1]]


def digest(value: Any) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
