"""Samples made worse on purpose, to measure what a method bears: wrong captions, lacking texts."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from tga_jax.data.lazy_records import LazyRecords, has_contents, has_flags, known_of
from tga_jax.data.records import Record
from tga_jax.errors import UserError


def ablate(
    records: Sequence[Record], *, caption_noise: float, retrieved_share: float, seed: int
) -> Sequence[Record]:
    """The same records with some captions exchanged and some retrieved texts left out.

    Where nothing is to change these are the records themselves. No record is read before it is
    asked for: they may not fit into memory.

    Args:
        records: the samples; nothing else of them changes.
        caption_noise: share of the captions that is replaced by that of another such sample.
        retrieved_share: share of the samples that keep their retrieved text.
        seed: of both choices. Which sample keeps its text depends on its id alone besides.

    Raises:
        UserError: a share is not in 0..1.
    """
    check_shares(caption_noise, retrieved_share)
    if not caption_noise and retrieved_share == 1:
        return records
    donors = _donors(has_flags(records), caption_noise, seed)
    return Ablated(records, donors, retrieved_share, seed)


def check_shares(caption_noise: float, retrieved_share: float) -> None:
    """Refuse what `ablate` refuses."""
    for key, value in (("caption_noise", caption_noise), ("retrieved_share", retrieved_share)):
        if not 0 <= value <= 1:
            raise UserError(f"config.data.{key}={value} must lie in 0..1")


class Ablated(LazyRecords):
    """`ablate`d records, each read and changed when asked for.

    Has no `has_flags`: which retrieved texts are left out is known from the ids alone, which only
    reading tells.

    Attributes:
        known: `lazy_records.Known` of the records, which nothing here changes.
        has_contents: likewise.
    """

    def __init__(self, records: Sequence[Record], donors: np.ndarray, share: float, seed: int):
        """Reads nothing.

        Args:
            records: the samples.
            donors: int64[records], the sample whose caption each gets.
            share: of the samples that keep their retrieved text.
            seed: of that choice.
        """
        self._records, self._donors, self._share, self._seed = records, donors, share, seed
        self.known = known_of(records)
        self.has_contents = has_contents(records)

    def __len__(self) -> int:
        return len(self._records)

    def _read(self, index: int) -> Record:
        record, donor = self._records[index], int(self._donors[index])
        return dataclasses.replace(
            record,
            caption=record.caption if donor == index else self._records[donor].caption,
            retrieved=record.retrieved if _lot(record.id, self._seed) < self._share else None,
        )


def _donors(flags: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The sample whose caption each gets: another one for a share of those that have a caption."""
    donors = np.arange(len(flags))
    captioned = np.flatnonzero(flags[:, 1])
    chosen = np.random.default_rng([seed, 23]).permutation(captioned)
    chosen = chosen[: round(share * len(captioned))]
    donors[chosen] = np.roll(chosen, 1)
    return donors


def _lot(identifier: str, seed: int) -> float:
    """A number in [0, 1) for the sample."""
    return zlib.crc32(f"{seed} {identifier}".encode()) / 2**32
