"""Checks records and their images in parallel, and turns them into examples to be stored."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tga_jax.data.images import decode_image, is_deep, open_image, resolve_image
from tga_jax.data.in_parallel import map_in_order
from tga_jax.data.lazy_records import text_length
from tga_jax.data.records import BadRow, Record
from tga_jax.data.row_check import check_texts
from tga_jax.data.stored import Figures
from tga_jax.data.templates import first_answer_images
from tga_jax.errors import UserError

SCALED = "scaled"  # why an image is encoded anew whose values are of more than 8 bits


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a record.

    Attributes:
        bad: why it is left out, None when it is kept.
        example: what is written, in the form of `tfds_builder.features`; None when left out.
        digest: SHA-256 of the example, "" when left out.
        figures: what the index says of it, None when left out.
        encoded: why images were encoded anew, one reason an image.
    """

    bad: BadRow | None = None
    example: dict[str, Any] | None = None
    digest: str = ""
    figures: Figures | None = None
    encoded: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The place of the record's row in the input, from 0."""
        known = self.bad or self.figures
        assert known is not None
        return known.number


def check_row(record: Record, image_dir: Path) -> Outcome:
    """Reads a record's images and checks all that can be checked without a model."""
    try:
        check_texts(record)
        images = [_read_image(record, name, image_dir) for name in record.images]
    except UserError as error:
        return Outcome(BadRow(record.number, record.id, str(error)))
    example = _example(record, images)
    encoded = tuple(change for _, _, change in images if change)
    figures = Figures(
        number=record.number,
        text_length=text_length(record),
        images=len(record.images),
        caption=int(record.caption is not None),
        retrieved=int(record.retrieved is not None),
        tox=int(record.tox),
        left_out_turn=int(record.left_out_turn),
        scaled=encoded.count(SCALED),
        first_answer_images=first_answer_images(record),
        answered=record.has_answer,
    )
    return Outcome(None, example, _digest(example), figures, encoded)


def _read_image(record: Record, name: str, image_dir: Path) -> tuple[bytes, str, str]:
    """Returns (bytes, their format, why they are not the file's own or "").

    Pixels are those of `load_image` either way: what is encoded anew is its RGB, without loss.
    """
    if record.tox:  # blank in training, whatever the file holds
        return b"", "", ""
    path = resolve_image(image_dir, name, record_id=record.id)
    where = f"record {record.id}: image {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror or error}") from error
    pixels = decode_image(io.BytesIO(content), where=where)
    with open_image(io.BytesIO(content), where=where) as image:
        # Telephones write JPEG files of several images; the first is an ordinary JPEG.
        form = "JPEG" if image.format == "MPO" else str(image.format)
        change = _change(image, form, path.suffix.lower())
    if not change:
        return content, form.lower(), ""
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue(), "png", change


def _change(image: Image.Image, form: str, suffix: str) -> str:
    """Why an image is not kept as it is, "" if it is."""
    if is_deep(image):
        return SCALED
    claimed = Image.registered_extensions().get(suffix, form)
    if (form if claimed == "MPO" else claimed) != form:
        return "format"
    if image.mode in ("P", "PA"):
        return "palette"
    if image.mode == "CMYK":
        return "cmyk"
    return "animated" if getattr(image, "is_animated", False) and image.format != "MPO" else ""


def _example(record: Record, images: list[tuple[bytes, str, str]]) -> dict[str, Any]:
    conversation = []
    for turn in record.turns:
        conversation.append({"from": "human", "value": turn.question})
        if turn.answer is not None:
            conversation.append({"from": "gpt", "value": turn.answer})
    return {
        "id": record.id,
        "conversations": json.dumps(conversation, ensure_ascii=False),
        "images": [content for content, _, _ in images],
        "image_names": list(record.images),
        "image_formats": [form for _, form, _ in images],
        "image_caption": record.caption or "",
        "retrieved_caption": record.retrieved or "",
        "tox": record.tox,
    }


def _digest(example: dict[str, Any]) -> str:
    hashes = [hashlib.sha256(content).hexdigest() for content in example["images"]]
    text = json.dumps(example | {"images": hashes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_rows(records: Iterable[Record], image_dir: Path, *, workers: int) -> Iterator[Outcome]:
    """Yields `check_row` of every record, in order, from `workers` processes; 0: from this one."""
    check = functools.partial(check_row, image_dir=image_dir)
    return map_in_order(check, records, workers=workers)
