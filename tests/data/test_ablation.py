"""Wrong captions and lacking retrieved texts, on purpose."""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tga_jax.data.ablation import ablate
from tga_jax.data.lazy_records import Known, has_contents, has_flags, known_of
from tga_jax.data.records import Record, Turn
from tga_jax.errors import UserError

RECORDS = [
    Record(
        id=str(i),
        images=("a.png",),
        turns=(Turn("q", "a"),),
        caption=f"caption {i}" if i % 4 else None,
        retrieved=f"text {i}",
        tox=False,
    )
    for i in range(400)
]


def test_nothing_changes_by_default() -> None:
    assert ablate(RECORDS, caption_noise=0.0, retrieved_share=1.0, seed=0) == RECORDS


def test_the_share_of_captions_is_that_of_other_samples() -> None:
    noisy = ablate(RECORDS, caption_noise=0.3, retrieved_share=1.0, seed=1)
    assert list(noisy) == list(ablate(RECORDS, caption_noise=0.3, retrieved_share=1.0, seed=1))
    changed = [(a, b) for a, b in zip(RECORDS, noisy, strict=True) if a != b]
    assert len(changed) == 90  # of 300 with a caption
    for a, b in changed:
        assert dataclasses.replace(b, caption=a.caption) == a and b.caption is not None
    assert sorted(str(r.caption) for r in noisy) == sorted(str(r.caption) for r in RECORDS)


def test_retrieved_texts_are_left_out_by_id() -> None:
    half = ablate(RECORDS, caption_noise=0.0, retrieved_share=0.5, seed=0)
    kept = {r.id for r in half if r.retrieved is not None}
    assert 160 < len(kept) < 240
    again = ablate(RECORDS[::-1], caption_noise=0.0, retrieved_share=0.5, seed=0)
    assert kept == {r.id for r in again if r.retrieved is not None}
    assert all(r.retrieved is None for r in ablate(
        RECORDS, caption_noise=0.0, retrieved_share=0.0, seed=0
    ))  # fmt: skip


class OnDisk(list[Record]):
    """Records that are read one by one, as those of prepared data, which tell this much before."""

    known = Known(*np.ones((3, len(RECORDS)), np.int32))
    has_flags = np.array([(True, r.caption is not None, True, False) for r in RECORDS])
    has_contents = True

    def __init__(self, records: list[Record]) -> None:
        super().__init__(records)
        self.read: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        self.read.append(index)
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


def test_no_record_is_read_before_it_is_asked_for() -> None:
    records = OnDisk(RECORDS)
    changed = ablate(records, caption_noise=0.3, retrieved_share=0.5, seed=1)
    assert len(changed) == len(RECORDS) and has_contents(changed)
    assert known_of(changed) is OnDisk.known
    assert records.read == []
    in_memory = ablate(RECORDS, caption_noise=0.3, retrieved_share=0.5, seed=1)
    assert changed[7] == in_memory[7] and changed[-393] == changed[7]
    assert set(records.read) - {7} <= {RECORDS.index(r) for r in RECORDS if r.caption}
    assert len(set(records.read)) <= 2  # itself, and the one whose caption it has
    assert changed[3:9] == list(in_memory)[3:9] and list(changed) == list(in_memory)
    assert (has_flags(changed)[:, 2] == [r.retrieved is not None for r in in_memory]).all()
    with pytest.raises(IndexError):
        changed[len(RECORDS)]


def test_the_choice_is_that_of_earlier_runs() -> None:
    changed = ablate(RECORDS, caption_noise=0.3, retrieved_share=0.5, seed=1)
    text = "\n".join(f"{r.id} {r.caption} {r.retrieved}" for r in changed)
    assert zlib.crc32(text.encode()) == 3344330435


@pytest.mark.parametrize("key", ["caption_noise", "retrieved_share"])
def test_a_share_out_of_range_is_an_error(key: str) -> None:
    shares = {"caption_noise": 0.0, "retrieved_share": 1.0} | {key: 1.5}
    with pytest.raises(UserError, match=key):
        ablate(RECORDS, **shares, seed=0)
