"""LLaVA records and question files: JSON or JSONL on disk -> checked, frozen dataclasses.

A record, as LLaVA writes it, with this method's three optional keys:

    {"id": "7", "image": "a/7.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"},
                       {"from": "gpt", "value": "A cup."}],
     "image_caption": "a white cup", "retrieved_caption": "a tea set on a table", "tox": 0}

Everything that can be wrong with such a file is found here, before any model is loaded.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from tga_jax.data.rows import json_rows, kind
from tga_jax.errors import UserError


@dataclass(frozen=True)
class Turn:
    """A question and its answer; the answer is None where the model is to write it."""

    question: str
    answer: str | None


@dataclass(frozen=True)
class Record:
    """One training sample.

    `images` are file names relative to the image folder; `contents` are those files' bytes where
    the sample comes from prepared data, else there are none.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    caption: str | None
    retrieved: str | None
    tox: bool
    contents: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Question:
    """One line of a question file. `id` keeps its JSON type, `extra` holds all further keys."""

    id: int | str
    image: str | None
    text: str
    caption: str | None = None
    retrieved: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_records(
    path: Path | str, *, captions: Path | None = None, retrieved: Path | None = None
) -> list[Record]:
    """Reads a LLaVA file (a JSON list, or one JSON object a line).

    Args:
        path: the file; whether it is a list or JSONL is seen from its content.
        captions: optional JSONL {"id", "caption"}, for records without "image_caption".
        retrieved: optional JSONL {"id", "text"}, for records without "retrieved_caption".

    Raises:
        UserError: naming the file, the record and what is wrong with it.
    """
    records = [parse_record(row, where=where) for where, row in json_rows(Path(path))]
    if captions is not None:
        texts = texts_by_id(Path(captions), key="caption")
        records = [replace(r, caption=r.caption or texts.get(r.id)) for r in records]
    if retrieved is not None:
        texts = texts_by_id(Path(retrieved), key="text")
        records = [replace(r, retrieved=r.retrieved or texts.get(r.id)) for r in records]
    return records


def text_length(record: Record) -> int:
    """The number of characters; enough to group samples of like length."""
    return sum(len(turn.question) + len(turn.answer or "") for turn in record.turns)


def text_lengths(records: Sequence[Record]) -> Sequence[int]:
    """`text_length` of every record; prepared data knows them without reading its records."""
    known = getattr(records, "text_lengths", None)
    return [text_length(record) for record in records] if known is None else known


def picture_counts(records: Sequence[Record]) -> Sequence[int]:
    """How many pictures every record has; likewise."""
    known = getattr(records, "picture_counts", None)
    return [len(record.images) for record in records] if known is None else known


class LazyRecords(Sequence[Record]):
    """Records that are read when asked for; a kind of them says how, in `_read`."""

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        count = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(count))]
        if not -count <= index < count:
            raise IndexError(index)
        return self._read(int(index) % count)

    @abstractmethod
    def _read(self, index: int) -> Record:
        """The record at 0 <= index < len(self)."""


def has_flags(records: Sequence[Record]) -> np.ndarray:
    """What every record has: bool[records, 4] (pictures, caption, retrieved text, "tox")."""
    known = getattr(records, "has_flags", None)
    if known is not None:
        return np.asarray(known)
    return np.array([(r.images != (), bool(r.caption), bool(r.retrieved), r.tox) for r in records])


def has_contents(records: Sequence[Record]) -> bool:
    """Whether the records bring their pictures along, so that no picture folder is needed."""
    return bool(getattr(records, "has_contents", False))


def read_questions(path: Path | str) -> list[Question]:
    """Reads a LLaVA question file {"question_id", "image", "text"}; "image" is optional.

    The keys "caption" and "retrieved" are understood too.

    Raises:
        UserError: naming the file, the question and what is wrong with it.
    """
    return [_question(row, where=where) for where, row in json_rows(Path(path))]


def texts_by_id(path: Path, *, key: str) -> dict[str, str]:
    """Returns {id: text} of a JSONL file; a later line for the same id replaces an earlier one."""
    texts = {}
    for where, row in json_rows(path):
        row_id = str(_id(row, key="id", where=where))
        text = _optional_text(row, key=key, where=f"{where} (id {row_id})")
        if text is not None:
            texts[row_id] = text
    return texts


# --- JSON objects -> records ---


def parse_record(row: Mapping[str, Any], *, where: str) -> Record:
    """A LLaVA row as a record; `where` is what an error message starts with.

    Raises:
        UserError: saying what is wrong with it.
    """
    record_id = str(_id(row, key="id", where=where))
    where = f"{where} (id {record_id})"
    return Record(
        id=record_id,
        images=_images(row, where=where),
        turns=_turns(row.get("conversations"), where=where),
        caption=_optional_text(row, key="image_caption", where=where),
        retrieved=_optional_text(row, key="retrieved_caption", where=where),
        tox=_tox(row, record_id=record_id, where=where),
    )


def _question(row: Mapping[str, Any], *, where: str) -> Question:
    question_id = _id(row, key="question_id", where=where)
    where = f"{where} (question_id {question_id})"
    image = row.get("image")
    if image is not None:
        image = _text(image, key="image", where=where)
    known = {"question_id", "image", "text", "caption", "retrieved"}
    return Question(
        id=question_id,
        image=image,
        text=_text(row.get("text"), key="text", where=where),
        caption=_optional_text(row, key="caption", where=where),
        retrieved=_optional_text(row, key="retrieved", where=where),
        extra={key: value for key, value in row.items() if key not in known},
    )


def _id(row: Mapping[str, Any], *, key: str, where: str) -> int | str:
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


def _turns(conversations: Any, *, where: str) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise UserError(f'{where}: "conversations" is missing, empty or not a list')
    turns: list[Turn] = []
    for number, message in enumerate(conversations, start=1):
        here = f"{where}: conversations[{number - 1}]"
        if not isinstance(message, dict):
            raise UserError(f"{here}: expected an object, got {kind(message)}")
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
    return tuple(turns)


def _tox(row: Mapping[str, Any], *, record_id: str, where: str) -> bool:
    value = row.get("tox")
    if value is None:
        return "tox" in record_id.lower()
    if value not in (0, 1):
        raise UserError(f'{where}: "tox" must be 0, 1, true or false, got {value!r}')
    return bool(value)


def _optional_text(row: Mapping[str, Any], *, key: str, where: str) -> str | None:
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
        raise UserError(f'{where}: "{key}" holds half of a surrogate pair') from error
    return value
