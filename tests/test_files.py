"""Files that two processes write, that a kill cuts short at any byte, or that a disk is too full
for; and what a user's broken file says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tga_jax import files
from tga_jax.errors import UserError, disk_problem

# All that str.splitlines, but no JSON reader, takes for the end of a line.
LINE_ENDS = "\v \f \x1c \x1d \x1e \x85 \u2028 \u2029"
ROWS = ["one", f"two{LINE_ENDS}half", {"text": "drei \u2713"}]


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen:
    """A Python process that has `files`, `sys` and `path`, its first argument."""
    begin = "import sys; from pathlib import Path; from tga_jax import files\n"
    command = [sys.executable, "-c", f"{begin}path = Path(sys.argv[1])\n{code}", *arguments]
    return subprocess.Popen(command, **options)


# --- whole or not at all ---


def test_two_processes_write_the_same_file(tmp_path: Path) -> None:
    """One's temporary file is never the other's to rename."""
    path = tmp_path / "summary.json"
    loop = "for i in range(300): files.write_json(path, [i] * 1000)"
    both = [child(loop, str(path)) for _ in range(2)]
    while any(process.poll() is None for process in both):
        value = files.read_json(path, missing_ok=True)
        assert value is None or len(value) == 1000 and len(set(value)) == 1
        time.sleep(0.01)
    assert [process.wait() for process in both] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, ROWS)
    code = (
        "with files.replacing(path) as temporary:\n"
        "    temporary.write_text('new'); print('written', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = child(code, str(path), **pipes)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = set(tmp_path.iterdir()) - {path}
    assert list(files.read_jsonl(path)) == ROWS
    files.write_json(path, 1)
    assert left.exists()  # young: its process might be at work on another host
    os.utime(left, (0, 0))
    files.write_json(path, 2)
    assert list(tmp_path.iterdir()) == [path] and files.read_json(path) == 2


def test_only_temporary_files_of_the_same_file_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a[b].json"
    old = [tmp_path / name for name in ("a[b].json.host-1.tmp", "ab.json.host-1.tmp", "a[b].json")]
    for other in old:
        other.touch()
        os.utime(other, (0, 0))
    files.write_json(path, 1)
    assert sorted(tmp_path.iterdir()) == [path, old[1]]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, ROWS)
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    with pytest.raises(TypeError):
        files.write_jsonl(path, iter([1, object()]))
    assert list(tmp_path.iterdir()) == [path] and list(files.read_jsonl(path)) == ROWS


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)
    files.temporary_name(path).symlink_to("/dev/full")
    with pytest.raises(OSError) as error:
        files.write_json(path, 2)
    assert "the disk is full" in (disk_problem(error.value) or "")
    assert list(tmp_path.iterdir()) == [path] and files.read_json(path) == 1


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    for content in ("one", "two"):
        with files.replacing_folder(folder) as new:
            assert list(new.iterdir()) == []
            (new / content).write_text(content)
        assert [path.name for path in folder.iterdir()] == [content]
    with pytest.raises(KeyError), files.replacing_folder(folder) as new:
        (new / "three").touch()
        raise KeyError
    assert [path.name for path in folder.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_goes_on_after_a_kill_and_takes_no_files_place(tmp_path: Path) -> None:
    folder, left = tmp_path / "export", tmp_path / ".export.partial"
    left.mkdir()
    (left / "half").touch()
    with files.replacing_folder(folder) as new:
        (new / "whole").touch()
    assert [path.name for path in folder.iterdir()] == ["whole"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file: is a file"),
        files.replacing_folder(tmp_path / "file"),
    ):
        pass


# --- lines ---


def test_lines_come_back_whatever_characters_they_hold(tmp_path: Path) -> None:
    written, appended = tmp_path / "written.jsonl", tmp_path / "appended.jsonl"
    files.write_jsonl(written, ROWS)
    for row in ROWS:
        files.append_jsonl(appended, [row])
    assert written.read_bytes() == appended.read_bytes()
    for read in (files.read_jsonl, files.read_log, files.tolerant_jsonl):
        assert list(read(written)) == ROWS
    assert [number for number, _ in files.read_lines(written)] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_line_cut_at_any_byte_is_no_line_of_a_log(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    files.append_jsonl(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(files.read_log(path)) == ROWS[:2]
    assert path.read_bytes() == whole[:-cut]
    assert files.trim_log(path) == 2
    files.append_jsonl(path, ROWS[2:])
    assert path.read_bytes() == whole and files.trim_log(path) == 3


def test_a_reader_stops_where_a_writer_is_at_work(tmp_path: Path) -> None:
    """The second half of a line that was half there is not taken for a line."""
    path = tmp_path / "rows.jsonl"
    path.write_text('1\n"half')
    lines = files.read_log(path)
    assert next(lines) == 1
    assert list(lines) == []
    with path.open("a") as file:
        file.write(' is here"\n3\n')
    assert list(lines) == []
    assert list(files.read_log(path)) == [1, "half is here", 3]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(files.read_log(tmp_path / "none.jsonl")) == []
    assert files.trim_log(tmp_path / "none.jsonl") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_log_with_a_broken_line_in_its_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('1\n{"a"\n3\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: malformed JSON at line 2"):
        list(files.read_log(path))


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A file that is larger than memory: here its second half is no JSON at all."""
    path = tmp_path / "rows.jsonl"
    path.write_text('1\n2\n{"a"\n')
    lines = files.read_jsonl(path)
    assert [next(lines), next(lines)] == [1, 2]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"a": 1}\n\n{"a",}\n', "line 3, column 5"),
        (b'1\n{"a": "half', "line 2"),
        (b"1\n" + b"[" * 100_000 + b"\n", "at line 2: nested too deeply"),
        (b'1\n"\xff"\n', "line 2: not UTF-8 text \\(byte 1\\)"),
    ],
)
def test_a_broken_line_of_a_users_file_is_named(
    tmp_path: Path, content: bytes, wanted: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"rows\\.jsonl: .*{wanted}") as error:
        list(files.read_jsonl(path))
    assert "\n" not in str(error.value)


