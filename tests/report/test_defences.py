"""Defences on the page: what each costs stands beside what it refuses."""

from __future__ import annotations

from tests.report.constructed import arm, row
from tga_jax.report.collect import Arm
from tga_jax.report.figures import arms_table


def defended(name: str, seconds: float, *, defence: str | None) -> Arm:
    """An arm under a defence, with its time."""
    about = {"defence": defence and {"name": defence}}
    time = row("hod", "seconds", 1, 1, **about) | {"value": seconds, "interval": [seconds] * 2}
    return arm(name, [row("hod", "dsr", 3, 4, **about), time])


def test_the_table_of_defences_has_the_seconds_of_a_question() -> None:
    arms = [
        defended("undefended", 0.4203, defence=None),
        defended("ecso", 12.34, defence="ecso"),
        defended("zero-shot", 0.0311, defence="zero_shot"),
    ]
    table = arms_table(arms)
    assert table is not None and table.header[-1] == "Seconds a question (hod)"
    assert [line[-1] for line in table.rows] == ["0.42 s", "12 s", "0.031 s"]


def test_models_without_defences_have_no_such_column() -> None:
    table = arms_table([defended(name, 0.5, defence=None) for name in "abc"])
    assert table is not None and not any("Seconds" in name for name in table.header)
