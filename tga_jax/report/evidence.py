"""Sections of what was measured: by scene, and paired tests."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tga_jax.html.charts import Bar, Group, bar_chart
from tga_jax.html.formats import (
    count_text,
    difference_text,
    figure_text,
    p_text,
    words,
)
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term
from tga_jax.report.collect import Arm
from tga_jax.report.headlines import Difference, Place
from tga_jax.report.identity import profile_text

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


# --- scenes ---


def scene_names(arms: Sequence[Arm], benchmark: str, metric: str) -> list[str]:
    """The first scenes with the metric."""
    return _scenes(arms, benchmark, metric)[:MOST_SCENES]


def _scenes(arms: Sequence[Arm], benchmark: str, metric: str) -> list[str]:
    """Scenes with the metric, everything first; parts of scenes ("gun/hard") are left out."""
    found = dict.fromkeys(
        row["scene"]
        for arm in reversed(arms)
        for row in arm.rows
        if (row["benchmark"], row["metric"]) == (benchmark, metric) and "/" not in row["scene"]
    )
    return list(found)


def benchmarks(arms: Sequence[Arm]) -> list[str]:
    """Names in the order of the rows."""
    return list(dict.fromkeys(row["benchmark"] for arm in reversed(arms) for row in arm.rows))


def scenes(arms: Sequence[Arm]) -> Markup | None:
    """Bars with whiskers: a group a scene, a bar a model."""
    panels = []
    for benchmark in benchmarks(arms):
        for title, metrics in CHARTS.items():
            groups = [g for metric in metrics for g in _groups(arms, benchmark, metric, metrics)]
            if groups:
                name = f"{title}: {words(benchmark)}"
                chart = bar_chart(groups, title=name)
                found = {"title": Term(name, metrics[0]), "lines": [], "chart": chart}
                panels.append(found | {"note": _note(arms, benchmark, metrics)})
    if not panels:
        return None
    names, lead = [arm.name for arm in arms], "Whiskers are 95% intervals."
    return render("panels.html", lead=lead, names=names, panels=panels, small=False)


def _note(arms: Sequence[Arm], benchmark: str, metrics: Sequence[str]) -> str:
    """Below a chart: the profile, and how many scenes are not in it."""
    counts = [len(_scenes(arms, benchmark, metric)) for metric in metrics]
    if max(counts) <= MOST_SCENES:
        return profile_text(arms)
    return f"{profile_text(arms)}; the first {MOST_SCENES} of {max(counts)} scenes"


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
        counts = [figure.count for arm in arms if (figure := arm.figure(benchmark, scene, metric))]
        groups.append(Group(f"{words(scene)}, n = {counts[-1]}", tuple(bars)))
    heading = [Group(HEADINGS[metric])] if groups and len(metrics) > 1 else []
    return heading + groups


def scene_tables(arms: Sequence[Arm]) -> list[Table]:
    """A table a benchmark: a row a scene and metric."""
    found = []
    for benchmark in benchmarks(arms):
        rows = [
            (words(scene), Term(title, metric),
             *(figure_text(metric, arm.figure(benchmark, scene, metric)) for arm in arms))
            for metric, title in METRICS.items()
            for scene in scene_names(arms, benchmark, metric)
        ]  # fmt: skip
        header = ("Scene", "Figure", *(arm.name for arm in arms))
        caption = f"{benchmark}, by scene, with 95% intervals{under(arms)}"
        found.append(Table(caption, header, rows, numbers=2))
    return found


def under(arms: Sequence[Arm]) -> str:
    """The end of a caption that says the prompt profile; nothing where it is not known."""
    text = profile_text(arms)
    return f"; {text}" if text else ""


# --- tests ---


def paired_row(place: Place, found: Difference) -> tuple[str, ...]:
    """A line of the table of paired tests."""
    benchmark, scene, metric = place
    counts = (found.only_this, found.only_other)
    return (
        f"{benchmark}/{scene}",
        Term(METRICS.get(metric, words(metric)), metric),
        difference_text(metric, found.figure),
        *("\u2013" if count is None else str(count) for count in counts),
        "\u2013" if found.p_value is None else p_text(found.p_value),
        count_text(found.figure),
    )
