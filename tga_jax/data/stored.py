"""A record as prepared data holds it: checked, with its images' bytes, and back to a `Record`."""

import json
import zlib
from typing import Any, NamedTuple

from tga_jax.data.records import Record, Turn

TRAIN, VALIDATION = "train", "validation"


class Figures(NamedTuple):
    """What prepared data knows of a record without reading it: a row of its index.

    Attributes:
        number: the row's place in the input, from 0.
        text_length: see `lazy_records.text_length`.
        images: how many it has.
        caption: 1 if it has one.
        retrieved: 1 if it has a retrieved text.
        tox: 1 if it is marked so.
        left_out_turn: 1 if its conversation began with a gpt turn, which was left out.
        scaled: how many of its images had values of more than 8 bits.
        first_answer_images: as `templates.first_answer_images` counts them.
        answered: 1 if it has an answer to learn.
    """

    number: int
    text_length: int
    images: int
    caption: int
    retrieved: int
    tox: int
    left_out_turn: int
    scaled: int
    first_answer_images: int
    answered: int


def split_of(record: Record, share: float) -> str:
    """Which split a record is in: by its first image's name (else its id), so that no image
    is in both; about `share` of them are in "validation"."""
    key = record.images[0] if record.images else record.id
    return VALIDATION if zlib.crc32(f"split {key}".encode()) / 2**32 < share else TRAIN


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
