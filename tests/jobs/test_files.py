"""Lines that are appended, and cut short at any byte by a kill."""

from pathlib import Path

import pytest

from tga_jax.jobs.files import append_jsonl, read_appended

ROWS = ["one", "two\u2028half", {"text": "drei \u2713"}]


def test_lines_come_back_whatever_characters_they_hold(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert read_appended(tmp_path / "rows.jsonl") == ROWS


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_line_cut_at_any_byte_is_removed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read_appended(path) == ROWS[:2]
    append_jsonl(path, ROWS[2:])
    assert path.read_bytes() == whole
