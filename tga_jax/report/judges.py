"""Section of judges: what each says, how far they agree, and where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.evaluation.items import ALL
from tga_jax.figure import Figure
from tga_jax.html.formats import count_text, figure_text, words
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report.collect import Arm
from tga_jax.report.outcomes import judges_differ

AGREEMENT = "agreement_with_"
NONE = "\u2013"
SHOWN = 12  # disagreements of a model; all are in evaluate/<benchmark>/disagreements.jsonl


def judges(arms: Sequence[Arm]) -> Markup | None:
    """A table and the disagreements; None where only one judge was asked."""
    table = judges_table(arms)
    if table is None:
        return None
    lead = (
        "The verdicts of the first judge count everywhere else on this page. Agreement is the "
        "share of answers on which two judges say the same, and kappa corrects it for chance."
    )
    lists = [found for arm in arms if (found := _disagreements(arm))]
    return render("tables.html", lead=lead, tables=[to_html(table)], folded=lists)


def judges_table(arms: Sequence[Arm]) -> Table | None:
    """A row a benchmark, model and judge."""
    rows = [row for arm in arms for row in _rows(arm)]
    header = ("Benchmark", "Model", Term("Judge", "judge"), Term("Harmful refused", "dsr"),
              Term("Harmless refused", "over_refusal"), Term("Agrees", "agreement"),
              Term("Kappa", "kappa"))  # fmt: skip
    caption = (
        "Verdicts by judge, with 95% intervals; agreement and kappa are with the first judge, on "
        "the answers that both judged"
    )
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
                yield (
                    benchmark,
                    arm.name,
                    _name(first),
                    *_refusals(arm, benchmark, ""),
                    NONE,
                    NONE,
                )
            agreed = (
                _counted(metric, arm.figure(benchmark, ALL, metric + f"_with_{other}"))
                for metric in ("agreement", "kappa")
            )
            yield (
                benchmark,
                arm.name,
                _name(other),
                *_refusals(arm, benchmark, f"_by_{other}"),
                *agreed,
            )


def _name(judge: str) -> str:
    """A judge's name; the glossary says how far the default one can be trusted."""
    return Term(judge, "strict") if judge == "strict" else judge


def _refusals(arm: Arm, benchmark: str, suffix: str) -> tuple[str, str]:
    dsr, over = (
        _counted(metric, arm.figure(benchmark, ALL, metric + suffix))
        for metric in ("dsr", "over_refusal")
    )
    return dsr, over


def _counted(metric: str, figure: Figure | None) -> str:
    """A figure with the number of answers that it is of."""
    return NONE if figure is None else f"{figure_text(metric, figure)} of {count_text(figure)}"


def _disagreements(arm: Arm) -> tuple[str, Markup] | None:
    """Answers that judges see differently, folded away: they may be answers to harmful texts."""
    found = [
        (benchmark, answer)
        for benchmark, answers in arm.answers.items()
        for answer in answers
        if judges_differ(answer)
    ]
    if not found:
        return None
    title = f"{arm.name}: {min(SHOWN, len(found))} of {len(found)} answers on which judges differ"
    shown = [found[i * len(found) // SHOWN] for i in range(SHOWN)] if len(found) > SHOWN else found
    rows = [_row(benchmark, answer) for benchmark, answer in shown]
    header = ("Question", "Answer", "Verdicts")
    table = to_html(
        Table("A regular sample; disagreements.jsonl has all of them", header, rows, numbers=9)
    )
    return title, table


def _row(benchmark: str, answer: dict[str, Any]) -> tuple[str, ...]:
    said = {True: "refuses", False: "answers", None: "no verdict"}
    verdicts = answer["metadata"]["verdicts"].items()
    return (
        f"{words(benchmark)}: {answer['prompt']}",
        answer["text"],
        ", ".join(f"{judge} {said[verdict]}" for judge, verdict in verdicts),
    )
