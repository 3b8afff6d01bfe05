"""The images that job `retrieve` finds texts for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tga_jax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image to find a text for, and the texts that it must not get.

    Attributes:
        name: decides its lots: the id, with the image where the id shows several.
        id: of its records.
        image: its file's name.
        caption: "" without one.
        own: the captions and answers of all records that show the image.
    """

    name: str
    id: str
    image: str
    caption: str
    own: tuple[str, ...]


def choose_samples(records: Sequence[Record]) -> tuple[list[Sample], dict[str, int]]:
    """Returns one sample for each id and first image of a record, and what was left out."""
    counts = {"records": len(records), "without_picture": 0, "tox": 0}
    own: dict[str, dict[str, None]] = {}
    images: dict[str, dict[str, str]] = {}  # id -> image -> caption
    for record in records:
        counts["without_picture"] += not record.images
        counts["tox"] += bool(record.images) and record.tox
        if not record.images or record.tox:
            continue
        image, answers = record.images[0], [turn.answer for turn in record.turns]
        shown = images.setdefault(record.id, {})
        shown[image] = shown.get(image) or record.caption or ""
        own.setdefault(image, {}).update(
            dict.fromkeys(text for text in (record.caption, *answers) if text)
        )
    samples = [
        Sample(one if len(shown) == 1 else f"{one} {image}", one, image, caption, tuple(own[image]))
        for one, shown in images.items()
        for image, caption in shown.items()
    ]
    return samples, counts
