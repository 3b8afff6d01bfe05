"""The log line of a stage's guide."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.jobs.inputs import make_samples, row
from tga_jax.alignment.guide import GuideConfig
from tga_jax.config import base_config
from tga_jax.data.mixture import Mixture
from tga_jax.data.records import Record, parse_record
from tga_jax.errors import UserError
from tga_jax.run.guide import guide_config, term_counts
from tga_jax.run.guide_line import guide_line, guide_warnings
from tga_jax.run.stage_log import idle_warning

ANSWER = GuideConfig(
    "paper", (0, 1, 2), center="batch", pair_weight=0.0, hinge_weight=0.0, answer_weight=0.25,
    answer_layers=(1, 2, 4),
)  # fmt: skip
PAPER = GuideConfig("paper", tuple(range(32)))
RECORDS = [parse_record(row, where="") for row in make_samples()]
COUNTS = {"pair": 3, "hinge": 2, "answer": 1}


def line(
    guide: GuideConfig,
    *,
    images: int = 6,
    batch_size: int = 4,
    asks: bool = True,
    image_first: bool = False,
) -> str:
    return guide_line(
        guide, COUNTS, 6, images=images, batch_size=batch_size, asks=asks, image_first=image_first
    )


def warnings(
    guide: GuideConfig, records: Sequence[Record], *, asks: bool = True, retrieved: bool = True
) -> list[str]:
    counts = term_counts(guide, records, asks=asks, retrieved=retrieved)
    return guide_warnings(guide, records, counts, asks=asks, retrieved=retrieved)


def test_the_line_says_what_is_weighed_where_and_for_how_many() -> None:
    assert line(ANSWER) == (
        "guide: form paper; answer 0.25 on layers 2-3,5 (1 of 6 samples); centred: batch"
    )
    assert line(PAPER) == (
        "guide: form paper; pair 1 on layers 1-32 (3 of 6 samples), "
        "hinge 1 on layers 1-32 (2 of 6 samples); centred: none"
    )
    assert line(GuideConfig("none", (0,))) == "guide: none"


def test_a_template_without_a_question_leaves_the_pair_term_alone() -> None:
    counts = term_counts(PAPER, RECORDS, asks=False, retrieved=True)
    said = guide_line(PAPER, counts, 6, images=5, batch_size=4, asks=False, image_first=False)
    assert "pair 1 on layers 1-32 (3 of 6 samples)," in said
    assert "hinge 1 on layers 1-32 (0 of 6 samples: the template has no question)" in said


@pytest.mark.parametrize(
    ("asks", "retrieved", "wanted"),
    [(True, True, (3, 1, 3)), (True, False, (3, 0, 3)), (False, True, (3, 0, 0))],
)
def test_terms_are_counted_where_the_prompt_has_a_place_for_them(
    asks: bool, retrieved: bool, wanted: tuple[int, ...]
) -> None:
    guide = dataclasses.replace(PAPER, answer_weight=0.25)
    counts = term_counts(guide, RECORDS, asks=asks, retrieved=retrieved)
    assert tuple(counts.values()) == wanted and list(counts) == ["pair", "hinge", "answer"]


def test_the_answer_term_needs_one_image_in_the_first_turn() -> None:
    later = parse_record(
        row("later", [("human", "Hi."), ("gpt", "Hi."), ("human", "<image>\nWhat?"), ("gpt", "A.")],
            image="0.png", image_caption="a ball"), where="",
    )  # fmt: skip
    two = parse_record(
        row("two", [("human", "What?"), ("gpt", "A.")], image=["0.png", "1.png"],
            image_caption="a ball"), where="",
    )  # fmt: skip
    guide = dataclasses.replace(PAPER, answer_weight=0.25)
    for records in ([*RECORDS, later, two], Mixture([RECORDS, [later, two]], [1.0, 1.0])):
        counts = term_counts(guide, records, asks=True, retrieved=True)
        assert counts == {"pair": 5, "hinge": 1, "answer": 3}
    (said,) = warnings(ANSWER, [later])
    assert "no sample with a caption has exactly one image in its first turn" in said


@pytest.mark.parametrize(
    ("changes", "asks", "reason"),
    [
        ({}, True, ""),
        ({"answer_weight": 0.0}, True, "all of its weights are 0"),
        (
            {},
            False,
            "the guide has no effect in this stage: its terms need a question",
        ),
        ({"pair_weight": 1.0}, False, ""),
        ({"hinge_weight": 1.0, "answer_weight": 0.0}, True, "no captioned image has a retrieved"),
    ],
)
def test_a_guide_without_effect_is_said_with_its_reason(
    changes: dict[str, float], asks: bool, reason: str
) -> None:
    guide = dataclasses.replace(ANSWER, **changes)  # type: ignore[arg-type]
    said = warnings(guide, RECORDS[:1], asks=asks)
    assert len(said) == bool(reason)
    assert all(reason in line and line.startswith("WARNING") is asks for line in said)


@pytest.mark.parametrize("guide", [ANSWER, PAPER])
@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "no sample has an image"),
        ({"image": "0.png", "caption": "a ball"}, "image has a caption (the key image_caption"),
        ({"image": "0.png", "image_caption": "a ball", "tox": 1}, "text safety samples"),
    ],
)
def test_the_reason_is_what_the_samples_lack(
    guide: GuideConfig, keys: dict[str, object], reason: str
) -> None:
    mark = "<image>\n" if "image" in keys else ""
    record = row("one", [("human", f"{mark}What?"), ("gpt", "A.")], **keys)  # type: ignore[arg-type]
    (said,) = warnings(guide, [parse_record(record, where="")])
    assert reason in said and "language-modelling loss alone" in said


def test_a_term_without_samples_is_said_where_others_have_some() -> None:
    (said,) = warnings(PAPER, RECORDS[:1])
    assert "term 'hinge' has weight 1 and no effect" in said and "retrieved_caption" in said
    (said,) = warnings(PAPER, RECORDS, retrieved=False)
    assert "config.prompt.retrieved" in said
    assert not warnings(PAPER, RECORDS, asks=False)  # the guide's line says why
    assert not warnings(PAPER, RECORDS)


def test_a_term_that_trained_nothing_is_said() -> None:
    def lines(*values: float | None) -> list[dict[str, float | None]]:
        measured = {"step": 0, "held_out_loss": 2.0}
        return [measured, *({"loss": 1.0, "guide_answer": value} for value in values)]

    assert "no logged step had" in idle_warning("answer", 4, lines(None, None))
    assert "was 0 in every logged step" in idle_warning("answer", 4, lines(0.0, None))
    assert idle_warning("answer", 4, lines(0.0, -0.5)) == ""
    assert idle_warning("answer", 0, lines(None)) == "" == idle_warning("answer", 4, [])


@pytest.mark.parametrize(
    ("center", "answer", "batch_size", "alone"),
    [
        ("batch", 0.0, 1, 100),
        ("running", 0.5, 1, 100),
        ("running", 0.0, 1, 0),  # its mean is of the steps before
        ("none", 0.5, 1, 0),
        ("batch", 0.5, 2, 50),  # half of the samples are captioned
        ("batch", 0.5, 3, 25),
        ("batch", 0.5, 8, 0),
    ],
)
def test_captioned_samples_alone_in_their_step_are_said(
    center: str, answer: float, batch_size: int, alone: int
) -> None:
    guide = dataclasses.replace(ANSWER, center=center, answer_weight=answer, pair_weight=1.0)
    said = line(guide, batch_size=batch_size)
    assert ("WARNING" in said) is bool(alone)
    assert not alone or f"about {alone}% of the captioned samples" in said


def test_samples_without_an_image_are_in_no_step_with_a_captioned_one() -> None:
    guide = dataclasses.replace(ANSWER, pair_weight=1.0)
    assert "about 50%" in line(guide, batch_size=2)
    assert "WARNING" not in line(guide, images=3, batch_size=2)


@pytest.mark.parametrize(("guide", "warned"), [(PAPER, True), (ANSWER, False)])
def test_means_with_an_attention_sink_in_them_are_said(guide: GuideConfig, warned: bool) -> None:
    assert ("the image is the first thing" in line(guide, image_first=True)) is warned
    assert "WARNING" not in line(guide, image_first=False)


def test_layers_count_only_where_the_guide_is_on(tmp_path: Path) -> None:
    """A stage without a guide may train a decoder that lacks the layers that another one guides."""
    config = base_config()
    config.guide.update(layers="3-4", answer_layers="3-6", answer_weight=3.0)
    config.pretrain.guide = False
    assert not guide_config(config, tmp_path, 2, "pretrain").active
    for layers, name in ((2, "layers"), (4, "answer_layers")):
        with pytest.raises(UserError, match=f"config.guide.{name}="):
            guide_config(config, tmp_path, layers, "finetune")
    found = guide_config(config, tmp_path, 6, "finetune")
    assert (found.layers, found.answer_layers) == ((2, 3), (2, 3, 4, 5))
