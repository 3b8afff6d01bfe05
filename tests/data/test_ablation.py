"""Wrong captions and lacking retrieved texts, on purpose."""

import dataclasses

import pytest

from tga_jax.data.ablation import ablate
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
    assert noisy == ablate(RECORDS, caption_noise=0.3, retrieved_share=1.0, seed=1)
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


@pytest.mark.parametrize("key", ["caption_noise", "retrieved_share"])
def test_a_share_out_of_range_is_an_error(key: str) -> None:
    shares = {"caption_noise": 0.0, "retrieved_share": 1.0} | {key: 1.5}
    with pytest.raises(UserError, match=key):
        ablate(RECORDS, **shares, seed=0)
