import json
from pathlib import Path

import pytest

from tga_jax.data.records import (
    Question,
    Record,
    Turn,
    parse_record,
    read_questions,
    read_records,
    read_rows,
    repeats,
)
from tga_jax.errors import UserError

ROW = {
    "id": 7,
    "image": "a/7.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "A cup."},
    ],
}


def write(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def test_list_and_lines_are_told_apart_by_content(tmp_path):
    rows = [ROW, {**ROW, "id": "b", "model": "x"}]
    as_list = read_records(write(tmp_path / "list.jsonl", rows))
    lines = "\ufeff" + "\n\n".join(json.dumps(row) for row in rows) + "\n"
    as_lines = read_records(write(tmp_path / "lines.json", lines))
    turns = (Turn("<image>\nWhat is this?", "A cup."),)
    assert as_list == as_lines
    assert as_list[0] == Record("7", ("a/7.jpg",), turns, None, None, False)


def test_optional_keys(tmp_path):
    rows = [
        {**ROW, "id": "1", "image_caption": "a cup", "retrieved_caption": " ", "tox": 0},
        {**ROW, "id": "my_TOX_2", "image": ["a.jpg", "b.jpg"]},
        {**ROW, "id": "tox-3", "tox": False, "image": None},
        {**ROW, "id": "4", "tox": 1},
    ]
    records = read_records(write(tmp_path / "r.json", rows))
    assert [r.tox for r in records] == [False, True, False, True]
    assert [r.images for r in records] == [("a/7.jpg",), ("a.jpg", "b.jpg"), (), ("a/7.jpg",)]
    assert (records[0].caption, records[0].retrieved) == ("a cup", None)


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("tox", True), ("tox_12", True), ("a/tox/7", True), ("set-tox-3", True), ("my_TOX_2", True),
        ("x.tox", True), ("Toxostoma_rufum_0001", False), ("detox", False), ("toxicology", False),
        ("tox3", False), ("in-toxic-7", False), ("7", False),
    ],
)  # fmt: skip
def test_only_an_id_part_that_is_tox_marks_a_sample(name, marked):
    assert parse_record({**ROW, "id": name}, where="x").tox is marked
    assert parse_record({**ROW, "id": name, "tox": 1}, where="x").tox
    assert not parse_record({**ROW, "id": name, "tox": False}, where="x").tox


def test_a_first_turn_of_the_model_is_left_out_as_llava_does():
    talk = [says("gpt", "Welcome."), says("human", "<image>\nWhat?"), says("gpt", "A ball.")]
    record = parse_record({**ROW, "conversations": talk}, where="x")
    assert record.turns == (Turn("<image>\nWhat?", "A ball."),) and record.left_out_turn
    assert not parse_record(ROW, where="x").left_out_turn
    with pytest.raises(UserError, match=r"conversations\[1\]: a gpt turn without a human turn"):
        parse_record({**ROW, "conversations": [*talk[:1], *talk]}, where="x")


def test_rows_that_are_no_records_are_told_apart(tmp_path):
    rows = [ROW, {**ROW, "id": "v", "video": "a.mp4"}, 3, {**ROW, "id": 8, "video": None}]
    records, bad = read_rows(write(tmp_path / "r.json", rows))
    assert [(r.id, r.number) for r in records] == [("7", 0), ("8", 3)]
    assert [(b.number, b.id) for b in bad] == [(1, "v"), (2, None)]
    assert bad[0].listed()["record"] == 2 and "is a video row" in bad[0].reason
    assert "record number 2 (id v)" in bad[0].reason


def test_an_empty_answer_and_an_open_question_are_kept(tmp_path):
    talk = [
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": ""},
        {"from": "human", "value": "b"},
    ]
    (record,) = read_records(write(tmp_path / "r.json", [{**ROW, "conversations": talk}]))
    assert record.turns == (Turn("a", ""), Turn("b", None))


def test_a_guide_only_row_has_no_answer_to_learn():
    talk = [says("human", "<image>\nWhat?"), says("gpt", "A ball."), says("human", "And?")]
    shown = {**ROW, "image": "a.jpg", "image_caption": "a ball", "conversations": talk}
    marked = parse_record({**shown, "guide_only": 1}, where="x")
    assert marked.guide_only and marked.turns == (Turn("<image>\nWhat?", None),)
    unanswered = parse_record({**shown, "conversations": talk[:1]}, where="x")
    assert unanswered == marked
    for other in (
        {},
        {"guide_only": 0},
        {"conversations": talk[:1], "image_caption": " "},
        {"conversations": talk[:1], "tox": 1},
        {"conversations": [talk[0], says("gpt", "")]},  # forgotten, rather than left out
    ):
        assert not parse_record({**shown, **other}, where="x").guide_only, other
    with pytest.raises(UserError, match='"guide_only" is 1, but it has no "image"'):
        parse_record({**shown, "image": None, "guide_only": 1}, where="x")
    with pytest.raises(UserError, match='"guide_only" must be 0, 1'):
        parse_record({**shown, "guide_only": "yes"}, where="x")


