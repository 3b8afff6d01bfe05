"""Samples with the broken rows left out, as many as config.data.max_bad_fraction allows.

`usable_records` is for jobs that turn samples into texts; `check_samples` is for those that make
tokens of them. A row that one of them accepts stops none of the others, nor job `prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import hosts
from tga_jax.data.image_sets import missing_lines
from tga_jax.data.in_parallel import cores
from tga_jax.data.lazy_records import known_of
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record
from tga_jax.data.row_check import Checked, Transform, allowed_bad, check_set, too_many
from tga_jax.data.sample_sets import SampleSet, read_json_sets
from tga_jax.data.side_texts import SideTexts, text_warnings
from tga_jax.errors import UserError
from tga_jax.files import digest, read_json, write_json
from tga_jax.training.metrics import Progress

SAID = 5  # skipped rows that are shown at once
SECONDS_BETWEEN_LINES = 5.0  # of progress
ONE_PROCESS_BELOW = 2000  # rows: to start worker processes would take longer than to check these


def usable_records(
    paths: Sequence[Path],
    *,
    max_bad_fraction: float,
    say: Callable[[str], None],
    texts: Mapping[str, SideTexts] | None = None,
) -> list[Record]:
    """Reads LLaVA files and the texts beside them, and says what is left out.

    Args:
        paths: of the files.
        max_bad_fraction: share of a file's rows that may be no records.
        say: shows a line.
        texts: as `data.side_texts.read_side_files` returns them.

    Raises:
        UserError: a file is broken as a whole, or in more rows than are allowed.
    """
    sets, about = read_json_sets(paths, texts or {})
    for samples in sets:
        bad, total = samples.unread, samples.total
        allowed = allowed_bad(max_bad_fraction, total)
        if len(bad) > allowed:
            raise too_many(bad[allowed], allowed + 1, allowed, total)
        if bad:
            say(f"skipped {len(bad)} of {total} records, the first: {bad[0].reason}")
    for line in text_warnings(about):
        say(line)
    records = [record for samples in sets for record in samples.records]
    for line in marked_lines(records):
        say(line)
    return records


def marked_lines(records: Sequence[Record]) -> list[str]:
    """Returns what is to be said of records that are not used as they are written, a line each."""
    tox, turns = sum(r.tox for r in records), sum(r.left_out_turn for r in records)
    lines = [f'{tox} samples are marked "tox": their images are blank'] if tox else []
    return lines + ([f"{turns} conversations begin with a gpt turn, left out"] if turns else [])


def check_samples(
    samples: SampleSet,
    *,
    max_bad_fraction: float,
    image_dir: Path,
    prompter: Prompter,
    transform: Transform,
    say: Callable[[str], None],
    cache: Path,
    decides: Sequence[Any],
) -> Checked:
    """Checks every row of a set, in processes where there are many, and says what was found.

    What was found of a large set is kept, so that a run that is started again need not decode
    all of its images once more.

    Args:
        samples: as they were read.
        max_bad_fraction: share of the rows that may be bad.
        image_dir: of the images; not used for prepared data.
        prompter: makes tokens of the records, as the job will.
        transform: makes pixels of their images, as the job will.
        say: shows a line.
        cache: the folder in which the findings of large sets are kept.
        decides: all that decides what is found, as JSON.

    Raises:
        UserError: more rows are bad than are allowed, or none is usable.
    """
    path = cache / f"{digest(decides)}.json"
    large = len(samples.records) >= ONE_PROCESS_BELOW

    def check() -> dict[str, Any]:
        found = read_json(path, missing_ok=True) if large else None
        if found is None:
            found = _check_now(
                samples,
                max_bad_fraction=max_bad_fraction,
                image_dir=image_dir,
                prompter=prompter,
                transform=transform,
                workers=cores() if large else 0,
                say=say,
            ).to_json()
            if large:
                write_json(path, found)
        return found

    # All processes must draw from the same samples, whatever a shared disk shows to each.
    checked = Checked.from_json(hosts.broadcast_from_first(check))
    for bad in checked.skipped[:SAID]:
        say(f"skipped: {bad.reason}")
    say(checked.say())
    if warning := _no_image_left(samples.records, checked):
        say(warning)
    return checked


def _check_now(
    samples: SampleSet, *, image_dir: Path, say: Callable[[str], None], **how: Any
) -> Checked:
    """`check_set` with a line of progress now and then; says which images are not there."""

    def say_missing() -> None:
        for line in missing_lines(samples.records, image_dir):
            say(line)

    progress = _now_and_then(Progress("samples checked", len(samples.records)))
    try:
        found = check_set(samples, image_dir=image_dir, progress=progress, **how)
    except UserError:
        say_missing()
        raise
    if found.skipped:  # else no image is missing, and looking for each again is not free
        say_missing()
    return found


def _no_image_left(records: Sequence[Record], checked: Checked) -> str:
    """What is to be said where all samples with an image were left out; else ""."""
    if not checked.skipped:
        return ""
    images = known_of(records).images > 0
    if not images.any() or images[checked.keep].any():
        return ""
    return (
        f"WARNING: no usable sample has an image, though {np.sum(images)} of those read have one "
        "(see samples.json for the reasons)"
    )


def _now_and_then(progress: Progress) -> Callable[[int], None]:
    """Returns what shows a line of progress every few seconds."""
    shown = time.monotonic()

    def show(done: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            progress.show(done)

    return show
