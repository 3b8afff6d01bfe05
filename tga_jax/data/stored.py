"""A record as prepared data holds it: checked, with its pictures' bytes, and back to a `Record`."""

import json
import zlib
from dataclasses import dataclass
from typing import Any

from tga_jax.data.records import Record, Turn

TRAIN, VALIDATION = "train", "validation"

Row = tuple[int, Record]


@dataclass(frozen=True)
class Outcome:
    """What became of a row of the input.

    Attributes:
        number: the row's place in the input, from 0.
        id: the record's; None where the row has none.
        reason: why it is left out, "" when it is kept.
        example: what is written, in the form of `tfds_builder.features`; None when left out.
        digest: SHA-256 of the example, "" when left out.
        figures: text length, pictures, has a caption, has a retrieved text, is marked "tox".
        encoded: why pictures were encoded anew, one reason a picture.
    """

    number: int
    id: str | None
    reason: str = ""
    example: dict[str, Any] | None = None
    digest: str = ""
    figures: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    encoded: tuple[str, ...] = ()


def split_of(record: Record, share: float) -> str:
    """Which split a record is in: by its first picture's name (else its id), so that no picture
    is in both; about `share` of them are in "validation"."""
    key = record.images[0] if record.images else record.id
    return VALIDATION if zlib.crc32(f"split {key}".encode()) / 2**32 < share else TRAIN


# --- records -> examples ---


# --- examples -> records ---


def to_record(example: dict[str, Any]) -> Record:
    """The record of an example as TFDS reads it: texts as bytes, sequences as arrays."""
    messages = json.loads(example["conversations"])
    turns: list[Turn] = []
    for message in messages:
        if message["from"] == "human":
            turns.append(Turn(message["value"], None))
        else:
            turns[-1] = Turn(turns[-1].question, message["value"])
    return Record(
        id=example["id"].decode(),
        images=tuple(name.decode() for name in example["image_names"]),
        turns=tuple(turns),
        caption=example["image_caption"].decode() or None,
        retrieved=example["retrieved_caption"].decode() or None,
        tox=bool(example["tox"]),
        contents=tuple(bytes(content) for content in example["images"]),
    )


# --- many of them, in processes ---
