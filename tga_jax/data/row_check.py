"""Whether samples can be trained on, found out before the first step.

A row is bad where its image is missing, broken or too long, its marks do not fit its images, or it
has no answer. A row whose first answer begins beyond the longest prompt is none of these, but gives
no loss, so it is left out, too.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.image_files import ImagePlace
from tga_jax.data.images import ImageTransform, check_image, image_size, naming, resolve_image
from tga_jax.data.in_parallel import map_in_order
from tga_jax.data.lazy_records import LazyRecords
from tga_jax.data.prompts import Prompter, TooLong
from tga_jax.data.records import BadRow, Record
from tga_jax.data.sample_sets import SampleSet
from tga_jax.data.templates import count_marks, has_idle_marks
from tga_jax.data.tiles import TileTransform
from tga_jax.errors import UserError

Transform = ImageTransform | TileTransform
NO_ANSWER = "it has no answer, so there is nothing to learn"
NO_CAPTION = "it trains the guide alone and has no caption: write one (job caption)"
KNOWN_IMAGES = 4096  # of the last ones it is remembered that they are readable


def check_texts(record: Record) -> None:
    """Checks what needs neither an image nor a tokenizer.

    Raises:
        UserError: the marks do not fit the images, or there is neither an answer nor a caption.
    """
    count_marks(record)
    if not record.has_answer and not record.guide_only:
        guides = record.images and not record.tox and all(t.answer is None for t in record.turns)
        raise UserError(f"record {record.id}: {NO_CAPTION if guides else NO_ANSWER}")


def allowed_bad(fraction: float, rows: int) -> int:
    """Returns how many of so many rows may be bad: config.data.max_bad_fraction, rounded down.

    Raises:
        UserError: it is no share.
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"config.data.max_bad_fraction={fraction} must lie in 0..1")
    return math.floor(fraction * rows)


def too_many(bad: BadRow, count: int, allowed: int, total: int) -> UserError:
    """Returns the error about the first bad row that is one too many."""
    return UserError(
        f"{bad.reason} ({count} bad records, config.data.max_bad_fraction allows {allowed} of "
        f"{total})"
    )


