"""Work that is done row by row and goes on after a kill.

What is on disk is read by the first process, which tells the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tga_jax.cluster import hosts
from tga_jax.files import append_jsonl, count_appended, read_appended, write_json


class Work:
    """Rows finished so far, valid for one signature (model, data, settings) only."""

    def __init__(self, folder: Path, name: str, signature: dict[str, Any]) -> None:
        self._done = folder / f"{name}.done.json"
        self._partial = folder / f"{name}.partial.jsonl"
        self._signature = json.loads(json.dumps(signature, default=str))

    @property
    def is_done(self) -> bool:
        """Whether this very work was finished before."""
        return hosts.broadcast_from_first(self._was_finished)

    def _was_finished(self) -> bool:
        if not self._done.exists():
            return False
        return json.loads(self._done.read_text(encoding="utf-8")) == self._signature

    def rows(self) -> list[Any]:
        """Rows that a killed run finished; those of another signature are dropped."""
        return hosts.broadcast_from_first(self._read)

    def _read(self) -> list[Any]:
        lines = read_appended(self._partial)
        if not lines or lines[0] != self._signature:
            self._begin()
            return []
        return lines[1:]

    def count(self) -> int:
        """How many `rows` there are, which need not fit into memory."""
        return hosts.broadcast_from_first(self._count)

    def _count(self) -> int:
        first, lines = count_appended(self._partial)
        if not lines or first != self._signature:
            self._begin()
            return 0
        return lines - 1

    def _begin(self) -> None:
        self._partial.unlink(missing_ok=True)
        append_jsonl(self._partial, [self._signature])

    def append(self, rows: Sequence[Any]) -> None:
        """Keep finished rows."""
        append_jsonl(self._partial, rows)

    def finish(self) -> None:
        """The output is written: remember that, and drop the partial rows."""
        write_json(self._done, self._signature)
        if hosts.is_first():
            self._partial.unlink(missing_ok=True)
