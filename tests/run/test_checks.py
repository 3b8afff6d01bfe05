"""Checks before any work: the room on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tga_jax.errors import UserError
from tga_jax.run.checks import check_room


def test_room_is_asked_of_the_disk_where_a_folder_will_be(tmp_path: Path) -> None:
    check_room(tmp_path / "arms" / "new", 1, "a checkpoint")
    with pytest.raises(UserError, match="a checkpoint needs at least 10000000000.0 GB"):
        check_room(tmp_path / "arms" / "new", 10**19, "a checkpoint")