# What is counted of the usable records, by its name in <stage>/samples.json, as the line says it.
COUNTED = {
    "truncated": "with truncated answers",
    "truncated_captions": "with captions that are too long and are cut (no answer term)",
    "left_out_turns": "with a first gpt turn left out",
    "image_marks_removed": "with <image> in an answer, a caption or a retrieved text, removed",
    "scaled_pictures": "images scaled to 8 bits",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a sample.

    Attributes:
        bad: why it is left out, None when it is kept.
        too_long: it is left out because its first answer begins too late.
        counts: how often each of `COUNTED` is in a sample that is kept.
    """

    bad: BadRow | None = None
    too_long: bool = False
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def check_sample(
    record: Record, image_dir: Path, prompter: Prompter, transform: Transform
) -> Finding:
    """Checks a sample: texts, images, length. Images of prepared data were decoded before."""
    try:
        check_texts(record)
        scaled = 0 if record.tox else sum(_check_images(record, image_dir, transform))
        lost, caption_lost = prompter.check(record, image_dir)
    except UserError as error:
        bad = BadRow(record.number, record.id, str(error))
        return Finding(bad, too_long=isinstance(error, TooLong))
    counts = {
        "truncated": int(lost > 0),
        "truncated_captions": int(caption_lost > 0),
        "left_out_turns": int(record.left_out_turn),
        "image_marks_removed": int(has_idle_marks(record)),
        "scaled_pictures": scaled,
    }
    return Finding(counts=counts)


def _check_images(record: Record, image_dir: Path, transform: Transform) -> Iterator[bool]:
    """Yields whether each image's values will be scaled."""
    for place, name in enumerate(record.images):
        if record.contents:
            where, content = f"record {record.id}: image {name}", record.contents[place]
            deep, size = False, image_size(io.BytesIO(content), where=where)
        else:
            path = resolve_image(image_dir, name, record_id=record.id)
            where = f"record {record.id}: image {path}"
            with naming(f"record {record.id}"):
                deep, size = _readable(path)
        with naming(where):
            transform.check_size(size)
        yield deep


@functools.lru_cache(KNOWN_IMAGES)
def _readable(path: ImagePlace) -> tuple[bool, tuple[int, int]]:
    return check_image(path, where=f"image {path}")


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
    """What checking a set found.

    Attributes:
        total: rows that were read, those among them that are no records.
        keep: int64[used], the places of the usable records in their set.
        skipped: the other rows, in their order.
        bad: how many of these config.data.max_bad_fraction counts.
        too_long: how many begin their first answer beyond the longest prompt.
        counts: how often each of `COUNTED` is in the usable records.
        held_out: how many more records there are, in splits that are not read here.
    """

    total: int
    keep: np.ndarray
    skipped: tuple[BadRow, ...] = ()
    bad: int = 0
    too_long: int = 0
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    held_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON value, for other processes."""
        skipped = [dataclasses.asdict(bad) for bad in self.skipped]
        return vars(self) | {"keep": self.keep.tolist(), "skipped": skipped}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checked:
        """Returns what `to_json` made a value of."""
        skipped = tuple(BadRow(**bad) for bad in value["skipped"])
        return cls(**{**value, "keep": np.array(value["keep"], np.int64), "skipped": skipped})

    def report(self) -> dict[str, Any]:
        """Returns it as <stage>/samples.json has it."""
        return {
            "samples": self.total,
            "used": len(self.keep),
            "bad": self.bad,
            "too_long": self.too_long,
            "held_out": self.held_out,
            **{name: self.counts.get(name, 0) for name in COUNTED},
            "skipped": [bad.listed() for bad in self.skipped],
        }

    def say(self) -> str:
        """Returns it as a line; what did not occur is not mentioned."""
        counts = {
            "skipped as bad": self.bad,
            "skipped with a first answer beyond max_length": self.too_long,
            **{what: self.counts.get(name, 0) for name, what in COUNTED.items()},
            "more in other splits": self.held_out,
        }
        said = [f"{count} {what}" for what, count in counts.items() if count]
        return ", ".join([f"{len(self.keep)} of {self.total} samples are usable", *said])


def check_set(
    samples: SampleSet,
    *,
    max_bad_fraction: float,
    image_dir: Path,
    prompter: Prompter,
    transform: Transform,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Checked:
    """Checks every record of a set once.

    Args:
        samples: as they were read.
        max_bad_fraction: share of all rows that may be bad.
        image_dir: of the images; not used for prepared data.
        prompter: makes tokens of the records, as the job will.
        transform: makes pixels of their images, as the job will.
        workers: processes that check; with 0 this one does.
        progress: is told how many records are done, after each.

    Raises:
        UserError: one row too many is bad, which it names, or no record is usable.
    """
    records, total = samples.records, samples.total
    allowed = allowed_bad(max_bad_fraction, total)
    tally = _Tally(total, max(allowed, len(samples.unread)) if samples.accepted else allowed)
    for bad in samples.unread:
        tally.add_bad(bad)
    check = functools.partial(
        check_sample, image_dir=image_dir, prompter=prompter, transform=transform
    )
    for place, finding in enumerate(_findings(records, check, workers)):
        tally.add(place, _placed(finding, samples.source))
        progress(place + 1)
    checked = dataclasses.replace(tally.checked(), held_out=samples.held_out)
    if not len(checked.keep):
        reason = f", the first: {checked.skipped[0].reason}" if checked.skipped else ""
        raise UserError(f"none of {checked.total} samples is usable{reason}")
    scaled_before = getattr(records, "scaled", None)  # of prepared data, whose images are of 8
    if scaled_before is None:
        return checked
    scaled = int(scaled_before[checked.keep].sum())
    return dataclasses.replace(checked, counts={**checked.counts, "scaled_pictures": scaled})


def _placed(finding: Finding, source: str) -> Finding:
    """Names the file and the row, beside the record's id, where a bad row was found."""
    bad = finding.bad
    if bad is None or not source:
        return finding
    rest = bad.reason.removeprefix(f"record {bad.id}: ")
    reason = f"{source}: record number {bad.number + 1} (id {bad.id}): {rest}"
    return dataclasses.replace(finding, bad=dataclasses.replace(bad, reason=reason))


def _findings(
    records: Sequence[Record], check: Callable[[Record], Finding], workers: int
) -> Iterable[Finding]:
    """Records in a list travel to the workers one by one, others are read there."""
    if isinstance(records, LazyRecords):
        at = functools.partial(_check_at, records, check)
        return map_in_order(at, range(len(records)), workers=workers)
    return map_in_order(check, records, workers=workers)


def _check_at(records: Sequence[Record], check: Callable[[Record], Finding], place: int) -> Finding:
    return check(records[place])


class _Tally:
    """The findings so far."""

    def __init__(self, total: int, allowed: int) -> None:
        self._total, self._allowed = total, allowed
        self._keep: list[int] = []
        self._skipped: list[BadRow] = []
        self._bad = 0
        self._counts: Counter[str] = Counter()

    def add_bad(self, bad: BadRow) -> None:
        self._bad += 1
        self._skipped.append(bad)
        if self._bad > self._allowed:
            raise too_many(bad, self._bad, self._allowed, self._total)

    def add(self, place: int, finding: Finding) -> None:
        if finding.bad is None:
            self._keep.append(place)
            self._counts.update(finding.counts)
        elif finding.too_long:
            self._skipped.append(finding.bad)
        else:
            self.add_bad(finding.bad)

    def checked(self) -> Checked:
        return Checked(
            total=self._total,
            keep=np.array(self._keep, np.int64),
            skipped=tuple(sorted(self._skipped, key=lambda bad: bad.number)),
            bad=self._bad,
            too_long=len(self._skipped) - self._bad,
            counts=dict(self._counts),
        )
