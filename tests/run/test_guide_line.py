"""The log line of a stage's guide."""

from __future__ import annotations

import dataclasses

import pytest

from tga_jax.alignment.guide import GuideConfig
from tga_jax.data.records import Record, Turn
from tga_jax.run.guide_line import guide_line, term_counts

ANSWER = GuideConfig(
    "paper", (0, 1, 2), center="batch", pair_weight=0.0, hinge_weight=0.0, answer_weight=0.25,
    answer_layers=(1, 2, 4),
)  # fmt: skip
PAPER = GuideConfig("paper", tuple(range(32)))


def record(**more: object) -> Record:
    fields = {
        "id": "1",
        "images": ("a.png",),
        "turns": (Turn("What?", "A cup."),),
        "caption": "a cup",
        "retrieved": "a tea set",
        "tox": False,
    }
    return Record(**(fields | more))  # type: ignore[arg-type]


RECORDS = [
    record(),
    record(retrieved=None),
    record(caption=None),
    record(tox=True),
    record(images=()),
    record(turns=(Turn("What?", None),)),
]


def test_samples_are_counted_by_what_they_have() -> None:
    counts = term_counts(RECORDS, asks=True, retrieved=True)
    assert counts == {"pair": 3, "hinge": 2, "answer": 3}
    assert term_counts(RECORDS, asks=True, retrieved=False)["hinge"] == 0
    assert term_counts(RECORDS, asks=False, retrieved=True) == {"pair": 3, "hinge": 0, "answer": 0}


def test_the_line_says_what_is_weighed_where_and_for_how_many() -> None:
    counts = {"pair": 3, "hinge": 2, "answer": 1}
    assert guide_line(ANSWER, counts, 6, batch_size=4) == (
        "guide: form paper; answer 0.25 on layers 2-3,5 (1 of 6 samples); centred: batch"
    )
    assert guide_line(PAPER, counts, 6, batch_size=4) == (
        "guide: form paper; pair 1 on layers 1-32 (3 of 6 samples), "
        "hinge 1 on layers 1-32 (2 of 6 samples); centred: none"
    )
    assert guide_line(GuideConfig("none", (0,)), counts, 6, batch_size=4) == "guide: none"


@pytest.mark.parametrize(
    ("center", "counts", "batch_size", "said"),
    [
        ("batch", (5, 0, 5), 1, "no mean but the sample itself"),
        ("running", (5, 0, 5), 1, "no mean but the sample itself"),
        ("none", (5, 0, 5), 1, ""),
        ("batch", (5, 0, 0), 4, "no sample has a term"),
        ("batch", (5, 0, 5), 4, ""),
    ],
)
def test_what_trains_nothing_is_said(
    center: str, counts: tuple[int, int, int], batch_size: int, said: str
) -> None:
    guide = dataclasses.replace(ANSWER, center=center)
    named = dict(zip(("pair", "hinge", "answer"), counts, strict=True))
    _, _, warning = guide_line(guide, named, 5, batch_size=batch_size).partition("; warning: ")
    assert said in warning and bool(warning) == bool(said)
