"""Samples made worse on purpose, to measure what a method bears: wrong captions, lacking texts."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from tga_jax.data.records import Record
from tga_jax.errors import UserError


def ablate(
    records: Sequence[Record], *, caption_noise: float, retrieved_share: float, seed: int
) -> Sequence[Record]:
    """The same records with some captions exchanged and some retrieved texts left out.

    Where nothing is to change these are the records themselves, which may not be in memory.

    Args:
        records: the samples; nothing else of them changes.
        caption_noise: share of the captions that is replaced by that of another such sample.
        retrieved_share: share of the samples that keep their retrieved text.
        seed: of both choices. Which sample keeps its text depends on its id alone besides.

    Raises:
        UserError: a share is not in 0..1.
    """
    for key, value in (("caption_noise", caption_noise), ("retrieved_share", retrieved_share)):
        if not 0 <= value <= 1:
            raise UserError(f"config.data.{key}={value}: must lie in 0..1")
    if not caption_noise and retrieved_share == 1:
        return records
    captions = _exchanged(records, caption_noise, seed)
    return [
        dataclasses.replace(
            record,
            caption=captions.get(index, record.caption),
            retrieved=record.retrieved if _lot(record.id, seed) < retrieved_share else None,
        )
        for index, record in enumerate(records)
    ]


def _exchanged(records: Sequence[Record], share: float, seed: int) -> dict[int, str | None]:
    """Sample's number -> the caption of another one, for a share of those that have one."""
    captioned = [index for index, record in enumerate(records) if record.caption is not None]
    chosen = np.random.default_rng([seed, 23]).permutation(captioned)
    chosen = chosen[: round(share * len(captioned))]
    donors = zip(chosen.tolist(), np.roll(chosen, 1).tolist(), strict=True)
    return {to: records[source].caption for to, source in donors}


def _lot(identifier: str, seed: int) -> float:
    """A number in [0, 1) for the sample."""
    return zlib.crc32(f"{seed} {identifier}".encode()) / 2**32
