"""Many records: sequences that read a record when it is asked for, and what is known of all."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np

from tga_jax.data.records import Record
from tga_jax.data.templates import first_answer_images

FLAGS = 5  # of a record in `has_flags`


class Known(NamedTuple):
    """What groups samples into batches, known of every record of a set.

    Attributes:
        lengths: int[records], each one's `text_length`.
        images: int[records], how many each has.
        answered: bool[records], whether each has an answer to learn. A captioned image may have
            none.
    """

    lengths: np.ndarray
    images: np.ndarray
    answered: np.ndarray

    def take(self, places: np.ndarray) -> "Known":
        """The same of the records at these places."""
        return Known(*(values[places] for values in self))


def known_of(records: Sequence[Record]) -> Known:
    """What is known of every record; sets whose records are on disk know it without reading."""
    known: Known | None = getattr(records, "known", None)
    if known is not None:
        return known
    return Known(
        np.array([text_length(record) for record in records], np.int64),
        np.array([len(record.images) for record in records], np.int64),
        np.array([record.has_answer for record in records], bool),
    )


def text_length(record: Record) -> int:
    """The number of characters; enough to group samples of like length."""
    return sum(len(turn.question) + len(turn.answer or "") for turn in record.turns)


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
    """What every record has: bool[records, FLAGS].

    In this order: images, a caption, a retrieved text, the mark "tox", and exactly one image in
    the first turn, which is the one that is answered (see `templates.first_answer_images`).
    """
    known = getattr(records, "has_flags", None)
    if known is not None:
        return np.asarray(known)
    return np.array([_flags(record) for record in records], bool).reshape(-1, FLAGS)


def _flags(record: Record) -> tuple[bool, ...]:
    one_first = first_answer_images(record) == 1
    return record.images != (), bool(record.caption), bool(record.retrieved), record.tox, one_first


def has_contents(records: Sequence[Record]) -> bool:
    """Whether the records bring their images along, so that no image folder is needed."""
    return bool(getattr(records, "has_contents", False))
