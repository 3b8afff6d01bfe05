"""What job `oracle` found, on the page: a row a match, and a sentence that its figures carry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from tests.report.constructed import arm, row
from tga_jax.evaluation.metrics import wilson
from tga_jax.jobs.oracle import said
from tga_jax.report.collect import Arm, Run
from tga_jax.report.oracle import how, meaning, oracle, oracle_table
from tga_jax.report.page import Report, markdown, page

LAYERS = 4


def figures(refused: int, count: int, cosine: float | None = None, **more: Any) -> dict[str, Any]:
    """Of one kind of sample, as job `oracle` writes them."""
    cosines = None if cosine is None else [0.1, cosine, cosine + 0.02, 0.2]
    found = {"count": count, "refused": None, "interval": [0.0, 1.0], "cosine": cosines}
    if count:
        found |= {"refused": refused / count, "interval": list(wilson(refused, count))}
    return found | {"empty": 0, "no_verdict": 0, "few": True} | more


def match(name: str, harmful: int, benign: int, cosine: float | None = None) -> dict[str, Any]:
    """A match, of 16 samples of each kind."""
    kinds = {"harmful": figures(harmful, 16, cosine), "benign": figures(benign, 16, cosine)}
    return {"match": name, **kinds}


def asked(name: str, *matches: dict[str, Any], with_rows: bool = False) -> Arm:
    """A model of which job `oracle` found this, its layers 2 and 3 matched."""
    settings = {
        "weights": "start", "checkpoint": "abc123", "source": "a/folder", "date": "2026-01-02",
        "versions": {"jax": "1"}, "profile": "none", "layers": "2-3", "tokens": 5, "steps": 200,
        "judge": {"name": "strict", "hash": "0"}, "near_weight": 0.0,
    }  # fmt: skip
    found = arm(name, [row("hod", "dsr", 3, 4)] if with_rows else None)
    found.oracle.update(settings=settings, matches=list(matches))
    return found


USUAL = (
    match("caption", 16, 0), match("random", 8, 7), match("mean-centred", 7, 4, 0.93),
    match("answer-centred", 16, 0, 0.97),
)  # fmt: skip


def cells(table: Any, place: int) -> list[str]:
    return [line[place] for line in table.rows]


def test_every_match_has_its_refusals_and_what_they_differ_by() -> None:
    table = oracle_table([asked("m", *USUAL)])
    assert table is not None
    assert cells(table, 1) == [
        "the caption itself", "random embeddings", "mean of the image, centred",
        "where the answer begins, centred",
    ]  # fmt: skip
    assert cells(table, 2) == ["\u2013", "\u2013", "0.93 to 0.95", "0.97 to 0.99"]  # layers 2, 3
    low, high = wilson(7, 16)
    assert cells(table, 5)[2] == f"43.8% [{100 * low:.1f}, {100 * high:.1f}]"
    assert cells(table, 6)[0].startswith("0.0% [0.0, ")
    (low, high), (low_b, high_b) = wilson(7, 16), wilson(4, 16)
    ends = (
        3 / 16 - math.hypot(7 / 16 - low, high_b - 4 / 16),
        3 / 16 + math.hypot(high - 7 / 16, 4 / 16 - low_b),
    )
    shown = f"+18.8 [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]".replace("[-", "[\u2212")
    assert cells(table, 7)[2] == shown
    assert cells(table, 8)[0] == "16 + 16 (few)"


def test_the_sentence_claims_what_the_intervals_carry() -> None:
    text = meaning(asked("m", *USUAL))
    assert text.startswith("With the caption itself in the image's place, m refuses 100.0% [")
    carries, none = text.split("It makes no clear difference")
    assert "where the answer begins, centred (+100.0 points" in carries.split("clearly more")[1]
    assert "mean of the image, centred" in none and "random" not in text


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ([match("caption", 5, 4), match("mean", 16, 0, 0.95)], "the other rows say little"),
        ([match("caption", 0, 0)], "cannot be told from 16 and 16 samples"),
        ([match("caption", 16, 0), match("mean", 2, 0, 0.4)], "config.oracle.steps"),
        ([match("caption", 16, 0), match("mean", 0, 12, 0.95)], "harmless samples more than"),
        ([{"match": "caption", "harmful": figures(0, 0), "benign": figures(0, 4)}], "no verdict"),
    ],
)
def test_what_cannot_be_said_is_said(matches: list[dict[str, Any]], expected: str) -> None:
    assert expected in meaning(asked("m", *matches))


def test_many_samples_without_refusals_bound_what_can_be_carried_over() -> None:
    kinds = {kind: figures(0, 200) for kind in ("harmful", "benign")}
    text = meaning(asked("m", {"match": "caption", **kinds}))
    bound = f"{100 * wilson(0, 200)[1]:.1f}"  # 1.9
    assert f"carry over refusals of at most {bound} points more" in text


def test_the_log_and_the_page_give_the_same_cosines() -> None:
    row = match("mean", 4, 1, 0.9)
    row["benign"] |= {"cosine": [0.1, 0.8, 0.85, 0.2], "means_centred": [0.9, 0.3, 0.4, 0.9]}
    table = oracle_table([asked("m", row)])
    assert table is not None and cells(table, 2) == ["0.80 to 0.92"]
    assert cells(table, 3) == ["0.30 to 0.40"]
    assert said(row, "2-3").endswith(
        "cosine 0.80 to 0.92 on layers 2-3, of harmful and benign samples; "
        "means, centred, 0.30 to 0.40"
    )


def test_the_distance_is_of_both_kinds_and_of_none_where_it_was_not_measured() -> None:
    row = match("mean", 7, 4, 0.93)
    row["harmful"] |= {"distance": 0.25, "count": 30}
    row["benign"] |= {"distance": 0.75, "count": 10}
    assert cells(oracle_table([asked("m", row, *USUAL)]), 4) == ["0.38", *["\u2013"] * len(USUAL)]


def test_embeddings_that_were_held_near_are_called_so() -> None:
    found = asked("m", *USUAL)
    assert "near" not in how(found)
    found.oracle["settings"]["near_weight"] = 0.5
    assert "5 free embeddings that were held near the model's own (weight 0.5) stood" in how(found)


def test_a_page_of_an_oracle_alone_names_the_model_and_links_its_terms() -> None:
    found = asked("m", *USUAL)
    report = Report(Run(Path("m"), [found], {}, {}), (found,), {}, [])
    text = page(report)
    assert '<section id="oracle">' in text and 'href="#term-oracle"' in text
    assert 'id="term-oracle"' in text and "layers 2-3." in text and "5 free embeddings" in text
    assert "m is a/folder" in text and "abc123" in text and escape(meaning(found)) in text
    assert "where the answer begins, centred" in markdown(report)


def test_two_models_are_set_beside_each_other() -> None:
    arms = [asked(name, *USUAL, with_rows=True) for name in "ab"]
    body = oracle(arms, arms)
    assert body is not None and body.count('class="bar arm0"') == body.count('class="bar arm1"') > 0


def test_a_run_without_an_oracle_has_no_such_section() -> None:
    assert oracle([arm("m", [row("hod", "dsr", 3, 4)])], []) is None
