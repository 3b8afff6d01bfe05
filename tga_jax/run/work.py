"""Work that is done row by row and goes on after a kill.

Finished rows are appended to a file that belongs to one signature: all that decides what the rows
are (model, data, settings). A run with another signature begins the file anew. There are two
formats: JSON lines behind a first line with the signature, and the rows of a float32 array.
"""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax import files
from tga_jax.cluster import hosts, shared_files
from tga_jax.errors import UserError

CONTENT = "content_digest"  # key of a done file, beside those of the signature


class RowFile(ABC):
    """The rows finished so far; one process writes them."""

    def __init__(self, path: Path, signature: dict[str, Any]) -> None:
        """Names the file; nothing is read or written yet."""
        self.path = path
        self.signature = json.loads(json.dumps(signature, default=str))

    def open(self) -> int:
        """Makes the file ready for `append`, and returns how many rows it holds.

        A file with another signature is begun anew; a last row that a kill cut short is removed.
        """
        if self._stored_signature() != self.signature:
            self._begin()
        return self._trim()

    @abstractmethod
    def append(self, rows: Any) -> None:
        """Write finished rows to the disk at once, so that a later start finds them."""

    @abstractmethod
    def _stored_signature(self) -> Any:
        """The signature of the file on the disk; None where there is no file."""

    @abstractmethod
    def _begin(self) -> None:
        """Writes the file of this signature, without rows."""

    @abstractmethod
    def _trim(self) -> int:
        """Removes what is no whole row; returns the number of rows."""


class JsonRows(RowFile):
    """A JSON value a line, behind a first line with the signature."""

    def rows(self) -> Iterator[Any]:
        """The whole rows, one in memory at a time; none where the signature is another.

        Nothing is changed, so other processes may be writing.
        """
        lines = files.read_log(self.path)
        if next(lines, None) == self.signature:
            yield from lines

    def append(self, rows: Any) -> None:
        """Keeps finished rows, JSON values."""
        files.append_jsonl(self.path, rows)

    def _stored_signature(self) -> Any:
        return next(files.read_log(self.path), None)

    def _begin(self) -> None:
        files.write_jsonl(self.path, [self.signature])

    def _trim(self) -> int:
        return files.trim_log(self.path) - 1


class ArrayRows(RowFile):
    """float32[shape] in the .npy format, with fewer rows until it is complete.

    The signature is kept in a file beside it, as the format has no place for it.
    """

    def __init__(
        self,
        path: Path,
        signature: dict[str, Any],
        shape: tuple[int, int],
        *,
        about: Path,
        batch_size: int,
    ) -> None:
        """Names the files; nothing is read or written yet.

        Args:
            path: of the array.
            signature: all that decides the numbers.
            shape: rows and columns of the complete array.
            about: the file that keeps the signature.
            batch_size: only whole batches are kept, so that a killed run computes the same ones.
        """
        super().__init__(path, signature)
        self._shape, self._about, self._batch_size = shape, about, batch_size
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        self._header = header.getvalue()

    def append(self, rows: np.ndarray) -> None:
        """Keeps finished rows, float32[rows, columns]."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, "<f4").tobytes())

    def _stored_signature(self) -> Any:
        return files.read_json(self._about, missing_ok=True) if self.path.exists() else None

    def _begin(self) -> None:
        self.path.unlink(missing_ok=True)
        files.write_json(self._about, self.signature)
        with files.replacing(self.path) as temporary:
            temporary.write_bytes(self._header)

    def _trim(self) -> int:
        row_bytes = 4 * math.prod(self._shape[1:])
        count = (self.path.stat().st_size - len(self._header)) // row_bytes
        if count < self._shape[0]:
            count = count // self._batch_size * self._batch_size
        with self.path.open("r+b") as file:
            file.truncate(len(self._header) + count * row_bytes)
        return count


class Work:
    """The rows of one output file; the first process keeps them, and all know them.

    FOLDER/NAME.partial.jsonl has the rows until the output is written, and FOLDER/NAME.done.json
    then says for which signature it was.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        signature: dict[str, Any],
        *,
        content: Callable[[Path], str] | None = None,
    ) -> None:
        """Names the files; nothing is read or written yet.

        Args:
            folder: of the files.
            name: of the work.
            signature: all that decides what the rows are.
            content: gives a digest of what the work put into its output, by which an output that
                was changed by hand is found; None: a changed output is taken as it is.
        """
        self._content = content
        self._done = folder / f"{name}.done.json"
        self._partial = JsonRows(folder / f"{name}.partial.jsonl", signature)

    def is_done(self, output: Path) -> bool:
        """Whether this very work was finished before, and its output is still there.

        The first process decides for all: what the others see of files may be older, and the
        times in a signature may be those of their own copies.

        Raises:
            UserError: the output was changed after this work had written it.
        """
        return bool(hosts.broadcast_from_first(lambda: self._is_done(output)))

    def _is_done(self, output: Path) -> bool:
        done = files.read_json(self._done, missing_ok=True) or {}
        digest = done.pop(CONTENT, None)
        if done != self._partial.signature or not output.exists():
            return False
        if self._content is not None and digest not in (None, self._content(output)):
            raise UserError(
                f"{output}: was changed after it had been written, so it is no longer what the "
                "model said; delete it to have the model asked again, or judge answers made "
                "elsewhere with --job=judge --config.judge.answers=FILE"
            )
        return True

    def rows(self) -> list[Any]:
        """The rows that a killed run finished; those of another signature are removed."""
        return hosts.broadcast_from_first(self._read)

    def _read(self) -> list[Any]:
        self._partial.open()
        return list(self._partial.rows())

    def count(self) -> int:
        """How many `rows` there are; they need not fit into memory."""
        return hosts.broadcast_from_first(self._partial.open)

    def append(self, rows: Sequence[Any]) -> None:
        """Write finished rows to the disk at once, so that a later start finds them."""
        if hosts.is_first():
            self._partial.append(rows)

    def finish(self, output: Path | None = None) -> None:
        """Remembers that the output is written, and removes the rows.

        Where the work can tell a changed output, it remembers the digest of `output`, too.
        """
        done = dict(self._partial.signature)
        if self._content is not None and output is not None and hosts.is_first():
            done[CONTENT] = self._content(output)
        shared_files.write_json(self._done, done)
        shared_files.remove(self._partial.path)
