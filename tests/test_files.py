"""Files that two processes write or a kill cuts short at any byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tga_jax.files import append_jsonl, count_appended, read_appended, write_json, write_text
from tga_jax.run.work import Work

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


def test_two_processes_write_the_same_file(tmp_path: Path) -> None:
    """One's temporary file is never the other's to rename."""
    loop = (
        "import sys; from pathlib import Path; from tga_jax.files import write_json\n"
        "for i in range(300): write_json(Path(sys.argv[1]), i, every_process=True)"
    )
    command = [sys.executable, "-c", loop, str(tmp_path / "summary.json")]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    both = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_failed_write_leaves_nothing_and_an_old_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a[b].json"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert list(tmp_path.iterdir()) == []
    killed, working = tmp_path / "a[b].json.1.tmp", tmp_path / "a[b].json.2.tmp"
    for other in (killed, working):
        other.touch()
    os.utime(killed, (0, 0))
    write_json(path, 1)
    assert sorted(tmp_path.iterdir()) == [path, working]


@pytest.mark.parametrize("cut", range(12))
def test_lines_are_counted_as_they_are_read(tmp_path: Path, cut: int) -> None:
    path, same = tmp_path / "rows.jsonl", tmp_path / "same.jsonl"
    assert count_appended(path) == (None, 0)
    append_jsonl(path, ROWS)
    whole = path.read_bytes()
    for one in (path, same):
        one.write_bytes(whole[: len(whole) - cut])
    assert count_appended(path) == (ROWS[0], len(read_appended(same)))
    assert path.read_bytes() == same.read_bytes()


def test_work_counts_rows_of_its_own_signature_without_reading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, "samples", {"seed": 1})
    assert work.count() == 0
    work.append(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr("tga_jax.run.work.read_appended", None)
        assert work.count() == len(ROWS)
    assert work.rows() == ROWS
    assert Work(tmp_path, "samples", {"seed": 2}).count() == 0
    assert Work(tmp_path, "samples", {"seed": 1}).rows() == []
