"""LLaVA files, read with the broken rows left out: as many as config.data.max_bad_fraction allows.

All jobs that turn samples into texts or prepared data read them here, so that a file which one of
them accepts stops none of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tga_jax.data.records import Record, parse_record, texts_by_id
from tga_jax.data.rows import tolerant_rows
from tga_jax.data.stored import Outcome, Row
from tga_jax.errors import UserError
from tga_jax.run.budget import Budget
from tga_jax.run.job import Job


def read_rows(path: Path) -> tuple[list[Row], list[Outcome]]:
    """The rows that are records, by their place in the file, and the others.

    Raises:
        UserError: the file is missing or broken as a whole.
    """
    rows: list[Row] = []
    bad: list[Outcome] = []
    for number, (where, value) in enumerate(tolerant_rows(path)):
        try:
            if isinstance(value, UserError):
                raise value
            rows.append((number, parse_record(value, where=where)))
        except UserError as error:
            name = value.get("id") if isinstance(value, dict) else None
            bad.append(Outcome(number, None if name is None else str(name), reason=str(error)))
    return rows, bad


def usable_records(job: Job, path: Path, *, captions: Path | None = None) -> list[Record]:
    """The records of a file, with captions from another one filled in; says how many are left out.

    Raises:
        UserError: the file is broken as a whole, or in more rows than are allowed.
    """
    rows, bad = read_rows(path)
    total = len(rows) + len(bad)
    allowed = Budget(job.config.data.max_bad_fraction, total, say=job.say).allowed
    if len(bad) > allowed:
        raise too_many(bad[allowed].reason, allowed + 1, allowed, total)
    if bad:
        job.say(f"skipped {len(bad)} of {total} records, the first: {bad[0].reason}")
    texts = texts_by_id(captions, key="caption") if captions else {}
    return [dataclasses.replace(r, caption=r.caption or texts.get(r.id)) for _, r in rows]


def too_many(reason: str, count: int, allowed: int, total: int) -> UserError:
    """The error of the first bad record that is one too many."""
    return UserError(
        f"{reason} ({count} bad records, config.data.max_bad_fraction allows {allowed} of {total})"
    )


SHOWN = 20  # ids named in the report, of each kind


def named(ids: Iterable[str]) -> dict[str, Any]:
    """How many ids, and the first of them."""
    every: Sequence[str] = sorted(ids)
    return {"count": len(every), "first": every[:SHOWN]}
