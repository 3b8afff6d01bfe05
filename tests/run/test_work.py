"""Rows that a killed run finished, as JSON lines and as a float32 array, for one signature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.files import file_digest
from tga_jax.run.work import ArrayRows, JsonRows, Work

ROWS = ["one", "two\u2028half", {"text": "drei \u2713"}]
VALUES = np.arange(15, dtype=np.float32).reshape(5, 3) / 7


def test_work_goes_on_from_its_own_rows(tmp_path: Path) -> None:
    work = Work(tmp_path, "samples", {"seed": 1})
    assert work.count() == 0 and work.rows() == []
    work.append(ROWS[:2])
    with (tmp_path / "samples.partial.jsonl").open("a") as file:
        file.write('{"text": ')
    again = Work(tmp_path, "samples", {"seed": 1})
    assert again.count() == 2 and again.rows() == ROWS[:2]
    again.append(ROWS[2:])
    assert again.rows() == ROWS and not again.is_done(tmp_path)
    assert Work(tmp_path, "samples", {"seed": 2}).count() == 0
    assert Work(tmp_path, "samples", {"seed": 1}).rows() == []


def test_rows_are_counted_without_being_parsed(tmp_path: Path) -> None:
    work = Work(tmp_path, "samples", {"seed": 1})
    work.rows()
    with (tmp_path / "samples.partial.jsonl").open("a") as file:
        file.write("no JSON\n" * 5)
    assert work.count() == 5


def test_finished_work_is_known_by_its_signature(tmp_path: Path) -> None:
    work = Work(tmp_path, "samples", {"path": Path("a"), "pair": (1, 2)})
    work.append(ROWS)
    work.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.done.json"]
    again = Work(tmp_path, "samples", {"path": Path("a"), "pair": (1, 2)})
    assert again.is_done(tmp_path) and not again.is_done(tmp_path / "lost.jsonl")
    assert not Work(tmp_path, "samples", {"path": Path("b"), "pair": (1, 2)}).is_done(tmp_path)


def test_an_output_that_was_changed_is_refused_and_made_again_once_deleted(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    work = Work(tmp_path, "samples", {"seed": 1}, content=file_digest)
    path.write_text("the model's\n")
    work.finish(path)
    assert work.is_done(path)
    path.write_text("somebody's\n")
    with pytest.raises(UserError, match=r"samples\.jsonl: was changed after .* delete it"):
        work.is_done(path)
    assert not Work(tmp_path, "samples", {"seed": 2}, content=file_digest).is_done(path)
    path.unlink()
    assert not work.is_done(path)


def test_reading_rows_changes_nothing(tmp_path: Path) -> None:
    rows = JsonRows(tmp_path / "rows.jsonl", {"a": 1})
    assert list(rows.rows()) == [] and list(tmp_path.iterdir()) == []
    rows.open()
    rows.append(ROWS)
    before = rows.path.read_bytes()
    assert list(JsonRows(rows.path, {"a": 2}).rows()) == []
    assert rows.path.read_bytes() == before


def array(folder: Path, seed: int = 1) -> ArrayRows:
    """An array of VALUES' shape, computed two rows at a time."""
    return ArrayRows(
        folder / "x.npy.partial", {"seed": seed}, VALUES.shape, about=folder / "x.npy.json",
        batch_size=2,
    )  # fmt: skip


@pytest.mark.parametrize(("end", "kept"), [(0, 5), (1, 4), (12, 4), (13, 2), (37, 0), (60, 0)])
def test_an_array_cut_at_any_byte_keeps_whole_batches(tmp_path: Path, end: int, kept: int) -> None:
    rows = array(tmp_path)
    assert rows.open() == 0
    for start in (0, 2, 4):
        rows.append(VALUES[start : start + 2])
    whole = rows.path.read_bytes()
    rows.path.write_bytes(whole[: len(whole) - end])
    again = array(tmp_path)
    assert again.open() == kept
    again.append(VALUES[kept:])
    assert rows.path.read_bytes() == whole
    np.testing.assert_array_equal(np.load(rows.path, allow_pickle=False), VALUES)


def test_an_array_of_another_signature_is_begun_anew(tmp_path: Path) -> None:
    rows = array(tmp_path)
    rows.open()
    rows.append(VALUES)
    assert array(tmp_path, seed=2).open() == 0
    assert array(tmp_path, seed=1).open() == 0
