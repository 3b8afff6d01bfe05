"""LLaVA records and question files: JSON or JSONL on disk -> checked, frozen dataclasses.

A record, as LLaVA writes it, with this method's three optional keys:

    {"id": "7", "image": "a/7.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"},
                       {"from": "gpt", "value": "A cup."}],
     "image_caption": "a white cup", "retrieved_caption": "a tea set on a table", "tox": 0}

A captioned image with nothing to answer about it has no "gpt" turn, or the key "guide_only": 1,
which leaves the answers out: the guide alone counts.

Everything that can be wrong with such a file is found here, before any model is loaded.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tga_jax.data.rows import json_rows, kind, tolerant_rows
from tga_jax.errors import UserError


@dataclass(frozen=True)
class Turn:
    """A question and its answer; the answer is None where the model is to write it."""

    question: str
    answer: str | None


@dataclass(frozen=True)
class Record:
    """One training sample: an image or none, a conversation about it, and its texts.

    Attributes:
        id: the row's own.
        images: file names relative to the image folder.
        turns: of the conversation.
        caption: of the first image.
        retrieved: a text that was found for the first image.
        tox: the images are to be replaced by blank ones.
        contents: the images' bytes where the sample comes from prepared data, else none.
        number: the row's place in its file, from 0.
        left_out_turn: the conversation began with a gpt turn, which was left out.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    caption: str | None
    retrieved: str | None
    tox: bool
    contents: tuple[bytes, ...] = field(default=(), repr=False)
    number: int = field(default=0, repr=False, compare=False)
    left_out_turn: bool = field(default=False, repr=False, compare=False)

    @property
    def has_answer(self) -> bool:
        """Whether any of its answers is more than blanks."""
        return any((turn.answer or "").strip() for turn in self.turns)

    @property
    def guide_only(self) -> bool:
        """Whether it is a captioned image with no answer at all, from which the guide learns."""
        shown = bool(self.images and self.caption) and not self.tox
        return shown and all(turn.answer is None for turn in self.turns)


@dataclass(frozen=True)
class Question:
    """One line of a question file. `id` keeps its JSON type, `extra` holds all further keys."""

    id: int | str
    image: str | None
    text: str
    caption: str | None = None
    retrieved: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """A row that is left out.

    Attributes:
        number: its place in its file, from 0.
        id: the record's; None where the row has none.
        reason: why, naming the file or the record.
    """

    number: int
    id: str | None
    reason: str

    def listed(self) -> dict[str, Any]:
        """It as reports list it, with the first row as record 1."""
        return {"id": self.id, "record": self.number + 1, "reason": self.reason}


def read_records(path: Path | str) -> list[Record]:
    """Reads a LLaVA file (a JSON list, or one JSON object a line) in which every row is right.

    Raises:
        UserError: naming the file, the record and what is wrong with it.
    """
    return [
        parse_record(row, where=where, number=number)
        for number, (where, row) in enumerate(json_rows(Path(path)))
    ]


def read_rows(path: Path) -> tuple[list[Record], list[BadRow]]:
    """Reads a LLaVA file: the rows that are records, and those that are none.

    Raises:
        UserError: the file is missing or broken as a whole.
    """
    records: list[Record] = []
    bad: list[BadRow] = []
    for number, (where, value) in enumerate(tolerant_rows(path)):
        try:
            if isinstance(value, UserError):
                raise value
            records.append(parse_record(value, where=where, number=number))
        except UserError as error:
            name = value.get("id") if isinstance(value, dict) else None
            bad.append(BadRow(number, None if name is None else str(name), str(error)))
    return records, bad


SHOWN = 20  # ids that a report names, of each kind


def named(ids: Iterable[str]) -> dict[str, Any]:
    """Returns how many ids there are, and the first of them in their order."""
    every = sorted(ids)
    return {"count": len(every), "first": every[:SHOWN]}


def read_questions(path: Path | str) -> list[Question]:
    """Reads a LLaVA question file {"question_id", "image", "text"}; "image" is optional.

    The keys "caption" and "retrieved" are understood too.

    Raises:
        UserError: naming the file, the question and what is wrong with it.
    """
    return [_question(row, where=where) for where, row in json_rows(Path(path))]


def repeats(questions: Sequence[Question]) -> list[int]:
    """How many questions before each have the same id."""
    seen: Counter[int | str] = Counter()
    found = []
    for question in questions:
        found.append(seen[question.id])
        seen[question.id] += 1
    return found


# --- JSON objects -> records ---


