"""The page claims what its figures carry: every benchmark, every model, every kind of answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.report.constructed import answer, arm, row
from tga_jax.evaluation.metrics import wilson
from tga_jax.report.browse import browse_data
from tga_jax.report.collect import Arm, collect
from tga_jax.report.examples import choose
from tga_jax.report.headlines import average, lines
from tga_jax.report.identity import is_mixed, model_lines
from tga_jax.report.outcomes import OUTCOMES, is_good, outcome
from tga_jax.report.page import Report, page
from tga_jax.report.verdict import NONE, verdict


def said(arms: list[Arm], reference: Arm | None = None) -> list[str]:
    return verdict(lines(arms), arms, reference, arms[-1], {})


def test_the_verdict_has_a_line_for_each_set_with_its_n_and_their_average_first() -> None:
    rows = [
        row("guns", "dsr", 0, 6), row("drugs", "dsr", 10, 40), row("drugs", "over_refusal", 1, 20),
        row("drugs", "dsr", 1, 20, scene="pills"), row("drugs", "dsr", 9, 20, scene="plants"),
    ]  # fmt: skip
    found = said([arm("m", rows)])
    assert found[0].startswith("On average over 2 benchmarks that count equally (guns, drugs), m")
    assert "refuses 12.5% [" in found[0] and "n = 46" in found[0]
    assert "On all scenes of the benchmark guns, m refuses 0.0% [0.0, 39.0] of the" in found[1]
    assert "n = 6" in found[1]
    assert "On all scenes of the benchmark drugs, m refuses 25.0%" in found[2]
    assert "It refuses 5.0%" in found[2] and "n = 20" in found[2]
    assert found[3].endswith("m refuses least in the scene pills: 5.0% of 20.")


def test_an_average_of_independent_shares_has_the_interval_of_their_distances() -> None:
    arms = [arm("m", [row("a", "dsr", 3, 10), row("b", "dsr", 70, 100)])]
    figure = lines(arms)[0].of(arms[0])
    (low_a, high_a), (low_b, high_b) = wilson(3, 10), wilson(70, 100)
    assert figure is not None and figure.value == pytest.approx(0.5)
    assert figure.low == pytest.approx(0.5 - math.hypot(0.3 - low_a, 0.7 - low_b) / 2)
    assert figure.high == pytest.approx(0.5 + math.hypot(high_a - 0.3, high_b - 0.7) / 2)
    assert figure.count == 110 and average([figure, None]) is None


def test_the_verdict_names_every_model() -> None:
    arms = [arm(name, [row("a", "dsr", part, 50)]) for name, part in
            (("other", 5), ("third", 40), ("first", 10), ("m", 20))]  # fmt: skip
    found = " ".join(said(arms, arms[2]))
    assert "m refuses 40.0% against 20.0% of harmful images (a difference that is not" in found
    assert "other 10.0% [" in found and "third 80.0% [" in found
    many = [arm(f"arm{i}", [row("a", "dsr", i, 50)]) for i in range(9)]
    assert "8 other models refuse between 0.0% (arm0) and 14.0% (arm7)" in " ".join(said(many))


def test_sets_of_harmless_questions_alone_are_in_the_verdict_too() -> None:
    found = said([arm("m", [row("xstest", "over_refusal", 5, 50)])])
    assert found[0] == NONE
    assert "On all scenes of the benchmark xstest, m refuses 10.0%" in found[1]
    assert "of the harmless images, n = 50" in found[1]


def test_two_models_never_share_a_name(tmp_path: Path) -> None:
    def audited(folder: Path, source: str) -> Path:
        (folder / "evaluate").mkdir(parents=True)
        rows = [row("a", "dsr", 1, 2, source=source)]
        (folder / "evaluate" / "metrics.json").write_text(json.dumps(rows))
        return folder

    one = audited(tmp_path / "one", "hub/model-a at revision abc")
    other = audited(tmp_path / "other", "/models/model-b")
    assert [a.name for a in collect(one, compare=str(other)).arms] == ["model-b", "model-a"]
    third = audited(tmp_path / "third", "/elsewhere/model-a")
    names = [a.name for a in collect(one, compare=str(third)).arms]
    assert names == ["model-a (third)", "model-a (one)"]
    fourth = audited(tmp_path / "deep" / "one", "/elsewhere/model-a")
    names = [a.name for a in collect(one, compare=str(fourth)).arms]
    assert len(set(names)) == 2 and all(name.startswith("model-a (/") for name in names)


def test_the_page_names_the_model_the_date_and_the_versions() -> None:
    about = {
        "source": "hub/model at revision abc", "checkpoint": "0123", "date": "2026-11-28",
        "versions": {"jax": "9.9", "transformers": "8.8"},
    }  # fmt: skip
    audited = arm("m", [row("a", "dsr", 1, 2, **about)])
    (line,) = model_lines([audited])
    assert line == ("m is hub/model at revision abc, digest 0123, asked on 2026-11-28, "
                    "under prompt profile none.")  # fmt: skip
    shown = page_of([audited])
    assert line in shown and "jax 9.9, transformers 8.8" in shown


def test_a_page_that_mixes_profiles_says_so_in_its_heading() -> None:
    plain, asked = (
        arm(name, [row("a", "dsr", 1, 2, profile=profile)])
        for name, profile in (("plain", "none"), ("asked", "paper"))
    )
    assert not is_mixed([plain]) and is_mixed([plain, asked])
    shown = page_of([plain, asked])
    heading = shown.split("<h1>")[1].split("</h1>")[0]
    assert "different prompts (prompt profiles: plain none, asked paper)" in heading
    analysed = arm("m", plain.rows, analysis={"settings": {"profile": "paper"}, "layers": 2})
    assert "prompt profiles none and paper" in page_of([analysed]).split("<h1>")[1][:300]
    assert "<h1>Report: workdir</h1>" in page_of([plain])


def test_shipped_models_took_no_time_and_what_counts_as_right_is_said() -> None:
    made = {"seconds": {"llm": 100.0}, "shipped_seconds": {"clip": 1051.0}}
    shown = page_of([arm("m", [row("a", "accuracy", 1, 2)])], {"llm": 100.0}, made)
    assert "This run took the CLIP model ready-made from the project." in shown
    assert "Training them once took this long: the CLIP model 17 min" in shown
    table = shown.split("How long this run took")[-1].split("</table>")[0]
    assert "Training the language model" in table and "Training the CLIP model" not in table
    assert "An answer is right when the expected answer" in shown


def page_of(
    arms: list[Arm], seconds: dict[str, float] | None = None, made: dict[str, Any] | None = None
) -> str:
    from tga_jax.report.collect import Run

    run = Run(Path("workdir"), arms, seconds or {}, made or {})
    return page(Report(run, tuple(arms), {}, []))


# --- what became of an answer ---


@pytest.mark.parametrize(
    ("text", "about", "expected", "good"),
    [
        ("", {"harmful": True, "refused": True}, "empty", False),
        (" \n", {"correct": True}, "empty", False),
        ("No.", {"harmful": True, "refused": True}, "refused", True),
        ("No.", {"harmful": False, "refused": True}, "refused", False),
        ("A gun.", {"harmful": True, "correct": True}, "answered", False),
        ("A cup.", {"harmful": False, "correct": True}, "right", True),
        ("A cat.", {"correct": False}, "wrong", False),
        ("Ein Hund.", {"refused": None}, "not judged", None),
        ("Hm.", {}, "answered", None),
    ],
)
def test_every_answer_has_one_outcome(text: str, about: Any, expected: str, good: Any) -> None:
    assert outcome(answer(0, text, **about)) == expected
    assert is_good(expected, about.get("harmful")) is good


def answers_of_many_kinds() -> Arm:
    """A large benchmark with three scenes, and a small one of texts, every outcome in them."""
    big = [
        answer(i, "Sorry." if i % 7 == 0 else "Yes.", refused=i % 7 == 0, harmful=i % 2 == 0,
               scene=("a", "b", "c")[i % 3], image=f"{i}.png")
        for i in range(300)
    ]  # fmt: skip
    small = [answer(1000, "", harmful=True), answer(1001, "Cut", harmful=False, truncated=True)]
    return arm("m", [], {"big": big, "small": small})


def test_examples_come_from_every_set_scene_and_outcome_in_turn() -> None:
    found = choose([answers_of_many_kinds()], 12, lambda *_: None)
    assert len(found) == 12
    assert [e.benchmark for e in found].count("small") == 2  # all that it has
    assert {e.scene for e in found if e.benchmark == "big"} == {"a", "b", "c"}
    kinds = [(e.harmful, e.answers[0].outcome) for e in found if e.answers[0]]
    big = {(h, o) for h in (True, False) for o in ("refused", "answered")}
    assert big | {(True, "empty")} <= set(kinds)
    assert max(kinds.count(kind) for kind in big) - min(kinds.count(kind) for kind in big) <= 1
    assert [e.answers[0].truncated for e in found if e.prompt == "Question 1001?" and e.answers[0]]


def test_examples_of_a_pair_show_both_ways_to_differ() -> None:
    texts = {True: "Sorry.", False: "Yes."}
    pair = []
    for name, refuses in (("one", lambda i: i == 3), ("two", lambda i: i in (3, 90))):
        rows = [answer(i, texts[refuses(i)], refused=refuses(i), harmful=True) for i in range(100)]
        pair.append(arm(name, [], {"a": rows}))
    found = choose(pair, 3, lambda *_: None)
    kinds = {tuple(a.outcome for a in e.answers if a) for e in found}
    assert kinds == {("answered", "answered"), ("refused", "refused"), ("answered", "refused")}


def test_all_answers_of_all_models_can_be_browsed() -> None:
    one = answers_of_many_kinds()
    verdicts = {"strict": True, "gcg": False}
    two = arm(
        "two", [], {"small": [answer(1001, "No </script>.", refused=True, verdicts=verdicts)]}
    )
    data = browse_data([one, two], 10_000)
    assert data is not None and data["total"] == len(data["rows"]) == 302
    benchmark, scene, harmful, prompt, answers = data["rows"][-1]
    assert (data["benchmarks"][benchmark], data["scenes"][scene]) == ("small", "")
    assert (harmful, prompt) == (False, "Question 1001?")
    assert answers == [
        ["Cut", OUTCOMES.index("answered"), 1, 0],
        ["No </script>.", OUTCOMES.index("refused"), 0, 1],
    ]
    assert data["rows"][0][4][1] is None  # two was not asked
    fewer = browse_data([one, two], 100)
    assert fewer is not None and len(fewer["rows"]) == 100 and fewer["total"] == 302
    shown = page_of([one, two])
    assert shown.count("</script>") == 2
    stored = shown.split('id="answer-data">')[1].split("</script>")[0]
    assert json.loads(stored) == json.loads(json.dumps(data))
