"""Several sets of samples as one, drawn from by weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tga_jax.data.lazy_records import Known, LazyRecords, has_contents, has_flags, known_of
from tga_jax.data.records import Record
from tga_jax.errors import UserError


@dataclass(frozen=True)
class Part:
    """A set in a mixture: how many records it has, and its weight among the sets."""

    size: int
    weight: float


def parse_mixture(text: str) -> list[tuple[str, float]]:
    """Reads config.data.mixture, "a.json:2, folder/data:1": (path, weight) of each set.

    Without a weight a set has 1.

    Raises:
        UserError: for a weight that is no number above 0, or no set at all.
    """
    parts = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        path, colon, weight = item.rpartition(":")
        if not colon:
            path, weight = item, "1"
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not (path and 0 < value < float("inf")):
            raise UserError(
                f"config.data.mixture: {item!r} must be PATH:WEIGHT with a weight above 0"
            )
        parts.append((path, value))
    if not parts:
        raise UserError(
            f"config.data.mixture={text!r}: it names no set; write it like 'a.json:2, b.json:1'"
        )
    return parts


class Mixture(LazyRecords):
    """The records of several sets, one set after the other.

    Attributes:
        parts: size and weight of each; what `order.plan_order` draws by.
        known: `lazy_records.Known` of all records.
        has_flags: of all records.
        has_contents: whether every set brings its images along.
    """

    def __init__(self, sets: Sequence[Sequence[Record]], weights: Sequence[float]):
        self._sets = list(sets)
        self.parts = tuple(Part(len(s), w) for s, w in zip(sets, weights, strict=True))
        self._ends = np.cumsum([part.size for part in self.parts])
        self.known = Known(*map(np.concatenate, zip(*map(known_of, sets), strict=True)))
        self.has_flags = np.concatenate([has_flags(s) for s in sets])
        self.has_contents = all(has_contents(s) for s in sets)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _read(self, index: int) -> Record:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._sets[part][int(index - (self._ends[part] - self.parts[part].size))]
