"""The charts of job `analyze`, each an SVG file that stands by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.analysis.layer_values import LAYERS, LayerValue, layer_band, over_layers
from tga_jax.html.charts import WIDTH, Series, dash_sample, line_chart
from tga_jax.html.formats import words
from tga_jax.html.render import render

CHART_HEIGHT, HEAD, LINE, COLUMN = 230, 26, 18, 160  # in the SVG's own units
STYLE = Markup(
    "text { font: 12px sans-serif; fill: #16191d } .head { font-weight: 600 }"
    " .tick, .axis { fill: #5a636e; font-size: 11px } .grid { stroke: #e1e5ea }"
    " .line { fill: none; stroke-width: 2 } .dot.arm0 { fill: #d1720f } .dot.arm1 { fill: #0068a8 }"
    " .line.arm0 { stroke: #d1720f } .line.arm1 { stroke: #0068a8 } .band { opacity: 0.16 }"
    " .band.arm0 { fill: #d1720f } .band.arm1 { fill: #0068a8 }"
)


def layer_charts(
    values: Sequence[LayerValue], notes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """One model's values -> an SVG a metric, whose `notes` stand behind its title.

    Harmful and benign sets differ in their colour, the kinds of sets in their dashes.
    """
    kinds = list(dict.fromkeys(value.set.rpartition("_")[2] for value in values))
    charts = {}
    for metric in dict.fromkeys(value.metric for value in values):
        series = []
        for name in dict.fromkeys(value.set for value in values if value.metric == metric):
            degree, _, kind = name.rpartition("_")
            points = over_layers(values, name, metric)
            band = layer_band(values, name, metric)
            arm, dash = int(degree != "harmful"), kinds.index(kind)
            series.append(Series(words(name), points, arm, dash, band))
        note = (notes or {}).get(metric)
        title = LAYERS.get(metric, words(metric)) + (f" ({note})" if note else "")
        charts[metric] = chart_file(series, title=title)
    return charts


def chart_file(series: list[Series], *, title: str) -> str:
    """A line chart over the layers with its title, its legend and its style."""
    size = {"y": HEAD, "width": WIDTH, "height": CHART_HEIGHT}
    chart = line_chart(series, title=title, x_label="layer", height=CHART_HEIGHT, attributes=size)
    return render(
        "layer_file.svg",
        style=STYLE,
        title=title,
        chart=chart,
        legend=[_entry(line, place) for place, line in enumerate(series)],
        width=WIDTH,
        height=HEAD + CHART_HEIGHT + 8 + LINE * -(-len(series) // 3),
    )


def _entry(line: Series, place: int) -> dict[str, Any]:
    """A piece of the line and its name, three a row below the chart."""
    row, column = divmod(place, 3)
    return {
        "x": 10 + column * (COLUMN - 5),
        "y": HEAD + CHART_HEIGHT + 8 + row * LINE,
        "sample": dash_sample(line.dash, line.arm, {"width": 30, "height": 12}),
        "name": line.name,
    }
