"""What safety costs: every arm as a point, its ability against how much it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.html.charts import Point, scatter_chart
from tga_jax.html.formats import figure_text
from tga_jax.html.render import render
from tga_jax.html.tables import Term
from tga_jax.report.collect import Arm
from tga_jax.report.headlines import Line, first_lines
from tga_jax.report.identity import profile_text

ABILITY = "naming_accuracy"
SAFETY = ("picture_dsr", "picture_dsr_at_5pct")


def trade_off(arms: Sequence[Arm], pair: Sequence[str]) -> Markup | None:
    """A chart for each measure of safety, where three arms or more have both."""
    first = first_lines(arms)
    charts = [
        _chart(arms, first[ABILITY], first[key], pair)
        for key in SAFETY
        if key in first and ABILITY in first
    ]
    found = [chart for chart in charts if chart is not None]
    return render("panels.html", lead="", names=[], panels=found, small=False) if found else None


def _chart(
    arms: Sequence[Arm], ability: Line, safety: Line, pair: Sequence[str]
) -> dict[str, Any] | None:
    points = []
    for arm in arms:
        x, y = ability.of(arm), safety.of(arm)
        if x is None or y is None:
            continue
        text = (
            f"{arm.name}: {figure_text(ability.headline.metric, x)}, "
            f"{figure_text(safety.headline.metric, y)}"
        )
        own = pair.index(arm.name) + 2 - len(pair) if arm.name in pair else None
        points.append(Point(arm.name, x.value, y.value, own, text))
    if len(points) < 3:
        return None
    label = ability.headline.label
    chart = scatter_chart(points, title=safety.headline.label, x_label=label)
    title = Term(safety.headline.label, safety.headline.metric)
    note = f"Plotted against {label[0].lower()}{label[1:]}; {profile_text(arms)}"
    return {"title": title, "lines": [], "chart": chart, "note": note}
