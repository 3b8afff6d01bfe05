"""What job `prepare` counts while it goes through the records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.prepared import index_path
from tga_jax.data.stored import Outcome
from tga_jax.errors import UserError
from tga_jax.run.budget import Budget
from tga_jax.run.usable_rows import too_many

LISTED = 1000  # skipped records that the report names
SAID = 5  # and that are shown at once


class Tally:
    """The outcomes so far, without their pictures.

    Attributes:
        total: rows of the input.
        seen: how many of them are counted.
        pictures: how many pictures are kept.
    """

    def __init__(self, max_bad_fraction: float, total: int, *, say: Callable[[str], None]) -> None:
        self._say = say
        self._allowed = Budget(max_bad_fraction, total, say=say).allowed
        self._kept: dict[str, list[tuple[int, str, tuple[int, ...]]]] = {}
        self._bad: list[Outcome] = []
        self._encoded: Counter[str] = Counter()
        self.total, self.seen, self.pictures = total, 0, 0

    @property
    def skipped(self) -> int:
        """How many rows are left out."""
        return len(self._bad)

    def add(self, split: str, outcome: Outcome) -> None:
        """Count a row.

        Raises:
            UserError: it is bad, and one more than config.data.max_bad_fraction allows.
        """
        self.seen += 1
        if not outcome.reason:
            self._kept.setdefault(split, []).append(
                (outcome.number, outcome.digest, outcome.figures)
            )
            self._encoded.update(outcome.encoded)
            self.pictures += outcome.figures[1]
            return
        self._bad.append(outcome)
        if len(self._bad) > self._allowed:
            raise too_many(outcome.reason, len(self._bad), self._allowed, self.total)
        if len(self._bad) <= SAID:
            self._say(f"skipped: {outcome.reason}")

    def check_split(self, split: str) -> None:
        """Refuse a split that lost all its records."""
        if not self._kept.get(split):
            raise UserError(f"no record of split {split} is usable; see config.data.path")

    def report(self, counts: dict[str, int]) -> dict[str, Any]:
        """data/report.json without what the inputs alone say.

        Args:
            counts: examples of each split, as TFDS wrote them.
        """
        kept = {split: sorted(rows) for split, rows in self._kept.items()}
        assert counts == {split: len(rows) for split, rows in kept.items()}, (counts, self.seen)
        figures = np.array([row[2] for rows in kept.values() for row in rows])
        bad = sorted(self._bad, key=lambda outcome: outcome.number)
        return {
            "records": self.total,
            "kept": len(figures),
            "skipped": len(bad),
            "splits": counts,
            "content": _content(kept),
            "pictures": int(figures[:, 1].sum()),
            "text_only": int((figures[:, 1] == 0).sum()),
            "with_caption": int(figures[:, 2].sum()),
            "with_retrieved": int(figures[:, 3].sum()),
            "encoded_anew": dict(sorted(self._encoded.items())),
            "skipped_records": [
                {"record": o.number + 1, "id": o.id, "reason": o.reason} for o in bad[:LISTED]
            ],
        }

    def write_index(self, folder: Path, split: str) -> None:
        """The figures of a split's records, in their order."""
        figures = [row[2] for row in sorted(self._kept[split])]
        np.save(index_path(folder, split), np.array(figures, np.int32))


def _content(kept: dict[str, list[tuple[int, str, tuple[int, ...]]]]) -> str:
    """SHA-256 over the digests of all records, split after split, in order."""
    total = hashlib.sha256()
    for split in sorted(kept):
        total.update(f"{split} {len(kept[split])}\n".encode())
        total.update("".join(f"{row[1]}\n" for row in kept[split]).encode())
    return total.hexdigest()
