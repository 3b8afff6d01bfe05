"""Sections of what was measured: scenes, tests, and what produced the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tga_jax.evaluation.items import ALL
from tga_jax.html.charts import Bar, Group, bar_chart
from tga_jax.html.formats import (
    difference_text,
    figure_text,
    p_text,
    seconds_text,
    words,
)
from tga_jax.html.markup import Markup, join, tag
from tga_jax.html.tables import Table, to_html
from tga_jax.report.collect import Arm, Run
from tga_jax.report.curves import absent
from tga_jax.report.headlines import Difference, Place

METRICS = {
    "dsr": "Harmful refused (DSR)",
    "over_refusal": "Harmless refused",
    "dsr_at_5pct": "DSR at 5% over-refusal",
    "dsr_at_1pct": "DSR at 1% over-refusal",
    "accuracy": "Right answers",
    "auc": "AUC of the refusal margin",
}
CHARTS = {
    "Refusals": ("dsr", "over_refusal"),
    "Harmful refused at 5% over-refusal": ("dsr_at_5pct",),
    "Right answers": ("accuracy",),
}
HEADINGS = {
    "dsr": "harmful: higher is better",
    "over_refusal": "harmless: lower is better",
}
MOST_SCENES = 24
OF_BENCHMARKS = ("benchmark", "retrieved")  # settings of a row, not of the model
EXPECTED = ("checkpoint", "weights")  # to differ between two models


# --- scenes ---


def scene_names(arms: Sequence[Arm], benchmark: str, metric: str) -> list[str]:
    """Scenes with the metric, everything first; parts of scenes ("gun/hard") are left out."""
    found = dict.fromkeys(
        row["scene"]
        for arm in reversed(arms)
        for row in arm.rows
        if (row["benchmark"], row["metric"]) == (benchmark, metric) and "/" not in row["scene"]
    )
    return list(found)[:MOST_SCENES]


def benchmarks(arms: Sequence[Arm]) -> list[str]:
    """Names in the order of the rows."""
    return list(dict.fromkeys(row["benchmark"] for arm in reversed(arms) for row in arm.rows))


def scenes(arms: Sequence[Arm]) -> Markup:
    """Bars with whiskers: a group a scene, a bar a model."""
    panels = []
    for benchmark in benchmarks(arms):
        for title, metrics in CHARTS.items():
            groups = [g for metric in metrics for g in _groups(arms, benchmark, metric, metrics)]
            if groups:
                name = f"{title}: {words(benchmark)}"
                chart = bar_chart(groups, title=name)
                panels.append(tag("figure", tag("h3", name), chart, class_="panel"))
    if not panels:
        return absent("No figures by scene: there is no evaluate/metrics.json (job evaluate).")
    lead = tag("p", "Whiskers are 95% intervals.", class_="lead")
    return join([lead, legend(arms), tag("div", panels, class_="panels")])


def _groups(
    arms: Sequence[Arm], benchmark: str, metric: str, metrics: Sequence[str]
) -> list[Group]:
    groups = []
    for scene in scene_names(arms, benchmark, metric):
        bars = [
            Bar(figure.value, figure.low, figure.high, place,
                f"{arm.name}, {words(scene)}: {figure_text(metric, figure)}, n = {figure.count}")
            for place, arm in enumerate(arms, start=2 - len(arms))
            if (figure := arm.figure(benchmark, scene, metric))
        ]  # fmt: skip
        groups.append(Group(words(scene), tuple(bars)))
    heading = [Group(HEADINGS[metric])] if groups and len(metrics) > 1 else []
    return heading + groups


def legend(arms: Sequence[Arm]) -> Markup:
    """Which colour is which model."""
    return tag(
        "ul",
        [
            tag("li", tag("span", class_=f"swatch arm{place}"), arm.name)
            for place, arm in enumerate(arms, start=2 - len(arms))
        ],
        class_="legend",
    )


def scene_tables(arms: Sequence[Arm]) -> list[Table]:
    """A table a benchmark: a row a scene and metric."""
    found = []
    for benchmark in benchmarks(arms):
        rows = [
            (words(scene), title,
             *(figure_text(metric, arm.figure(benchmark, scene, metric)) for arm in arms))
            for metric, title in METRICS.items()
            for scene in scene_names(arms, benchmark, metric)
        ]  # fmt: skip
        header = ("Scene", "Figure", *(arm.name for arm in arms))
        caption = f"{benchmark}, by scene, with 95% intervals"
        found.append(Table(caption, header, rows, numbers=2))
    return found


# --- tests ---


def paired_row(place: Place, found: Difference) -> tuple[str, ...]:
    """A line of the table of paired tests."""
    benchmark, scene, metric = place
    counts = (found.only_this, found.only_other)
    return (
        f"{benchmark}/{scene}",
        METRICS.get(metric, words(metric)),
        difference_text(metric, found.figure),
        *("\u2013" if count is None else str(count) for count in counts),
        "\u2013" if found.p_value is None else p_text(found.p_value),
        str(found.figure.count),
    )


def tests(table: Table | None) -> Markup:
    """Both models on the same questions."""
    if table is None:
        return absent("No paired tests: they need the answers of two models to the same questions.")
    lead = (
        "Both models on the same questions. The difference has a paired bootstrap interval; p is "
        "McNemar's exact test over the questions on which only one of the two does it. The "
        f"p-values are not corrected for there being {len(table.rows)} rows."
    )
    return join([tag("p", lead, class_="lead"), to_html(table)])


# --- what produced the figures ---


def settings_of(arm: Arm) -> dict[str, str]:
    """Flat settings of an arm's rows as text; different ones of several rows side by side."""
    found: dict[str, dict[str, None]] = {}
    for row in arm.rows:
        for key, value in row["settings"].items():
            if key in OF_BENCHMARKS:
                continue
            for name, text in _flat(key, value):
                found.setdefault(name, {})[text] = None
    return {name: "; ".join(texts) for name, texts in found.items()}


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flat(f"{key}.{k}", v)]
    return [(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def differing_settings(arms: Sequence[Arm]) -> list[str]:
    """Settings, but for the weights, that are not the same for two models."""
    if len(arms) < 2 or not all(arm.rows for arm in arms):
        return []
    first, second = (settings_of(arm) for arm in arms)
    names = dict.fromkeys([*first, *second])
    return [n for n in names if n not in EXPECTED and first.get(n) != second.get(n)]


def provenance(run: Run, arms: Sequence[Arm]) -> Markup:
    """Settings stamped on the figures, what was asked, base models, and time."""
    parts: list[Markup] = []
    stamped = [settings_of(arm) for arm in arms]
    names = dict.fromkeys(name for settings in stamped for name in settings)
    if names:
        rows = [(name, *(s.get(name, "\u2013") for s in stamped)) for name in names]
        header = ("Setting", *(arm.name for arm in arms))
        parts.append(to_html(Table("Settings stamped on the figures", header, rows, numbers=9)))
        parts.append(to_html(_asked(arms)))
    else:
        parts.append(absent("No settings: there is no evaluate/metrics.json (job evaluate)."))
    base = [(n, text) for n, text in _flat("", run.base_models) if not n.startswith(".seconds")]
    if base:
        rows = [(name[1:], text) for name, text in base]
        parts.append(to_html(Table("Base models", ("Figure", "Value"), rows)))
    seconds = {**run.seconds}
    for arm in run.arms:
        seconds |= {f"{arm.name}/{job}": value for job, value in arm.seconds.items()}
    if seconds:
        rows = [(name, seconds_text(value)) for name, value in seconds.items()]
        parts.append(to_html(Table("Time", ("Phase", "Took"), rows)))
    else:
        parts.append(absent("No times: there is no seconds.json or summary.json."))
    return join(parts)


def _asked(arms: Sequence[Arm]) -> Table:
    """The benchmarks, from the rows of everything."""
    rows: dict[tuple[str, ...], None] = {}
    for arm in arms:
        for row in arm.rows:
            asked = row["settings"].get("benchmark")
            if row["scene"] == ALL and asked:
                options = ", ".join(f"{k}={v}" for k, v in asked.get("options", {}).items())
                cells = (row["benchmark"], asked.get("kind", ""), asked.get("path", ""), options,
                         "yes" if row["settings"].get("retrieved") else "no")  # fmt: skip
                rows[cells] = None
    header = ("Benchmark", "Kind", "Path", "Options", "Retrieved text")
    return Table("What was asked", header, list(rows), numbers=9)
