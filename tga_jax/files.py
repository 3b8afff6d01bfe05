"""Files: written whole or not at all, JSON and JSON lines, digests.

A file gets its name only once it is complete, so a kill or a full disk never leaves half of one
under a name that is read later. Lines end at "\\n" only: a JSON text may hold U+2028 and the
other characters at which `str.splitlines` splits. Every process that calls these functions
reads and writes; `tga_jax.cluster.shared_files` has the same for the first of several alone.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError

ABANDONED_SECONDS = 3600.0  # a temporary file of that age belongs to a process that was killed


# --- writing ---


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the name of a temporary file, which becomes `path` when the block ends well.

    When the block raises an error, the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = temporary_name(path)
    try:
        yield temporary
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """The temporary file of this process for `path`; no other process or host has the same."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def move(temporary: Path, path: Path) -> None:
    """Gives a complete file its final name, after its content has reached the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes left of this file; another host's are known by age alone."""
    for old in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if time.time() - old.lstat().st_mtime > ABANDONED_SECONDS:
                old.unlink()


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields a new, empty folder, which becomes `folder` when the block ends well.

    When the block raises an error, `folder` stays as it was. No folder can be renamed over another
    one, so for a moment there is neither.

    Raises:
        UserError: there is a file of that name.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, and a folder must be there; remove the file")
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def copy(source: Path, path: Path) -> None:
    """Copies a file, whole or not at all."""
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Writes a JSON file with an indent of two spaces, whole or not at all."""
    write_text(path, _json_text(value, indent=2, sort_keys=sort_keys) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Writes one JSON value a line, whole or not at all; one row is in memory at a time."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(map(json_line, rows))


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Appends one JSON value a line to a log, which may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(map(json_line, rows)))


def json_line(value: Any) -> str:
    """A JSON value as a line, with its line end."""
    return _json_text(value) + "\n"


def _json_text(value: Any, **settings: Any) -> str:
    """A value as JSON; half of a surrogate pair, which UTF-8 cannot hold, is escaped."""
    text = json.dumps(value, ensure_ascii=False, **settings)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **settings)
    return text


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out |= flat(inner, f"{prefix}.{key}" if prefix else key)
    return out


# --- reading ---


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        UserError: the file is missing, cannot be read, is not UTF-8, or is empty.
    """
    with _readable(path):
        content = path.read_bytes()
    text = _decoded(content, str(path), first=True)
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def read_json(path: Path, *, missing_ok: bool = False, advice: str = "") -> Any:
    """The value of a JSON file.

    Args:
        path: the file.
        missing_ok: a file that does not exist gives None.
        advice: what the user can do about a broken file; it ends the error's line.

    Raises:
        UserError: the file is missing, cannot be read, or is not JSON.
    """
    if missing_ok and not path.exists():
        return None
    try:
        return parse_json(read_text(path), str(path))
    except UserError as error:
        raise UserError(f"{error}; {advice}" if advice else str(error)) from error


def parse_json(text: str, where: str, *, line: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        text: the whole text.
        where: what the error's line begins with, such as the file.
        line: the line of the file that the text is; None where the text is the whole file.

    Raises:
        UserError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}, column {error.colno}"
        raise UserError(f"{where}: malformed JSON at {place}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        place = "" if line is None else f" at line {line}"
        reason = "a number has too many digits"
        if isinstance(error, RecursionError):
            reason = "nested too deeply"
        raise UserError(f"{where}: malformed JSON{place}: {reason}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number (from 1) and the text of every line, with its line end, one line at a time.

    Raises:
        UserError: the file is missing or cannot be read, or a line is not UTF-8.
    """
    with _readable(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, _decoded(line, f"{path}: line {number}", first=number == 1)


def tolerant_jsonl(path: Path) -> Iterator[Any | UserError]:
    """The value of every line of a user's file; a UserError in the place of a malformed line.

    Blank lines are skipped.

    Raises:
        UserError: the file is missing or cannot be read, or a line is not UTF-8.
    """
    for number, line in read_lines(path):
        if line.strip():
            try:
                yield parse_json(line, str(path), line=number)
            except UserError as error:
                yield error


def read_jsonl(path: Path) -> Iterator[Any]:
    """The value of every line of a finished file, one at a time; blank lines are skipped.

    Raises:
        UserError: as `tolerant_jsonl`, and at the first malformed line.
    """
    for value in tolerant_jsonl(path):
        if isinstance(value, UserError):
            raise value
        yield value


def json_values(path: Path) -> Iterator[Any | UserError]:
    """The values of a user's file: those of a JSON list, or one a line as `tolerant_jsonl`.

    Whether it is a list is seen from its content.

    Raises:
        UserError: the file is missing, cannot be read, or is empty, or is a malformed list.
    """
    with _readable(path), path.open("rb") as file:
        begin = file.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()
    return iter(read_json(path)) if begin[:1] in (b"[", b"") else tolerant_jsonl(path)


def read_log(path: Path) -> Iterator[Any]:
    """The value of every complete line of a log that `append_jsonl` writes, one at a time.

    A log that does not exist has no lines. A last line without its line end is left out: a kill
    cut it short, or another process is just writing it.

    Raises:
        UserError: a complete line is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # and not on: the rest of this line may have been written meanwhile
            text = _decoded(line, f"{path}: line {number}", first=False)
            yield parse_json(text, str(path), line=number)


def trim_log(path: Path) -> int:
    """Removes a last line that a kill cut short; returns how many lines are left."""
    if not path.exists():
        return 0
    count = size = 0
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                count, size = count + 1, size + len(line)
        file.truncate(size)
    return count


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the errors of opening and reading a file into one line for the user."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(content: bytes, where: str, *, first: bool) -> str:
    """UTF-8 as text; the `first` bytes of a file may be a byte order mark."""
    try:
        return content.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
        raise UserError(f"{where}: not UTF-8 text ({place}); convert the file to UTF-8") from error


# --- digests ---


def digest(value: Any) -> str:
    """A short hash of a JSON value; what JSON does not know counts as its text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path, *, digits: int = 16) -> str:
    """A hash of a file's bytes: the first hexadecimal digits, at most 64, of its SHA-256.

    A file that was hashed before in this process, and has the same size and time of change, is
    not read again.
    """
    about = path.stat()
    return _hashed(path.resolve(), about.st_size, about.st_mtime_ns)[:digits]


@functools.lru_cache(maxsize=4096)
def _hashed(path: Path, size: int, changed_ns: int) -> str:
    """`size` and `changed_ns` tell a changed file from the one that was hashed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
