"""Texts beside the samples: whose they are where ids restart, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tga_jax.data.records import Record, Turn
from tga_jax.data.side_texts import (
    about_texts,
    images_of,
    read_side_files,
    text_warnings,
    with_texts,
)
from tga_jax.errors import UserError


def record(name: str, *images: str, caption: str | None = None) -> Record:
    return Record(name, images, (Turn("q", "a"),), caption, None, False)


# Two sets joined: "0" names two images, "5" an image twice, "7" none.
RECORDS = [
    record("0", "0.png"), record("1", "1.png"), record("0", "2.png"), record("9", "3.png"),
    record("5", "5.png"), record("5", "5.png"), record("7"), record("1", "1.png", caption="own"),
]  # fmt: skip


def filled(
    tmp_path: Path, lines: list[dict[str, Any]], name: str = "captions"
) -> tuple[list[Record], dict[str, Any], list[str]]:
    """The records, what is reported of the file, and what is said."""
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    texts, images = read_side_files({name: path, "other": None}), images_of(RECORDS)
    about = about_texts(texts, RECORDS, images)
    records = with_texts(RECORDS, texts, images)
    assert about_texts(texts, records, images) == about  # before they are filled in, and after
    return records, about[name], text_warnings(about)


def test_ids_alone_say_nothing_of_an_id_that_names_two_images(tmp_path: Path) -> None:
    given = {
        "0": "a red ball",
        "1": "white cups",
        "9": "the sea",
        "5": "a\u2028b",
        "7": "x",
        "8": "y",
    }
    records, about, said = filled(
        tmp_path, [{"id": one, "caption": text} for one, text in given.items()]
    )
    assert [r.caption for r in records] == [
        None, "white cups", None, "the sea", "a\u2028b", "a\u2028b", None, "own",
    ]  # fmt: skip
    assert about == {
        "texts": 6, "known_ids": 5, "unknown_ids": {"count": 1, "first": ["8"]},
        "unclear_ids": {"count": 1, "first": ["0"]}, "unclear_samples": 2,
    }  # fmt: skip
    assert len(said) == 2 and "captions: 1 unknown ids" in said[0]
    assert "2 samples are left without a text: 1 ids (0, ...)" in said[1]


def test_lines_with_an_image_reach_their_image(tmp_path: Path) -> None:
    lines = [
        {"id": 0, "image": "0.png", "text": "a red ball", "text_id": "c.txt:1", "score": 1},
        {"id": 0, "image": "2.png", "text": "old"},
        {"id": 0, "image": "2.png", "text": "a grey cat"},
        {"id": 1, "image": "elsewhere/1.png", "text": "not of this image"},
        {"id": 9, "image": None, "text": "the sea"},
    ]
    records, about, said = filled(tmp_path, lines, "retrieved")
    assert [r.retrieved for r in records][:4] == ["a red ball", None, "a grey cat", "the sea"]
    assert about["unclear_samples"] == 0 and about["unknown_ids"]["first"] == ["1"]
    assert said == ["retrieved: 1 unknown ids"]


def test_two_lines_of_one_id_that_differ_are_nobodys(tmp_path: Path) -> None:
    lines = [
        {"id": one, "caption": text}
        for one, text in (("9", "a"), ("9", "b"), ("1", "c"), ("1", "c"))
    ]
    records, about, _ = filled(tmp_path, lines)
    assert (records[3].caption, records[1].caption) == (None, "c")
    assert about["unclear_ids"]["first"] == ["9"]


@pytest.mark.parametrize("line", [{"id": "x"}, {"id": "0", "image": "images/0.png"}])
def test_a_file_that_belongs_to_no_sample_is_a_warning(tmp_path: Path, line: dict) -> None:
    _, about, said = filled(tmp_path, [line | {"caption": "c"}])
    assert about["known_ids"] == 0
    (only,) = said
    assert only.startswith("warning: captions: none of its 1 texts belongs to a sample")


def test_broken_lines_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r'captions.jsonl: record number 1 \(id 3\): "caption" must'
    ):
        filled(tmp_path, [{"id": 3, "caption": 4}])
    with pytest.raises(UserError, match='has no "id"'):
        filled(tmp_path, [{"caption": "x"}])


def test_a_file_with_another_key_is_named(tmp_path: Path) -> None:
    """As when retrieved.jsonl is given as captions."""
    path = tmp_path / "captions.jsonl"
    path.write_text('{"id": "a", "text": "A cat."}\n')
    with pytest.raises(UserError, match=r"captions.jsonl.* has no \"caption\", only 'id', 'text'"):
        read_side_files({"captions": path})
