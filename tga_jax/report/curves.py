"""Sections of curves: over the layers, and over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.analysis.layer_values import LAYERS, LayerValue, layer_band, notes, over_layers
from tga_jax.config import STAGES
from tga_jax.evaluation.result import FEW
from tga_jax.figure import Figure
from tga_jax.html.charts import Series, dash_sample, line_chart
from tga_jax.html.formats import figure_text, number_text, words
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report.collect import Arm
from tga_jax.report.identity import profile_text
from tga_jax.training.metric_table import HELD_OUT, METRICS, Metric

POINTS = 120  # of a training curve


def layers(arms: Sequence[Arm]) -> Markup | None:
    """A chart a metric and kind of sample: a line a model, harmful solid and benign dashed."""
    panels = []
    for metric in dict.fromkeys(point.metric for arm in arms for point in arm.layers):
        sets = dict.fromkeys(p.set for arm in arms for p in arm.layers if p.metric == metric)
        for kind in dict.fromkeys(kind_of(name) for name in sets):
            series = _layer_lines(arms, metric, [n for n in sets if kind_of(n) == kind])
            if series:
                panels.append(_panel(metric, kind, series, _note(arms, metric)))
    if not panels:
        return None
    lead = (
        "These curves show how the hidden states develop from the first layer to the last. Bands "
        "are 95% intervals. Scenes are captions that the model reads in place of their images."
    )
    return render("panels.html", lead=lead, names=[], panels=panels, small=True)


def _note(arms: Sequence[Arm], metric: str) -> str:
    """Below a chart: the profile, and on how few texts of which model it rests."""
    few = [(arm.name, note) for arm in arms if (note := notes(arm.analysis).get(metric))]
    parts = [f"{name}: {note}" for name, note in few]
    return "; ".join(filter(None, [profile_text(arms), *parts]))


def _panel(metric: str, kind: str, series: Sequence[Series], note: str) -> dict[str, Any]:
    title = f"{LAYERS.get(metric, words(metric))}: {words(kind)}"
    chart = line_chart(series, title=f"{title}, by layer", x_label="layer", height=210, width=340)
    term = "cosine" if metric.startswith("image_caption_cos") else "layers"
    lines = _lines(series)
    return {"title": Term(title, term), "lines": lines, "chart": chart, "note": note}


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
        text = (
            f"In {arm.name}, refusal of text arises at layer{'s' * ('-' in layers)} {layers} of "
            f"{arm.analysis['layers']}"
        )
    else:
        reason = str(arm.analysis.get("reason")).partition(";")[0]  # without what to do about it
        text = f"In {arm.name} there are {reason}"
    told = _apologies_first(arm)
    warning = arm.analysis.get("warning")
    return f"{text}.{told}" + (f" Take this measure with care: {warning}." if warning else "")


def _apologies_first(arm: Arm) -> str:
    """For how many samples of each set an apology token comes first at the last layer."""
    last = max((value.layer for value in arm.layers), default=0)
    shares = [
        f"{figure_text('dsr', Figure(value.value, value.low, value.high))} of {words(value.set)}"
        + _count(value)
        for value in arm.layers
        if (value.metric, value.layer) == ("apology_top1_share", last)
    ]
    if not shares:
        return ""
    return f" At the last layer an apology token comes first for {', '.join(shares)}."


def _count(value: LayerValue) -> str:
    """Like " (n = 6, few)"."""
    if value.count is None:
        return ""
    return f" (n = {value.count:,}{', few' if value.count < FEW else ''})"


def kind_of(name: str) -> str:
    """harmful_images -> images; a name without a degree is its own kind."""
    return name.removeprefix("harmful_").removeprefix("benign_")


def training(arms: Sequence[Arm]) -> Markup | None:
    """Small charts of what was logged while training."""
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
                    series, title=name, x_label="step", height=200, width=340, markers=False
                )
                title = Term(name, "held_out") if metric.reduction == HELD_OUT else name
                panels.append({"title": title, "lines": [], "chart": chart, "note": ""})
    if not panels:
        return None
    lead = "Each point is a mean over neighbouring steps. The loss includes the guide's terms."
    names = [arm.name for arm in arms]
    charts = render("panels.html", lead=lead, names=names, panels=panels, small=True)
    table = training_table(arms)
    parts = [charts, *([to_html(table)] if table else [])]
    return render("tables.html", lead="", tables=parts, folded=[])


def training_table(arms: Sequence[Arm]) -> Table | None:
    """A row a model, stage and curve: the values that were logged first and last."""
    rows = [
        _ends(arm, stage, metric)
        for arm in arms
        for stage in STAGES
        for metric in METRICS
        if metric.curve and _logged(arm, stage, metric.name)
    ]
    header = ("Model", "Stage", "Figure", "Steps", "First", "Last")
    caption = "Training: the values that were logged first and last"
    return Table(caption, header, rows, numbers=3) if rows else None


def _ends(arm: Arm, stage: str, metric: Metric) -> tuple[str, ...]:
    found = _logged(arm, stage, metric.name)
    (first, begin), (last, end) = found[0], found[-1]
    name = Term(metric.curve, "held_out") if metric.reduction == HELD_OUT else metric.curve
    steps = f"{first:,} to {last:,}"
    return arm.name, stage, name, steps, number_text(begin), number_text(end)


def _logged(arm: Arm, stage: str, metric: str) -> list[tuple[int, float]]:
    """The steps at which a metric has a value, and the values."""
    rows = arm.training.get(stage, [])
    return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]


def _points(arm: Arm, stage: str, metric: str) -> tuple[tuple[float, float], ...]:
    """At most POINTS points, each the mean of as many neighbours."""
    found = _logged(arm, stage, metric)
    size = -(-len(found) // POINTS) or 1
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def _lines(series: Sequence[Series]) -> list[tuple[Markup, str]]:
    """A piece of every line, and its name."""
    return [(dash_sample(line.dash, line.arm), line.name) for line in series]
