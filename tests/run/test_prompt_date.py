"""One date for all prompts of a workdir."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tga_jax.errors import UserError
from tga_jax.run import prompt_date as room
from tga_jax.run.prompt_date import prompt_date


class NextDay(datetime.date):
    """The clock of a later start."""

    @classmethod
    def today(cls) -> NextDay:
        return cls(2030, 1, 2)


def test_the_day_of_the_first_prompt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = prompt_date(tmp_path, "")
    assert json.loads((tmp_path / "prompt_date.json").read_text()) == {"date": first.isoformat()}
    monkeypatch.setattr(room.datetime, "date", NextDay)
    assert prompt_date(tmp_path, "") == first
    assert prompt_date(tmp_path / "other", "") == datetime.date(2030, 1, 2)


def test_the_arms_of_an_experiment_share_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prompt_date(tmp_path / "arms/baseline", "")
    monkeypatch.setattr(room.datetime, "date", NextDay)
    assert prompt_date(tmp_path / "arms/tga", "") == first == prompt_date(tmp_path, "")


def test_a_given_date_counts(tmp_path: Path) -> None:
    assert prompt_date(tmp_path, "2024-02-29") == datetime.date(2024, 2, 29)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["yesterday", "29.02.2024", "2023-02-29"])
def test_what_is_no_date_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(
        UserError, match=r"config\.prompt\.date='.*': it is no date; write it like 2026"
    ):
        prompt_date(tmp_path, given)


@pytest.mark.parametrize("kept", ["{", "[]", '{"date": "soon"}'])
def test_a_spoilt_file_is_named(tmp_path: Path, kept: str) -> None:
    (tmp_path / "prompt_date.json").write_text(kept)
    with pytest.raises(UserError, match=r"prompt_date\.json: it is no date"):
        prompt_date(tmp_path, "")
