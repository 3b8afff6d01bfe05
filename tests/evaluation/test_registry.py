"""How a run names its benchmarks, options that all kinds have, and malformed files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import load
from tga_jax.evaluation.benchmarks.read_table import read_rows
from tga_jax.evaluation.benchmarks.registry import COMMON_OPTIONS, KINDS, Entry, parse_entries
from tga_jax.evaluation.items import scene_groups, scene_name


def test_entries() -> None:
    text = (
        "pope:data/pope?images=data/val, new=questions:a,b.jsonl?scene=group&only=kind:what,\n"
        "scenes:s?question=What%2C is it & why?,texts:t.csv?wrap=figstep,"
    )
    with pytest.raises(UserError, match="no option ' why\\?'"):
        parse_entries(text)
    entries = parse_entries(text.replace(" & ", " %26 "))
    assert entries == [
        Entry("pope", "pope", Path("data/pope"), {"images": "data/val"}),
        Entry("new", "questions", Path("a,b.jsonl"), {"scene": "group", "only": "kind:what"}),
        Entry("scenes", "scenes", Path("s"), {"question": "What, is it & why?"}),
        Entry("texts-figstep", "texts", Path("t.csv"), {"wrap": "figstep"}),
    ]
    assert parse_entries("") == parse_entries(" \n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pope", "write it as KIND:PATH"),
        ("pope:", "write it as KIND:PATH"),
        ("poep:data", "no kind 'poep'; there are scenes, hod,"),
        ("pope:a?image=b", "no option 'image'; there are questions, images,"),
        ("pope:a,pope:b", "two benchmarks are called 'pope'"),
        ("..=pope:a", "is not a valid name"),
        ("pope:a?control=b,texts:c", "pope: control='b' is no benchmark of this run; there are"),
        ("../x=pope:a", "write it as KIND:PATH"),
    ],
)
def test_wrong_entries(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_entries(text)


def load_texts(path: Path, rows: list[dict[str, object]], options: dict[str, str]) -> list:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(Entry("t", "texts", path, options), drawings=path.parent / "drawn").items


def test_limit_counts_in_every_scene_and_retrieved_texts_are_added(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": i, "prompt": f"p{i}", "label": "safe", "type": "ab"[i % 2]} for i in range(8)
    ]
    (tmp_path / "r.jsonl").write_text('{"id": 2, "text": "found"}\n')
    options = {"limit": "2", "retrieved": str(tmp_path / "r.jsonl")}
    items = load_texts(tmp_path / "t.jsonl", rows, options)
    assert [item.id for item in items] == [0, 1, 2, 3]
    assert [item.extra.get("retrieved") for item in items] == [None, None, "found", None]


def test_the_parts_divide_a_benchmark_by_its_images(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{n}.png").touch()
    found = {}
    for part in ("development", "test"):
        (entry,) = parse_entries(f"scenes:{tmp_path}?part={part}")
        found[part] = {item.image for item in load(entry, drawings=tmp_path).items}
    assert len(found["development"] | found["test"]) == 60
    assert not found["development"] & found["test"] and 5 <= len(found["development"]) <= 20
    # The same image is in the same part, whatever stands beside it.
    gone = min(found["test"])
    (tmp_path / gone).unlink()
    (entry,) = parse_entries(f"scenes:{tmp_path}?part=development&question=What?")
    assert {i.image for i in load(entry, drawings=tmp_path).items} == found["development"]
    (entry,) = parse_entries(f"scenes:{tmp_path}?part=dev")
    with pytest.raises(UserError, match="part='dev' must be one of development, test"):
        load(entry, drawings=tmp_path)


def test_two_questions_of_one_id_and_a_wrong_limit(tmp_path: Path) -> None:
    row: dict[str, object] = {"id": 1, "prompt": "p", "label": "safe"}
    with pytest.raises(UserError, match="two questions have the id 1"):
        load_texts(tmp_path / "t.jsonl", [row, row], {})
    with pytest.raises(UserError, match="limit='all': must be a number"):
        load_texts(tmp_path / "t.jsonl", [row], {"limit": "all"})


@pytest.mark.parametrize("options", [{"limit": "0"}, {"part": "development"}])
def test_options_that_leave_no_question_are_an_error(
    tmp_path: Path, options: dict[str, str]
) -> None:
    """The benchmark would be left out of all figures, without a word."""
    row: dict[str, object] = {"prompt": "p", "label": "safe"}  # in the part "test"
    with pytest.raises(UserError, match="benchmark t: .*leave none of its 1 questions"):
        load_texts(tmp_path / "t.jsonl", [row], options)
    assert len(load_texts(tmp_path / "t.jsonl", [row], {"limit": "1", "part": "test"})) == 1


def test_a_folder_of_images_for_questions_without_one_is_a_mistake(tmp_path: Path) -> None:
    """They would be asked as texts, and nobody would notice."""
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question_id": 1, "text": "What?", "pic": "a.png"}) + "\n")
    (tmp_path / "a.png").write_bytes(b"")
    read = f"questions:{path}?images={tmp_path}"
    with pytest.raises(UserError, match=r"no question has an image.*image=COLUMN"):
        load(parse_entries(read)[0], drawings=tmp_path)
    (found,) = load(parse_entries(f"{read}&image=pic")[0], drawings=tmp_path).items
    assert found.image == "a.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a"\n', "malformed JSON at line 2"),
        ("a.json", b"[1]", "record number 1 is not a JSON object"),
        ("a.jsonl", b"", "empty"),
        ("a.csv", b"a,b\n1\n", "record number 1 has another number of columns"),
        ("a.csv", b'a,b\n"1,2\n', "malformed CSV"),
        ("a.csv", b"a\n\xff\n", "not UTF-8"),
    ],
)
def test_malformed_files_are_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_rows(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_scenes_of_two_parts_count_in_four_groups() -> None:
    assert scene_groups("gun/hard") == ("all", "gun", "*/hard", "gun/hard")
    assert scene_groups("gun") == ("all", "gun") and scene_groups("") == ("all",)
    assert scene_name("a/b", None, "", 3) == "a-b/3"


def test_every_kind_and_option_is_explained() -> None:
    page = Path("docs/benchmarks.md").read_text()
    for name, kind in KINDS.items():
        section = page.split(f"### {name}", 1)[1].split("\n### ")[0]
        lacking = [option for option in kind.options if f"{option}" not in section]
        assert not lacking, (name, lacking)
    assert all(f"`{option}" in page for option in COMMON_OPTIONS if option != "examples")
