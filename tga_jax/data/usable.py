"""The records of a set that can be trained on, as a set of their own."""

from collections.abc import Sequence

import numpy as np

from tga_jax.data.lazy_records import LazyRecords, has_contents, has_flags, known_of
from tga_jax.data.records import Record


class Usable(LazyRecords):
    """Some records of a set, in its order, each read when it is asked for.

    Attributes:
        known: `lazy_records.Known` of these records.
        has_flags: likewise.
        has_contents: whether the set brings its images along.
    """

    def __init__(self, records: Sequence[Record], keep: np.ndarray):
        """Takes a set and the places in it of the records that are kept: int64[kept]."""
        self._records, self._keep = records, keep
        self.known = known_of(records).take(keep)
        self.has_flags = has_flags(records)[keep]
        self.has_contents = has_contents(records)

    def __len__(self) -> int:
        return len(self._keep)

    def _read(self, index: int) -> Record:
        return self._records[int(self._keep[index])]


def usable(records: Sequence[Record], keep: np.ndarray) -> Sequence[Record]:
    """Returns the records at the places `keep`; the set itself where these are all of it."""
    return records if len(keep) == len(records) else Usable(records, keep)
