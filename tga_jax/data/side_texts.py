"""Captions and retrieved texts from files beside the samples; each belongs to an image.

A line says {"id", "image", TEXT}, as jobs `caption` and `retrieve` write it, or {"id", TEXT} alone.
Sets are joined whose ids restart, so an id may name several images: a line without "image" is
then nobody's, because it cannot be told whose it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tga_jax.data.records import Record, named, optional_text, row_id
from tga_jax.data.rows import json_rows
from tga_jax.errors import UserError

# Files of texts beside the samples, as config.data names them: the key of a line's text, and the
# field of a record that it is for.
SIDE_FILES = {"captions": "caption", "retrieved": "text"}
FIELDS = {"captions": "caption", "retrieved": "retrieved"}

Images = Mapping[str, frozenset[str]]  # id -> the images that samples of this id show


@dataclass(frozen=True)
class SideTexts:
    """The texts of a file.

    Attributes:
        path: the file.
        of_images: (id, image) -> text, of the lines with an "image".
        of_ids: id -> text, of the others; None where lines of one id say different things.
    """

    path: Path
    of_images: Mapping[tuple[str, str], str]
    of_ids: Mapping[str, str | None]

    def __len__(self) -> int:
        """Returns how many ids and images have a text."""
        return len(self.of_images) + len(self.of_ids)

    def ids(self) -> set[str]:
        """Returns the ids of all lines."""
        return {*self.of_ids, *(name for name, _ in self.of_images)}

    def text(self, record: Record, images: Images) -> str | None:
        """Returns the text of a record's first image, None where there is none or no telling."""
        if not record.images:
            return None
        known = self.of_images.get((record.id, record.images[0]))
        if known is None and not self.is_unclear(record.id, images):
            known = self.of_ids.get(record.id)
        return known

    def is_unclear(self, name: str, images: Images) -> bool:
        """Whether a line without "image" does not say whose text it is."""
        if name not in self.of_ids:
            return False
        return self.of_ids[name] is None or len(images.get(name, ())) > 1

    def unknown(self, images: Images) -> set[str]:
        """Returns the ids of the lines that belong to no sample, by id or by image."""
        lost = {one for one in self.of_ids if one not in images}
        return lost | {one for one, image in self.of_images if image not in images.get(one, ())}


def read_side_texts(path: Path, *, key: str) -> SideTexts:
    """Reads a file of texts.

    Args:
        path: JSONL of {"id", key}, each line with "image" or without.
        key: under which a line has its text. Blank texts count as none. Of several lines of one
            image the last counts.

    Raises:
        UserError: naming the line and what is wrong with it.
    """
    of_images: dict[tuple[str, str], str] = {}
    of_ids: dict[str, str | None] = {}
    for where, row in json_rows(path):
        name = str(row_id(row, key="id", where=where))
        where = f"{where} (id {name})"
        if key not in row:
            raise UserError(f'{where}: has no "{key}", only {", ".join(map(repr, row))}')
        text = optional_text(row, key=key, where=where)
        image = optional_text(row, key="image", where=where)
        if text is None:
            continue
        if image is not None:
            of_images[name, image] = text
        else:
            of_ids[name] = text if of_ids.get(name, text) == text else None
    return SideTexts(path, of_images, of_ids)


def images_of(records: Iterable[Record]) -> dict[str, frozenset[str]]:
    """Returns id -> the first images of all records that have this id."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(record.id, set()).update(record.images[:1])
    return {one: frozenset(images) for one, images in found.items()}


def read_side_files(files: Mapping[str, Path | None]) -> dict[str, SideTexts]:
    """Returns the texts of those files of `SIDE_FILES` that there are, by the same names."""
    return {
        name: read_side_texts(path, key=SIDE_FILES[name]) for name, path in files.items() if path
    }


def with_texts(
    records: Iterable[Record], texts: Mapping[str, SideTexts], images: Images
) -> list[Record]:
    """Returns the records, those without a caption or a retrieved text with one from the files.

    Args:
        records: of one set.
        texts: as `read_side_files` returns them.
        images: `images_of` all sets that the files are for, this one among them.
    """
    return [_filled(record, texts, images) for record in records]


def _filled(record: Record, texts: Mapping[str, SideTexts], images: Images) -> Record:
    found: dict[str, Any] = {
        FIELDS[name]: getattr(record, FIELDS[name]) or side.text(record, images)
        for name, side in texts.items()
    }
    return replace(record, **found)


def about_texts(
    texts: Mapping[str, SideTexts], records: Sequence[Record], images: Images
) -> dict[str, dict[str, Any]]:
    """Counts what the files of texts are to the samples, as reports have it.

    Args:
        texts: as `read_side_files` returns them.
        records: the samples, before the texts are filled in or after.
        images: see `with_texts`.

    Returns:
        By file: "texts"; "known_ids", how many ids belong to a sample; "unknown_ids", those that do
        not; "unclear_ids", which name several images so that a sample is left without a text; and
        "unclear_samples", how many samples are.
    """
    about = {}
    for name, found in texts.items():
        unknown = found.unknown(images)
        unclear = [
            record.id
            for record in records
            if record.images
            and not getattr(record, FIELDS[name])
            and found.is_unclear(record.id, images)
        ]
        about[name] = {
            "texts": len(found),
            "known_ids": len(found.ids() - unknown),
            "unknown_ids": named(unknown),
            "unclear_ids": named(set(unclear)),
            "unclear_samples": len(unclear),
        }
    return about


def text_warnings(about: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what a person must hear of `about_texts`, a line each."""
    return [line for name in SIDE_FILES if name in about for line in _warnings(name, about[name])]


def _warnings(source: str, about: Mapping[str, Any]) -> list[str]:
    lines = []
    if about["texts"] and not about["known_ids"]:
        lines.append(
            f"warning: {source}: none of its {about['texts']} texts belongs to a sample: no id, "
            "or no image of an id, is the same"
        )
    elif about["unknown_ids"]["count"]:
        lines.append(f"{source}: {about['unknown_ids']['count']} unknown ids")
    if about["unclear_samples"]:
        first = ", ".join(about["unclear_ids"]["first"][:3])
        lines.append(
            f"warning: {source}: {about['unclear_samples']} samples are left without a text: "
            f"{about['unclear_ids']['count']} ids ({first}, ...) name several images or texts; "
            'write "image" beside "id" in its lines'
        )
    return lines
