"""Section of judges: what each says, how far they agree, and where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tga_jax.evaluation.items import ALL
from tga_jax.html.formats import figure_text, words
from tga_jax.html.markup import Markup, join, tag
from tga_jax.html.tables import Table, to_html
from tga_jax.report.collect import Arm

AGREEMENT = "agreement_with_"
SHOWN = 12  # disagreements of a model; all are in evaluate/<benchmark>/disagreements.jsonl


def judges(arms: Sequence[Arm]) -> Markup | None:
    """A table and the disagreements; None where only one judge was asked."""
    table = judges_table(arms)
    if table is None:
        return None
    lead = (
        "The first judge is the one whose verdicts count everywhere else. Agreement is the share "
        "of answers that two judges see alike."
    )
    lists = [_disagreements(arm) for arm in arms]
    return join([tag("p", lead, class_="lead"), to_html(table), *(part for part in lists if part)])


def judges_table(arms: Sequence[Arm]) -> Table | None:
    """A row a benchmark, model and judge."""
    rows = [row for arm in arms for row in _rows(arm)]
    header = ("Benchmark", "Model", "Judge", "Harmful refused", "Harmless refused", "Agrees")
    caption = "Verdicts by judge, with 95% intervals; agreement is with the first judge"
    return Table(caption, header, rows, numbers=3) if rows else None


def _rows(arm: Arm) -> Iterator[tuple[str, ...]]:
    for benchmark in dict.fromkeys(row["benchmark"] for row in arm.rows):
        found = [
            row
            for row in arm.rows
            if row["benchmark"] == benchmark
            and row["scene"] == ALL
            and row["metric"].startswith(AGREEMENT)
        ]
        for place, row in enumerate(found):
            first, other = row["judges"]
            if not place:
                yield (benchmark, arm.name, first, *_refusals(arm, benchmark, ""), "\u2013")
            agreed = figure_text("agreement", arm.figure(benchmark, ALL, row["metric"]))
            yield (benchmark, arm.name, other, *_refusals(arm, benchmark, f"_by_{other}"), agreed)


def _refusals(arm: Arm, benchmark: str, suffix: str) -> tuple[str, str]:
    dsr, over = (
        figure_text(metric, arm.figure(benchmark, ALL, metric + suffix))
        for metric in ("dsr", "over_refusal")
    )
    return dsr, over


def _disagreements(arm: Arm) -> Markup | None:
    """Answers that judges see differently, folded away: they may be answers to harmful texts."""
    found = [
        (benchmark, answer)
        for benchmark, answers in arm.answers.items()
        for answer in answers
        if {True, False} <= set((answer["metadata"].get("verdicts") or {}).values())
    ]
    if not found:
        return None
    title = f"{arm.name}: {min(SHOWN, len(found))} of {len(found)} answers that judges see apart"
    shown = [found[i * len(found) // SHOWN] for i in range(SHOWN)] if len(found) > SHOWN else found
    rows = [_row(benchmark, answer) for benchmark, answer in shown]
    header = ("Question", "Answer", "Verdicts")
    table = to_html(Table("Evenly taken; all are in disagreements.jsonl", header, rows, numbers=9))
    return tag("details", tag("summary", title), table)


def _row(benchmark: str, answer: dict[str, Any]) -> tuple[str, ...]:
    said = {True: "refuses", False: "answers", None: "no verdict"}
    verdicts = answer["metadata"]["verdicts"].items()
    return (
        f"{words(benchmark)}: {answer['prompt']}",
        answer["text"],
        ", ".join(f"{judge} {said[verdict]}" for judge, verdict in verdicts),
    )
