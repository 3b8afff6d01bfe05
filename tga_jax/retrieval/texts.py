"""Texts of an index: read, cleaned, each kept once; and when two of them are near-duplicates."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tga_jax import files
from tga_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Text:
    """A text and where it came from: a record's id, a corpus line's id, or FILE:LINE."""

    id: str
    text: str


def clean(text: str) -> str:
    """Unicode NFC, control characters out, each run of whitespace one space."""
    text = unicodedata.normalize("NFC", text)
    kept = (c if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs") else "" for c in text)
    return " ".join("".join(kept).split())


def truncate(text: str, most: int) -> str:
    """At most `most` characters of a cleaned text, which ends between words where it has any."""
    if len(text) <= most:
        return text
    begin = text[: most + 1].rpartition(" ")[0]
    return begin or text[:most]


def normal_form(text: str) -> str:
    """What is left without case, punctuation and spacing; equal forms are one text."""
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = (" " if unicodedata.category(c).startswith("P") else c for c in text)
    return " ".join("".join(kept).split())


def jaccard(first: str, second: str) -> float:
    """Words that both normal forms have, as a share of those that either has; 0..1."""
    a, b = set(first.split()), set(second.split())
    return len(a & b) / len(a | b) if a | b else 1.0


def tidy(texts: Iterable[Text], *, most: int) -> tuple[list[Text], dict[str, int]]:
    """Cleans texts and keeps the first of those with the same normal form.

    Args:
        texts: in the order in which the index will have them.
        most: characters; a longer text is truncated.

    Returns:
        The texts kept, and how many were "read", "empty" (nothing but spaces and punctuation),
        "cut", "duplicates" and "kept".
    """
    kept: dict[str, Text] = {}
    counts = dict.fromkeys(("read", "empty", "cut", "duplicates", "kept"), 0)
    for item in texts:
        counts["read"] += 1
        text = clean(item.text)
        shorter = truncate(text, most)
        form = normal_form(shorter)
        if not form:
            counts["empty"] += 1
        elif form in kept:
            counts["duplicates"] += 1
        else:
            counts["cut"] += shorter != text
            kept[form] = Text(item.id, shorter)
    counts["kept"] = len(kept)
    return list(kept.values()), counts


def read_lines(path: Path, *, keys: Sequence[str] = ("text", "caption")) -> Iterator[Text]:
    """Texts of a .txt file, one a line, or of a .jsonl file of {"id", "text"}; "id" is optional.

    Of several `keys` the first counts that a line has.

    Raises:
        UserError: naming the file and the line.
    """
    for number, line in files.read_lines(path):
        name = f"{path.name}:{number}"
        if path.suffix != ".jsonl":
            yield Text(name, line)
        elif line.strip():
            row = files.parse_json(line, str(path), line=number)
            key = next((key for key in keys if isinstance(row, dict) and key in row), None)
            if key is None or not isinstance(row[key], str):
                hint = "; samples are read from .json files" if "conversations" in line else ""
                named = " or ".join(f'"{key}"' for key in keys)
                raise UserError(
                    f"{path}: line {number}: it must be an object with a text under {named}{hint}"
                )
            found = row.get("id")
            yield Text(name if found is None else str(found), row[key])