def parse_record(row: Mapping[str, Any], *, where: str, number: int = 0) -> Record:
    """Returns a LLaVA row as a record.

    Args:
        row: as JSON has it.
        where: what an error message starts with.
        number: the row's place in its file.

    Raises:
        UserError: saying what is wrong with it.
    """
    record_id = str(row_id(row, key="id", where=where))
    where = f"{where} (id {record_id})"
    if row.get("video") is not None:
        raise UserError(f'{where}: is a video row ("video"), and only images and texts are read')
    turns, left_out = _turns(row.get("conversations"), where=where)
    if _flag(row, key="guide_only", where=where):
        if row.get("image") is None:
            raise UserError(f'{where}: "guide_only" is 1, but it has no "image" to guide')
        turns = (Turn(turns[0].question, None),)
    return Record(
        id=record_id,
        images=_images(row, where=where),
        turns=turns,
        caption=optional_text(row, key="image_caption", where=where),
        retrieved=optional_text(row, key="retrieved_caption", where=where),
        tox=_tox(row, record_id=record_id, where=where),
        number=number,
        left_out_turn=left_out,
    )


def _question(row: Mapping[str, Any], *, where: str) -> Question:
    question_id = row_id(row, key="question_id", where=where)
    where = f"{where} (question_id {question_id})"
    image = row.get("image")
    if image is not None:
        image = _text(image, key="image", where=where)
    known = {"question_id", "image", "text", "caption", "retrieved"}
    return Question(
        id=question_id,
        image=image,
        text=_text(row.get("text"), key="text", where=where),
        caption=optional_text(row, key="caption", where=where),
        retrieved=optional_text(row, key="retrieved", where=where),
        extra={key: value for key, value in row.items() if key not in known},
    )


def row_id(row: Mapping[str, Any], *, key: str, where: str) -> int | str:
    """Returns the id that `row` has under `key`; a UserError says that it has none."""
    value = row.get(key)
    if value is None or value == "":
        raise UserError(f'{where}: has no "{key}"')
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f'{where}: "{key}" must be a string or an integer, got {kind(value)}')
    return value if isinstance(value, int) else _text(value, key=key, where=where)


def _images(row: Mapping[str, Any], *, where: str) -> tuple[str, ...]:
    value = row.get("image")
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    names = tuple(_text(name, key="image", where=where) for name in values)
    if not all(names):
        raise UserError(f'{where}: "image" is an empty name; leave the key out for a text-only row')
    return names


def _turns(conversations: Any, *, where: str) -> tuple[tuple[Turn, ...], bool]:
    """Returns the turns, and whether a first one of the model was left out, as LLaVA does."""
    if not isinstance(conversations, list) or not conversations:
        raise UserError(f'{where}: "conversations" is missing, empty or not a list')
    first = conversations[0]
    left_out = isinstance(first, dict) and first.get("from") == "gpt"
    if left_out and len(conversations) == 1:
        raise UserError(f"{where}: conversations[0]: a gpt turn without a human turn")
    turns: list[Turn] = []
    for number, message in enumerate(conversations[left_out:], start=left_out):
        here = f"{where}: conversations[{number}]"
        if not isinstance(message, dict):
            raise UserError(f"{here}: it must be an object, got {kind(message)}")
        text = _text(message.get("value"), key="value", where=here)
        waiting = bool(turns) and turns[-1].answer is None
        match message.get("from"):
            case "human" if not waiting:
                turns.append(Turn(text, None))
            case "gpt" if waiting:
                turns[-1] = Turn(turns[-1].question, text)
            case "human":
                raise UserError(f"{here}: two human turns in a row")
            case "gpt":
                raise UserError(f"{here}: a gpt turn without a human turn before it")
            case other:
                raise UserError(f'{here}: "from" must be "human" or "gpt", got {other!r}')
    return tuple(turns), left_out


def _tox(row: Mapping[str, Any], *, record_id: str, where: str) -> bool:
    """Takes the key "tox", or else an id of which one part is "tox", as in "set-tox-3"."""
    if row.get("tox") is None:
        return "tox" in re.split(r"[\W_]+", record_id.lower())
    return _flag(row, key="tox", where=where)


def _flag(row: Mapping[str, Any], *, key: str, where: str) -> bool:
    value = row.get(key)
    if value is None:
        return False
    if value not in (0, 1):
        raise UserError(f'{where}: "{key}" must be 0, 1, true or false, got {value!r}')
    return bool(value)


def optional_text(row: Mapping[str, Any], *, key: str, where: str) -> str | None:
    """Returns the text that `row` has under `key`; None where it is absent or blank."""
    value = row.get(key)
    if value is None:
        return None
    text = _text(value, key=key, where=where)
    return text if text.strip() else None


def _text(value: Any, *, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f'{where}: "{key}" must be a string, got {kind(value)}')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f'{where}: "{key}" holds half of a surrogate pair, which is no character'
        ) from error
    return value