def test_a_malformed_line_stands_among_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf1\r\n{"a"\r\n \r\n3')
    first, second, third = files.tolerant_jsonl(path)
    assert (first, third) == (1, 3)
    assert isinstance(second, UserError) and "at line 2" in str(second)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_users_rows_are_a_list_or_lines(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "rows"
    for content in ('\n [1,\n "\u2028"]', '1\n"\u2028"', '1\n\n"\u2028"\n'):
        path.write_text(mark + content, encoding="utf-8")
        assert list(files.json_values(path)) == [1, "\u2028"]
    path.write_text(mark + " \n", encoding="utf-8")
    with pytest.raises(UserError, match="the file is empty"):
        list(files.json_values(path))


# --- JSON and text ---


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"a": 1,\n"b"}', "malformed JSON at line 2, column 4: .*; mend it"),
        (b"[" * 100_000, "malformed JSON: nested too deeply; mend it"),
        (b'"\xff"', "not UTF-8 text .*; mend it"),
        (b" \n", "the file is empty; mend it"),
    ],
)
def test_a_broken_json_file_is_one_line_with_advice(
    tmp_path: Path, content: bytes, wanted: str
) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"value\\.json: {wanted}") as error:
        files.read_json(path, missing_ok=True, advice="mend it")
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "none.json", missing_ok=True) is None
    for read in (files.read_json, files.read_text):
        with pytest.raises(UserError, match="none: no such file"):
            read(tmp_path / "none")
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path)
    with pytest.raises(UserError, match="none: no such file"):
        list(files.read_jsonl(tmp_path / "none"))


def test_json_has_no_byte_order_mark_and_keeps_its_characters(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"b": "\u2028 \u2713", "a": 1}, sort_keys=True)
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1,\n  "b": "\u2028 \u2713"\n}\n'
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert files.read_json(path) == {"a": 1, "b": "\u2028 \u2713"}


def test_half_a_surrogate_pair_is_escaped(tmp_path: Path) -> None:
    """Seen in the id of a row that was skipped and is listed."""
    rows = [{"id": "\ud800", "text": "naïve"}]
    files.write_json(tmp_path / "a.json", rows)
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    assert files.read_json(tmp_path / "a.json") == rows
    assert list(files.read_jsonl(tmp_path / "a.jsonl")) == rows


def test_a_number_of_too_many_digits_is_malformed() -> None:
    with pytest.raises(UserError, match="a.json: malformed JSON at line 3: a number has too many"):
        files.parse_json("9" * 5000, "a.json", line=3)


def test_a_copy_that_was_killed_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").write_text("all of it")
    (tmp_path / "scores.jsonl").write_text("old")

    def killed(source: Path, target: Path) -> None:
        Path(target).write_text("all")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "copyfile", killed)
        files.copy(tmp_path / "new", tmp_path / "scores.jsonl")
    assert (tmp_path / "scores.jsonl").read_text() == "old"
    files.copy(tmp_path / "new", tmp_path / "scores.jsonl")
    assert (tmp_path / "scores.jsonl").read_text() == "all of it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "scores.jsonl"]
