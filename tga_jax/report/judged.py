"""Section of job `judge`: what the judges say of answers that were made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tga_jax.evaluation.items import ALL
from tga_jax.figure import Figure
from tga_jax.html.formats import COUNTS, figure_text, words
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report.collect import Json
from tga_jax.report.evidence import MOST_SCENES

# Metric -> its name in the table, in the table's order; the key of the glossary comes third.
METRICS = (
    ("dsr", "Harmful refused (DSR)", "dsr"),
    ("over_refusal", "Harmless refused", "over_refusal"),
    ("refusal_rate", "Refused, of answers without a label", "refusal_rate"),
    ("no_verdict", "Answers without a verdict", "no_verdict"),
    ("empty", "Empty answers", "empty"),
    ("agreement", "Agrees with the first judge", "agreement"),
    ("kappa", "Kappa with the first judge", "kappa"),
)
OF_SCENES = ("dsr", "over_refusal", "refusal_rate")


def judged(rows: Sequence[Json]) -> Markup | None:
    """What was judged, and a table of the figures; None where job `judge` has not run."""
    table = judged_table(rows)
    if table is None:
        return None
    return render("tables.html", lead=judged_text(rows), tables=[to_html(table)], folded=[])


def judged_text(rows: Sequence[Json]) -> str:
    """Which file was judged, by whom, and what its answers have in common."""
    about = rows[0]["settings"]
    count = f"{about['answers_count']:,} answers" if "answers_count" in about else "the answers"
    judges = list(dict.fromkeys(_judge(row) for row in rows))
    text = (
        f"Job judge judged {count} of {about.get('answers', 'a file')}, which {rows[0]['model']} "
        f"gave. No model was asked. The judges are {', '.join(judges)}."
    )
    if about.get("repeated_ids"):
        text += (
            f" {about['repeated_ids']:,} of the answers have the question id of an earlier one; "
            "each counts as an answer of its own."
        )
    return text


def judged_table(rows: Sequence[Json]) -> Table | None:
    """A row a scene, judge and figure."""
    scenes = list(dict.fromkeys(row["scene"] for row in rows if "/" not in row["scene"]))
    lines = [
        (words(row["scene"]), Term(_judge(row), "judge"), Term(name, key), _value(row, metric),
         f"{row['count']:,}" + (" (few)" if row.get("few") else ""))
        for scene in scenes[:MOST_SCENES]
        for metric, name, key in METRICS
        for row in rows
        if row["scene"] == scene and (scene == ALL or metric in OF_SCENES)
        if _is(row["metric"], metric)
    ]  # fmt: skip
    header = ("Scene", "Judge", "Figure", "Value", Term("n", "n"))
    caption = "Answers that were made elsewhere (job judge), with 95% intervals"
    return Table(caption, header, lines, numbers=3) if lines else None


def _is(name: str, metric: str) -> bool:
    """Whether a row's metric is this one, of any judge."""
    return name == metric or name.startswith((f"{metric}_by_", f"{metric}_with_"))


def _judge(row: Json) -> str:
    return str(row["settings"].get("judge", {}).get("name", "unknown"))


def _value(row: Json, metric: str) -> str:
    if metric in COUNTS:
        return f"{row['value']:,.0f}"
    return figure_text(metric, Figure(row["value"], *row["interval"]))
