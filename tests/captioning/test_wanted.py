"""Which images are described, and which captions are kept, where ids restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tga_jax.captioning.wanted import choose
from tga_jax.data.records import Record, Turn
from tga_jax.errors import UserError


def record(name: str, *images: str, caption: str | None = None, tox: bool = False) -> Record:
    return Record(name, images, (Turn("q", "a"),), caption, None, tox)


def test_each_image_of_an_id_gets_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    records = [
        record("0", "a.png"), record("0", "b.png"), record("1", "b.png", caption="mine"),
        record("1", "b.png"), record("text"), record("tox", "c.png", tox=True),
        record("tox", "d.png", tox=True, caption="bad"), record("2", "a.png", "b.png"),
    ]  # fmt: skip
    wanted = choose(records, tmp_path)
    assert wanted.own == {("1", "b.png"): "mine", ("tox", "d.png"): "bad"}
    a, b = ("a.png", 5), ("b.png", None)
    assert wanted.shown == {("0", "a.png"): a, ("0", "b.png"): b, ("2", "a.png"): a}
    assert wanted.images == {a: "0", b: "0"}
    assert wanted.shows == [
        ("0", "a.png"), ("0", "b.png"), ("1", "b.png"), ("tox", "d.png"), ("2", "a.png"),
    ]  # fmt: skip
    assert wanted.counts == {"records": 8, "without_picture": 1, "tox": 1, "own": 2}


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sample has an image"):
        choose([record("text")], tmp_path)
