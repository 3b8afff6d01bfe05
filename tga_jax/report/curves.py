"""Sections of curves: over the layers, and over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence

from tga_jax.report.charts import Series, dash_sample, line_chart
from tga_jax.report.collect import STAGES, Arm, LayerValue
from tga_jax.report.formats import words
from tga_jax.report.markup import Markup, join, tag

TRAINING = {
    "loss": "loss",
    "lm_loss": "language loss",
    "image_caption_cos": "image-caption cosine",
}
LAYERS = {
    "image_caption_cos": "Cosine of picture and caption states",
    "image_caption_cos_centred": "Cosine of picture and caption states, centred",
    "apology_top1_share": "Share of samples with an apology as most likely next word",
    "first_safety_layer_share": "Share of samples whose safety sets in at the layer",
    "apology_log_prob": "Log-probability of an apology as next word",
    "refusal_direction": "Projection on the refusal direction",
}
POINTS = 120  # of a training curve
Points = tuple[tuple[float, float], ...]


def absent(text: str) -> Markup:
    """Says that a part is not there."""
    return tag("p", text, class_="absent")


def layers(arms: Sequence[Arm]) -> Markup:
    """A chart a metric, a line for every model and set of samples."""
    places = list(enumerate(arms, start=2 - len(arms)))
    metrics = dict.fromkeys(point.metric for arm in arms for point in arm.layers)
    if not metrics:
        return absent("No curves over the layers: there is no analyze/layers.csv (job analyze).")
    panels = []
    for metric in metrics:
        points = [p for arm in arms for p in arm.layers if p.metric == metric]
        sets = list(dict.fromkeys(p.set for p in points))
        series = [
            Series(f"{arm.name}, {words(name)}", found, place, sets.index(name))
            for place, arm in places
            for name in sets
            if (found := over_layers(arm.layers, name, metric))
        ]
        if not series:
            continue
        title = LAYERS.get(metric, words(metric))
        chart = line_chart(series, title=f"{title}, by layer", x_label="layer")
        panels.append(tag("figure", tag("h3", title), _legend(series), chart, class_="panel"))
    lead = "How the hidden states develop from the first layer to the last."
    return join([tag("p", lead, class_="lead"), tag("div", panels, class_="panels")])


def over_layers(values: Sequence[LayerValue], name: str, metric: str) -> Points:
    """The points of a set and a metric; layer -1 (samples that no layer turns) is no point."""
    chosen = (v for v in values if (v.set, v.metric) == (name, metric) and v.layer >= 1)
    return tuple(sorted((float(v.layer), v.value) for v in chosen))


def training(arms: Sequence[Arm]) -> Markup:
    """Small charts of what was logged while training."""
    if not any(arm.training for arm in arms):
        return absent(
            "No training curves: there is no pretrain/metrics.jsonl or finetune/metrics.jsonl."
        )
    panels = []
    for stage in STAGES:
        for metric, title in TRAINING.items():
            series = [
                Series(arm.name, found, place)
                for place, arm in enumerate(arms, start=2 - len(arms))
                if (found := _points(arm, stage, metric))
            ]
            if series:
                name = f"{stage}: {title}"
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
