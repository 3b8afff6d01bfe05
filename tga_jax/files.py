"""Files that survive being killed: whole or not there, and lines that are appended.

Of several processes the first alone writes, except where `every_process` is said.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tga_jax.cluster import hosts
from tga_jax.errors import UserError

OLD = 3600.0  # seconds after which nobody is still writing a file


def write_text(path: Path, text: str, *, every_process: bool = False) -> None:
    """Write a whole file, or nothing under its name."""
    if not (every_process or hosts.is_first()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_old(path)
    # Of this process alone: two that write the same file must not take each other's away.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_old(path: Path) -> None:
    """What killed processes left of this file, known by its age: they may be of another host."""
    for old in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if time.time() - old.lstat().st_mtime > OLD:
                old.unlink()


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


def count_appended(path: Path) -> tuple[Any, int]:
    """The first line's value (None: no line) and the number of lines, one in memory at a time.

    A last line cut short by a kill is removed, as `read_appended` does.
    """
    if not path.exists():
        return None, 0
    first, count, whole = b"null", 0, 0
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                first, count, whole = first if count else line, count + 1, whole + len(line)
        file.truncate(whole)
    return json.loads(first), count


def digest(value: Any) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        UserError: it is missing, cannot be read, is no UTF-8, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text
