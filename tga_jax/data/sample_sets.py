"""Sets of samples as they are read, from LLaVA files or prepared data, before they are checked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.data.prepared import PreparedRecords
from tga_jax.data.records import BadRow, Record, named, read_rows
from tga_jax.data.side_texts import SideTexts, about_texts, images_of, with_texts
from tga_jax.data.stored import split_of


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """The rows of a set.

    Attributes:
        records: a list, or prepared data.
        unread: the rows that are no records, or that job `prepare` left out.
        accepted: job `prepare` found `unread` to be within its config.data.max_bad_fraction.
        source: the LLaVA file that they were read from; "" for prepared data.
        held_out: how many more records there are, in other splits.
    """

    records: Sequence[Record]
    unread: tuple[BadRow, ...] = ()
    accepted: bool = False
    source: str = ""
    held_out: int = 0

    @property
    def total(self) -> int:
        """How many rows there are."""
        return len(self.records) + len(self.unread)


def read_json_sets(
    paths: Sequence[Path], texts: Mapping[str, SideTexts]
) -> tuple[list[SampleSet], dict[str, dict[str, Any]]]:
    """Reads LLaVA files with the texts beside them; a broken row is no error here.

    Args:
        paths: of the files. Their ids may restart; see `side_texts`.
        texts: as `side_texts.read_side_files` returns them.

    Returns:
        The sets; and of all of them `side_texts.about_texts` and "duplicate_ids".

    Raises:
        UserError: a file is missing or broken as a whole.
    """
    found = [read_rows(path) for path in paths]
    every = [record for records, _ in found for record in records]
    images = images_of(every)
    sets = [
        SampleSet(with_texts(records, texts, images), tuple(unread), source=str(path))
        for path, (records, unread) in zip(paths, found, strict=True)
    ]
    about = about_texts(texts, every, images)
    return sets, about | {"duplicate_ids": duplicate_ids(every)}


def duplicate_ids(records: Iterable[Record]) -> dict[str, Any]:
    """Returns how many ids several records have, and the first of them."""
    counts = Counter(record.id for record in records)
    return named(name for name, count in counts.items() if count > 1)


def prepared_set(folder: Path, split: str) -> SampleSet:
    """Opens a split of prepared data.

    Raises:
        UserError: as `PreparedRecords` does.
    """
    records = PreparedRecords(folder, split)
    return SampleSet(records, records.left_out, accepted=True, held_out=records.held_out)


def of_split(samples: SampleSet, split: str, share: float) -> SampleSet:
    """Returns the records of a LLaVA file that are in a split; see `stored.split_of`."""
    chosen = [record for record in samples.records if split_of(record, share) == split]
    return dataclasses.replace(samples, records=chosen, held_out=len(samples.records) - len(chosen))