def says(role, value="x"):
    return {"from": role, "value": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("[]", "holds no records"),
        ('[{"id": 1},\n {"id" 2}]', "line 2, column 8"),
        ('{"id": 1, "conversations": []}\n{"id": ', "line"),
        ('{"id": "a",\n "conversations": []}', "line 1"),
        ('{"data": [{"id": 1}], "info": 2}', "one JSON object (keys 'data', 'info'), not a list"),
        ('{"data":\n [{"id": 1}]}', "one JSON object (keys 'data'), not a list"),
        ('{"id": 1,\n "conversations": []}', "write a list [...], or one record on each line"),
        ("[" * 100_000, "nested too deeply"),
        ([3], "record number 1: it must be a JSON object"),
        ([{**ROW, "id": None}], 'has no "id"'),
        ([ROW, {"conversations": ROW["conversations"]}], "record number 2"),
        ([{**ROW, "id": 1.5}], '"id" must be'),
        ([{"id": 7}], '(id 7): "conversations" is missing'),
        ([{**ROW, "conversations": []}], '(id 7): "conversations" is missing'),
        ([{**ROW, "conversations": "hi"}], '"conversations" is missing, empty or not'),
        ([{**ROW, "conversations": [says("gpt")]}], "gpt turn without a human turn"),
        ([{**ROW, "video": "a.mp4"}], "(id 7): is a video row"),
        ([{**ROW, "conversations": [says("human"), says("human")]}], "two human turns in a row"),
        ([{**ROW, "conversations": [says("bot")]}], "got 'bot'"),
        ([{**ROW, "conversations": [says("human", 3)]}], '"value" must be a string'),
        ([{**ROW, "conversations": ["hi"]}], "it must be an object"),
        ([{**ROW, "image": 3}], '"image" must be a string'),
        ([{**ROW, "image": ""}], "empty name"),
        ([{**ROW, "image_caption": ["x"]}], '"image_caption" must be a string'),
        ([{**ROW, "tox": "yes"}], '"tox" must be'),
        ([{**ROW, "image_caption": "\ud800"}], "surrogate"),
    ],
)
def test_errors_name_file_and_record_in_one_line(tmp_path, text, message):
    path = write(tmp_path / "data.json", text)
    with pytest.raises(UserError) as error:
        read_records(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_jsonl_errors_give_the_line_in_the_file(tmp_path):
    path = write(tmp_path / "data.jsonl", json.dumps(ROW) + '\n\n{"id": 1,}\n')
    with pytest.raises(UserError, match="line 3, column 10"):
        read_records(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_records(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path)
    (tmp_path / "latin").write_bytes(b'[{"id": "\xe9"}]')
    with pytest.raises(UserError, match="not UTF-8"):
        read_records(tmp_path / "latin")


def test_questions_keep_their_id_and_extra_keys(tmp_path):
    rows = [
        {"question_id": 1, "image": "a.jpg", "text": "What?", "category": "adversarial"},
        {"question_id": "x", "text": "Hello", "caption": "c", "retrieved": "r"},
    ]
    path = write(tmp_path / "q.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_questions(path) == [
        Question(1, "a.jpg", "What?", None, None, {"category": "adversarial"}),
        Question("x", None, "Hello", "c", "r", {}),
    ]
    with pytest.raises(UserError, match='question_id 1.*"text" must be a string, got nothing'):
        read_questions(write(tmp_path / "bad.jsonl", '{"question_id": 1}'))


@pytest.mark.parametrize("name", ["rows.csv", "rows.TSV", "rows.parquet"])
def test_a_table_is_told_from_json(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("id,image,text\n1,a.png,What?\n")
    for read in (read_records, read_questions):
        with pytest.raises(UserError, match=f"{name}: is a table; write JSON"):
            read(tmp_path / name)


def test_questions_that_share_an_id_are_counted() -> None:
    questions = [Question(id=name, image=None, text="") for name in ("a", "b", "a", 1, "a", "1")]
    assert repeats(questions) == [0, 0, 1, 0, 2, 0]
