"""Many records: sequences that read a record when it is asked for, and what is known of all."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np

from tga_jax.data.records import Record


def text_length(record: Record) -> int:
    """The number of characters; enough to group samples of like length."""
    return sum(len(turn.question) + len(turn.answer or "") for turn in record.turns)


def text_lengths(records: Sequence[Record]) -> Sequence[int]:
    """`text_length` of every record; prepared data knows them without reading its records."""
    known = getattr(records, "text_lengths", None)
    return [text_length(record) for record in records] if known is None else known


def image_counts(records: Sequence[Record]) -> Sequence[int]:
    """How many images every record has; likewise."""
    known = getattr(records, "image_counts", None)
    return [len(record.images) for record in records] if known is None else known


class LazyRecords(Sequence[Record]):
    """Records that are read when asked for; a kind of them says how, in `_read`."""

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        count = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(count))]
        if not -count <= index < count:
            raise IndexError(index)
        return self._read(int(index) % count)

    @abstractmethod
    def _read(self, index: int) -> Record:
        """The record at 0 <= index < len(self)."""


def has_flags(records: Sequence[Record]) -> np.ndarray:
    """What every record has: bool[records, 4] (images, caption, retrieved text, "tox")."""
    known = getattr(records, "has_flags", None)
    if known is not None:
        return np.asarray(known)
    return np.array([(r.images != (), bool(r.caption), bool(r.retrieved), r.tox) for r in records])


def has_contents(records: Sequence[Record]) -> bool:
    """Whether the records bring their images along, so that no image folder is needed."""
    return bool(getattr(records, "has_contents", False))
