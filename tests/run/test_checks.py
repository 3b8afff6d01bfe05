"""Checks before any work: the room on the disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tga_jax.errors import UserError
from tga_jax.run.checks import check_room


def test_room_is_asked_of_the_disk_where_a_folder_will_be(tmp_path: Path) -> None:
    check_room(tmp_path / "arms" / "new", 1, "a checkpoint")
    with pytest.raises(UserError, match="a checkpoint needs at least 10000000000.0 GB"):
        check_room(tmp_path / "arms" / "new", 10**19, "a checkpoint")


def test_little_room_is_told_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000))
    with pytest.raises(UserError, match=r"needs at least 1.4 MB, and the disk has 0.2 MB left"):
        check_room(tmp_path, 1_440_000, "the exported model")
