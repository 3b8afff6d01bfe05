"""Defences on the page: what each costs stands beside what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.report.constructed import arm, row
from tga_jax.evaluation.development import KEY
from tga_jax.report.collect import Arm, Run
from tga_jax.report.figures import arms_table
from tga_jax.report.page import Report, page


def defended(
    name: str, seconds: float, *, defence: str | None, choice: Any = None, **chosen: Any
) -> Arm:
    """An arm under a defence, with its time and what it chose."""
    about = {"defence": defence and {"name": defence, **chosen}, "system": f"system of {name}"}
    time = row("hod", "seconds", 1, 1, **about) | {"value": seconds, "interval": [seconds] * 2}
    found = arm(name, [row("hod", "dsr", 3, 4, **about), time])
    return dataclasses.replace(found, choice=choice or {})


def page_of(arms: list[Arm], **about: Any) -> str:
    """The page of these arms, of which the first two are the pair."""
    run = Run(Path("workdir"), arms, {}, {})
    return page(Report(run, tuple(arms[:2]), {}, [], **about))


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_the_table_of_defences_has_the_seconds_of_a_question() -> None:
    arms = [
        defended("undefended", 0.4203, defence=None),
        defended("ecso", 12.34, defence="ecso"),
        defended("zero-shot", 0.0311, defence="zero_shot"),
    ]
    table = arms_table(arms)
    assert table is not None and table.header[-1] == "Seconds a question (hod)"
    assert [line[-1] for line in table.rows] == ["0.42 s", "12 s", "0.031 s"]


def test_a_time_with_compiling_is_marked() -> None:
    slow = defended("undefended", 1.5, defence=None)
    slow.rows[1]["with_compiling"] = True
    table = arms_table([slow, defended("ecso", 0.5, defence="ecso")])
    assert table is not None
    assert [line[-1] for line in table.rows] == ["1.5 s (with compiling)", "0.5 s"]
    shown = page_of([slow, defended("ecso", 0.5, defence="ecso")])
    assert "1.5 s (with compiling)" in shown and "unless the figure is marked" in shown


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"strength": 0.0, "why": f"{KEY}: the model refuses none of its texts; name other texts"},
         "because the model refuses none of its texts; name other texts."),
        ({"strength": 0.0, "direction": {"layer": 2}}, "because within the bound of over-refusal "
         "no strength refused more"),
    ],
)  # fmt: skip
def test_steering_that_changes_nothing_says_so_beside_its_figures(choice: Any, why: str) -> None:
    plain = defended("undefended", 0.4, defence=None)
    steered = defended("steering", 0.4, defence="steering", strength=0.0, choice=choice)
    table = arms_table([plain, steered])
    assert table is not None and table.rows[1][0] == "steering (strength 0: changed nothing)"
    text = page_of([plain, steered])
    for name in ("figures", "arms"):
        assert f"steering with strength 0 changed nothing, {why}" in section(text, name)


def test_what_defences_chose_stands_beside_their_figures() -> None:
    warning = "chosen on 4 harmless images, which are few"
    arms = [
        defended("steering", 0.4, defence="steering", strength=4.0, layer=7),
        defended("chosen", 0.4, defence="zero_shot", threshold=0.25,
                 choice={"threshold": 0.25, "harmless": 4, "warning": warning}),
        defended("given", 0.4, defence="zero_shot", threshold=0.5),
    ]  # fmt: skip
    table = arms_table(arms)
    assert table is not None and [line[0] for line in table.rows] == [
        "steering (strength 4)", "chosen (threshold 0.25)", "given (threshold 0.5)",
    ]  # fmt: skip
    shown = section(page_of(arms), "arms")
    assert "with strength 4 at layer 7." in shown
    assert f"above 0.25, chosen on 4 harmless development images. It was {warning}." in shown
    assert "above 0.5, by config.evaluate.zero_shot.threshold." in shown


def test_every_arm_has_its_settings_and_its_warnings_and_what_was_left_out_is_listed() -> None:
    arms = [defended(name, 0.4, defence=None) for name in ("one", "two", "three")]
    cut = row("hod", "truncated", 1, 1) | {"value": 3, "count": 8}
    arms[2].rows.append(cut)
    text = page_of(arms, left_out={"zero-shot": "retrieval.clip"}, pair_reason="Because.")
    settings = section(text, "provenance").split("Settings that produced the figures")[-1]
    for name in ("one", "two", "three"):
        assert f"system of {name}" in settings.split("</table>")[0]
    shown = section(text, "arms")
    assert "For three on the benchmark hod, 3 of 8 answers were cut off" in shown
    assert "The arm zero-shot was left out, because config.retrieval.clip is not set." in shown
    assert "<b>Pair.</b> Because." in text.split("<nav")[0]


def test_models_without_defences_have_no_such_column() -> None:
    table = arms_table([defended(name, 0.5, defence=None) for name in "abc"])
    assert table is not None and not any("Seconds" in name for name in table.header)
