"""Prepared data: a folder of ArrayRecord files, read at random, record by record."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.lazy_records import Known, LazyRecords
from tga_jax.data.records import BadRow, Record
from tga_jax.data.stored import Figures, to_record
from tga_jax.errors import UserError
from tga_jax.files import read_json

VERSION = 5  # of what the folder holds


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds finished prepared data."""
    return (folder / "report.json").is_file() and (folder / "dataset_info.json").is_file()


def read_report(folder: Path) -> dict[str, Any]:
    """What job `prepare` wrote about its data.

    Raises:
        UserError: when it can't be read, or another version of this program wrote it.
    """
    path = folder / "report.json"
    report = read_json(path, advice="run job prepare again")
    if report.get("made_from", {}).get("version") != VERSION:
        raise UserError(
            f"{folder}: another version of the program made this data; run job prepare again"
        )
    return report


def index_path(folder: Path, split: str) -> Path:
    """Returns where a split's index is: int32[records, 10], the `stored.Figures` of each."""
    return folder / f"index-{split}.npy"


class PreparedRecords(LazyRecords):
    """The records of a split, read when asked for; only their lengths are in memory.

    Travels to worker processes as the folder's name, which open the files for themselves.

    Attributes:
        known: `lazy_records.Known` of the records.
        has_flags: bool[records, FLAGS], as `lazy_records.has_flags`.
        scaled: int32[records], how many images had values of more than 8 bits.
        held_out: how many records are in other splits.
        left_out: the rows of the input that job `prepare` left out of this split, and those that
            are in no split because they are no records.
        digest: of the content of all records.
    """

    has_contents = True

    def __init__(self, folder: Path | str, split: str):
        """Opens a split.

        Raises:
            UserError: when the folder holds no such split, or not what its report says.
        """
        self.folder, self.split = Path(folder), split
        report = read_report(self.folder)
        if split not in report["splits"]:
            raise UserError(
                f"{folder}: has no split {split!r}, only {', '.join(report['splits'])}: set "
                "config.data.split, or config.data.validation and run job prepare again"
            )
        self.digest: str = report["content"]
        self._count: int = report["splits"][split]
        self.held_out: int = sum(report["splits"].values()) - self._count
        index = _load_index(index_path(self.folder, split), self._count)
        self._numbers = index[:, 0]
        self.known = Known(index[:, 1], index[:, 2], index[:, 9] > 0)
        self.has_flags = np.column_stack([index[:, 2:6] > 0, index[:, 8] == 1])
        self._left_out_turns, self.scaled = index[:, 6:8].T
        self.left_out = tuple(
            BadRow(row["record"] - 1, row["id"], row["reason"])
            for row in report["skipped_records"]
            if row["split"] in ("", split)
        )

    def __len__(self) -> int:
        return self._count

    def _read(self, index: int) -> Record:
        try:
            record = to_record(self._source[index])
        except Exception as error:  # as in _source
            raise self._broken(error) from error
        turn = bool(self._left_out_turns[index])
        return replace(record, number=int(self._numbers[index]), left_out_turn=turn)

    def _broken(self, error: Exception) -> UserError:
        if isinstance(error, UserError):
            return error
        reason = " ".join(str(error).split()) or type(error).__name__
        return UserError(
            f"{self.folder}: cannot be read ({reason}); delete it and run job prepare again"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_source"}

    @functools.cached_property
    def _source(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(self.folder)
            source = builder.as_data_source(split=self.split)
            found = len(source)
        except Exception as error:  # TFDS and ArrayRecord raise what they like on a broken file
            raise self._broken(error) from error
        if found != self._count:
            raise UserError(
                f"{self.folder}: holds {found} records of split {self.split}, its report says "
                f"{self._count}; delete it and run job prepare again"
            )
        return source


def _load_index(path: Path, count: int) -> np.ndarray:
    try:
        index = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run job prepare again") from error
    if index.shape != (count, len(Figures._fields)):
        raise UserError(f"{path}: does not fit report.json; run job prepare again")
    return index
