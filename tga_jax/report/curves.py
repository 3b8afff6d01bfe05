"""Sections of curves: over the layers, and over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.analysis.layer_values import LAYERS, layer_band, over_layers
from tga_jax.config import STAGES
from tga_jax.html.charts import Series, dash_sample, line_chart
from tga_jax.html.formats import Figure, figure_text, words
from tga_jax.html.markup import Markup, join, tag
from tga_jax.report.collect import Arm
from tga_jax.training.metric_table import METRICS

POINTS = 120  # of a training curve


def absent(text: str) -> Markup:
    """Says that a part is not there."""
    return tag("p", text, class_="absent")


def layers(arms: Sequence[Arm]) -> Markup:
    """A chart a metric and kind of sample: a line a model, harmful solid and benign dashed."""
    metrics = dict.fromkeys(point.metric for arm in arms for point in arm.layers)
    if not metrics:
        return absent("No curves over the layers: there is no analyze/layers.csv (job analyze).")
    panels = []
    for metric in metrics:
        sets = dict.fromkeys(p.set for arm in arms for p in arm.layers if p.metric == metric)
        for kind in dict.fromkeys(kind_of(name) for name in sets):
            series = _layer_lines(arms, metric, [n for n in sets if kind_of(n) == kind])
            if series:
                title = f"{LAYERS.get(metric, words(metric))}: {words(kind)}"
                chart = line_chart(
                    series, title=f"{title}, by layer", x_label="layer", height=200, width=340
                )
                panels.append(tag("figure", tag("h3", title), _legend(series), chart,
                                  class_="panel"))  # fmt: skip
    lead = (
        "How the hidden states develop from the first layer to the last. Bands are 95% intervals "
        "of a share or a mean; scenes are captions read in the place of their pictures."
    )
    return join([tag("p", lead, class_="lead"), tag("div", panels, class_="panels three")])


def _layer_lines(arms: Sequence[Arm], metric: str, sets: Sequence[str]) -> list[Series]:
    """A line for every model and set."""
    return [
        Series(
            f"{arm.name}, {words(name)}",
            found,
            place,
            sets.index(name),
            layer_band(arm.layers, name, metric),
        )
        for place, arm in enumerate(arms, start=2 - len(arms))
        for name in sets
        if (found := over_layers(arm.layers, name, metric))
    ]


def where_refusal_arises(arm: Arm) -> str | None:
    """What job analyze found in a model, in a sentence; None where it was not run."""
    if not arm.analysis:
        return None
    layers = arm.analysis.get("safety_layers")
    if layers:
        text = f"at layers {layers} of {arm.analysis['layers']}"
    else:
        text = str(arm.analysis.get("reason")).partition(";")[0]  # without what to do about it
    last = max((value.layer for value in arm.layers), default=0)
    shares = [
        f"{figure_text('dsr', Figure(value.value, value.low, value.high))} of {words(value.set)}"
        for value in arm.layers
        if (value.metric, value.layer) == ("apology_top1_share", last) and "harmful" in value.set
    ]
    told = f"; at the end an apology comes first for {', '.join(shares)}" if shares else ""
    return f"{arm.name}: {text}{told}."


def kind_of(name: str) -> str:
    """harmful_images -> images; a name without a degree is its own kind."""
    return name.removeprefix("harmful_").removeprefix("benign_")


def training(arms: Sequence[Arm]) -> Markup:
    """Small charts of what was logged while training."""
    if not any(arm.training for arm in arms):
        return absent(
            "No training curves: there is no pretrain/metrics.jsonl or finetune/metrics.jsonl."
        )
    panels = []
    for stage in STAGES:
        for metric in (metric for metric in METRICS if metric.curve):
            series = [
                Series(arm.name, found, place)
                for place, arm in enumerate(arms, start=2 - len(arms))
                if (found := _points(arm, stage, metric.name))
            ]
            if series:
                name = f"{stage}: {metric.curve}"
                chart = line_chart(
                    series, title=name, x_label="step", height=190, width=340, markers=False
                )
                panels.append(tag("figure", tag("h3", name), chart, class_="panel"))
    legend = [Series(arm.name, (), place) for place, arm in enumerate(arms, start=2 - len(arms))]
    lead = "Means of neighbouring steps. With a guide, its terms are part of the loss."
    parts = [tag("p", lead, class_="lead"), _legend(legend)]
    return join([*parts, tag("div", panels, class_="panels three")])


def _points(arm: Arm, stage: str, metric: str) -> tuple[tuple[float, float], ...]:
    """At most POINTS points, each the mean of as many neighbours."""
    rows = arm.training.get(stage, [])
    found = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    size = -(-len(found) // POINTS) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def _legend(series: Sequence[Series]) -> Markup:
    items = [tag("li", dash_sample(line.dash, line.arm), line.name) for line in series]
    return tag("ul", items, class_="legend")
