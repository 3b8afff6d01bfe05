"""The captions that hosts have written so far: one log a host, read together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from tga_jax.errors import UserError
from tga_jax.run.work import JsonRows

Key = tuple[str, int | None]  # an image's name and its bytes; None: there is no such file


@dataclasses.dataclass(frozen=True)
class Part:
    """Host `index` of `count`; images index, index + count, ... are its own."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


def part_of(shard: str) -> Part:
    """config.caption.shard, or else this process among those that JAX connects.

    Raises:
        UserError: it is not like "0/4", or JAX's processes are several already.
    """
    if not shard:
        return Part(jax.process_index(), jax.process_count())
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"config.caption.shard={shard!r}: write it like '0/4', which is the first of four hosts"
        )
    if jax.process_count() > 1:
        raise UserError(
            "config.caption.shard is for hosts that are started one by one; leave it empty here"
        )
    return Part(int(index), int(count))


class CaptionLog:
    """FOLDER/<k>-of-<n>.log.jsonl: the settings, then {"image", "bytes", "text"} a line.

    An unreadable image has "error" in place of "text". Every host appends to the log of its own
    part and reads all of them; only whole lines count, so a kill or a host that is just writing
    does no harm.
    """

    def __init__(self, folder: Path, part: Part, settings: dict[str, Any]) -> None:
        """Opens this host's log; the rows of other settings in it are removed."""
        self._folder, self._own = folder, JsonRows(folder / f"{part}.log.jsonl", settings)
        self.settings = self._own.signature
        self._own.open()

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the captions of finished images to the log at once."""
        self._own.append(rows)

    def known(self) -> dict[Key, str | None]:
        """What all hosts' logs with these settings hold; None for an unreadable image."""
        found: dict[Key, str | None] = {}
        for path in sorted(self._folder.glob("*-of-*.log.jsonl")):
            for row in JsonRows(path, self.settings).rows():
                key = (row["image"], row["bytes"])
                found[key] = row.get("text", found.get(key))
        return found
