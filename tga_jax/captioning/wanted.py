"""Which samples keep their caption, and which images are to be described."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tga_jax.captioning.log import Key
from tga_jax.data.image_files import place_of, size_of
from tga_jax.data.records import Record
from tga_jax.errors import UserError

Show = tuple[str, str]  # an id and the image that a sample of this id shows


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What captions.jsonl is to hold.

    Attributes:
        own: id and image -> the caption that its sample has.
        shown: id and image -> the image to describe.
        shows: the ids and images of both, in the order of the samples.
        counts: what was left out.
    """

    own: dict[Show, str]
    shown: dict[Show, Key]
    shows: list[Show]
    counts: dict[str, int]

    @property
    def images(self) -> dict[Key, str]:
        """Each image once, with the first id that shows it."""
        first: dict[Key, str] = {}
        for (name, _), key in self.shown.items():
            first.setdefault(key, name)
        return first


def choose(records: Sequence[Record], image_dir: Path) -> Wanted:
    """Returns which captions are kept and which images need one: the first of each sample.

    An id may show several images, where sets are joined whose ids restart; each gets its own.

    Raises:
        UserError: there is no image to caption.
    """
    counts = {"records": len(records), "without_picture": 0, "tox": 0}
    own: dict[Show, str] = {}
    lacking: dict[Show, None] = {}
    for record in records:
        if not record.images:
            counts["without_picture"] += 1
            continue
        show = (record.id, record.images[0])
        if record.caption:
            own.setdefault(show, record.caption)
        elif record.tox:
            counts["tox"] += 1
        else:
            lacking[show] = None
    shown = {show: _key(image_dir, show[1]) for show in lacking if show not in own}
    order = dict.fromkeys((r.id, r.images[0]) for r in records if r.images)
    shows = [show for show in order if show in own or show in shown]
    if not shows:
        raise UserError("config.data.path: no sample has an image to caption")
    return Wanted(own, shown, shows, counts | {"own": len(own)})


def _key(folder: Path, name: str) -> Key:
    return name, size_of(place_of(folder, name))
