"""What job `prepare` counts while it goes through the records."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.prepared import index_path
from tga_jax.data.records import BadRow
from tga_jax.data.row_check import allowed_bad, too_many
from tga_jax.data.stored import Figures
from tga_jax.errors import UserError
from tga_jax.preparation.check import Outcome

SAID = 5  # skipped records that are shown at once


class Tally:
    """The outcomes so far, without their images.

    Attributes:
        total: rows of the input.
        seen: how many of them are counted.
        images: how many images are kept.
    """

    def __init__(self, max_bad_fraction: float, total: int, *, say: Callable[[str], None]) -> None:
        """Takes the share of the rows that may be bad, their number, and who shows a line."""
        self._allowed, self._say = allowed_bad(max_bad_fraction, total), say
        self._kept: dict[str, list[tuple[Figures, str]]] = {}
        self._bad: list[tuple[str, BadRow]] = []
        self._encoded: Counter[str] = Counter()
        self.total, self.seen, self.images = total, 0, 0

    @property
    def skipped(self) -> int:
        """How many rows are left out."""
        return len(self._bad)

    def add(self, split: str, outcome: Outcome) -> None:
        """Counts the outcome of checking a record.

        Raises:
            UserError: as `add_bad` does.
        """
        if outcome.bad is not None:
            self.add_bad(split, outcome.bad)
            return
        assert outcome.figures is not None
        self.seen += 1
        self._kept.setdefault(split, []).append((outcome.figures, outcome.digest))
        self._encoded.update(outcome.encoded)
        self.images += outcome.figures.images

    def add_bad(self, split: str, bad: BadRow) -> None:
        """Counts a row that is left out; `split` is "" where it is no record.

        Raises:
            UserError: it is one more than config.data.max_bad_fraction allows.
        """
        self.seen += 1
        self._bad.append((split, bad))
        if len(self._bad) > self._allowed:
            raise too_many(bad, len(self._bad), self._allowed, self.total)
        if len(self._bad) <= SAID:
            self._say(f"skipped: {bad.reason}")

    def check_split(self, split: str) -> None:
        """Refuses a split that lost all its records."""
        if not self._kept.get(split):
            raise UserError(f"no record of split {split} is usable; see config.data.path")

    def report(self, counts: dict[str, int]) -> dict[str, Any]:
        """Returns data/report.json without what the inputs alone say.

        Args:
            counts: examples of each split, as TFDS wrote them.
        """
        kept = {split: sorted(rows) for split, rows in self._kept.items()}
        assert counts == {split: len(rows) for split, rows in kept.items()}, (counts, self.seen)
        figures = [row for rows in kept.values() for row, _ in rows]
        bad = sorted(self._bad, key=lambda one: one[1].number)
        return {
            "records": self.total,
            "kept": len(figures),
            "skipped": len(bad),
            "splits": counts,
            "content": _content(kept),
            "pictures": sum(row.images for row in figures),
            "text_only": sum(not row.images for row in figures),
            "tox": sum(row.tox for row in figures),
            "with_caption": sum(row.caption for row in figures),
            "with_retrieved": sum(row.retrieved for row in figures),
            "left_out_turns": sum(row.left_out_turn for row in figures),
            "scaled_pictures": sum(row.scaled for row in figures),
            "encoded_anew": dict(sorted(self._encoded.items())),
            "skipped_records": [one.listed() | {"split": split} for split, one in bad],
        }

    def write_index(self, folder: Path, split: str) -> None:
        """Writes the figures of a split's records, in their order."""
        figures = sorted(row for row, _ in self._kept[split])
        content = io.BytesIO()  # to a file, numpy writes without noticing that its end is lost
        np.save(content, np.array(figures, np.int32))
        index_path(folder, split).write_bytes(content.getvalue())


def _content(kept: dict[str, list[tuple[Figures, str]]]) -> str:
    """Returns SHA-256 over the digests of all records, split after split, in order."""
    total = hashlib.sha256()
    for split in sorted(kept):
        total.update(f"{split} {len(kept[split])}\n".encode())
        total.update("".join(f"{digest}\n" for _, digest in kept[split]).encode())
    return total.hexdigest()
