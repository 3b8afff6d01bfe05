"""Section of job `oracle`: which matched states make the language model refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from tga_jax.alignment.layers import parse_layers
from tga_jax.figure import Figure
from tga_jax.html.charts import Bar, Group, Series, bar_chart, dash_sample, line_chart
from tga_jax.html.formats import difference_text, figure_text, words
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report.collect import Arm, Json

DASH, CAPTION, RANDOM = "\u2013", "caption", "random"
NAMES = {
    CAPTION: "the caption itself",
    RANDOM: "random embeddings",
    "mean": "mean of the image",
    "mean-centred": "mean of the image, centred",
    "answer": "where the answer begins",
    "answer-centred": "where the answer begins, centred",
    "tokens": "every token",
}
KINDS = {"harmful": "harmful refused", "benign": "harmless refused"}
CARRIES = "It refuses clearly more harmful than harmless samples when these states are matched"
REVERSED = "It refuses harmless samples more than harmful ones when these states are matched"
ALIKE = "It makes no clear difference between the two kinds when these states are matched"
UNJUDGED = "The judge gave no verdict on the answers when these states are matched"
EFFECTS = CARRIES, REVERSED, ALIKE, UNJUDGED
SMALL = 0.1  # a difference of shares that is too small to matter
NEAR = 0.8  # a cosine below this has not answered what a match would do
LEAD = (
    "No image is looked at here. In its place stand free embeddings, fitted for each sample alone "
    "until the model's states are those of its caption; then the model answers. If it does not "
    "refuse clearly more of the harmful samples then, training the guide on these states has "
    "little to carry over from texts to images. If it does, training may or may not get there."
)


def oracle(arms: Sequence[Arm], pair: Sequence[Arm]) -> Markup | None:
    """What it means in sentences, a table of all models, and charts of the pair."""
    table = oracle_table(arms)
    if table is None:
        return None
    sentences = [text for arm in arms if arm.oracle for text in (how(arm), meaning(arm))]
    return render(
        "oracle.html",
        lead=LEAD,
        sentences=sentences,
        table=to_html(table),
        panels=_panels(pair) if any(map(_matches, pair)) else "",
    )


def how(arm: Arm) -> str:
    """With how many embeddings, on which layers and under which prompt a model was asked."""
    found = arm.oracle["settings"]
    weight = found["near_weight"]
    near = f" that were held near the model's own (weight {weight})" if weight else ""
    return (
        f"In {arm.name}, {found['tokens']} free embeddings{near} stood in the place of each image. "
        f"They were fitted in {found['steps']} steps on layers {found['layers'] or DASH}. The "
        f"prompt profile was {found['profile']}, and the judge was {found['judge']['name']}."
    )


def meaning(arm: Arm) -> str:
    """What the figures of a model say, and no more than their intervals allow."""
    rows = {row["match"]: row for row in arm.oracle["matches"]}
    said = []
    if CAPTION in rows:
        said.append(_of_caption(arm, rows[CAPTION]))
    matched = [row for name, row in rows.items() if name not in (CAPTION, RANDOM)]
    for effect in EFFECTS:
        names = [_named(arm, row) for row in matched if _effect(row) == effect]
        said += [f"{effect}: {'; '.join(names)}."] if names else []
    return " ".join(said)


def _of_caption(arm: Arm, row: Json) -> str:
    shares = [_figure(row[kind]) for kind in KINDS]
    if None in shares:
        return f"The judge gave no verdict on what {arm.name} answered to the captions."
    harmful, benign = (figure_text("dsr", share) for share in shares)
    text = (
        f"With the caption itself in the image's place, {arm.name} refuses {harmful} of the "
        f"harmful samples and {benign} of the harmless ones"
    )
    difference = _difference(row)
    if difference is not None and difference.value > 0 and difference.excludes_zero:
        return f"{text}."
    return f"{text}, which is not clearly more of the harmful ones. {_at_most(row, difference)}"


def _at_most(row: Json, difference: Figure | None) -> str:
    """What matching the caption's states may still carry over, by its interval."""
    if difference is None or difference.high is None or difference.high > SMALL:
        counts = " and ".join(f"{row[kind]['count']:,}" for kind in KINDS)
        return (
            "Whether matching the caption's states can carry over refusals cannot be told from "
            f"{counts} samples, and the other rows say little."
        )
    points = f"{100 * max(0.0, difference.high):.1f} points"
    return (
        f"So matching the caption's states can carry over refusals of at most {points} more of the "
        "harmful samples, and the other rows say little."
    )


def _effect(row: Json) -> str:
    """What a match does: one of EFFECTS, which its interval carries."""
    difference = _difference(row)
    if difference is None:
        return UNJUDGED
    if not difference.excludes_zero:
        return ALIKE
    return CARRIES if difference.value > 0 else REVERSED


def _named(arm: Arm, row: Json) -> str:
    """A match with its difference; that it was not reached is said."""
    text, difference, cosines = _name(row), _difference(row), _cosines(arm, row)
    if difference is not None:
        text += f" ({difference_text('dsr', difference, unit=True)})"
    if cosines and min(cosines) < NEAR:
        text += (
            f", though the cosine came only to {min(cosines):.2f} on a layer, so that this is no "
            "answer yet (config.oracle.steps)"
        )
    return text


def _name(row: Json) -> str:
    name: str = row["match"]
    return NAMES.get(name, name)


def _cosines(arm: Arm, row: Json) -> list[float]:
    return reached(row, arm.oracle["settings"]["layers"])


def reached(row: Json, layers: str, name: str = "cosine") -> list[float]:
    """The cosines of a match on the layers that were matched, of both kinds of sample.

    Args:
        row: of oracle.json.
        layers: as its settings have them.
        name: "cosine" of what was matched, or "means_centred" whatever was.
    """
    found = [row[kind][name] for kind in KINDS if row[kind].get(name)]
    return [cosines[layer] for cosines in found for layer in parse_layers(layers, len(cosines))]


def distance(row: Json) -> float | None:
    """How far a match's embeddings are from the model's own, of both kinds of sample together."""
    found = [row[kind] for kind in KINDS if row[kind].get("distance") is not None]
    counts = [kind["count"] + kind["no_verdict"] for kind in found]  # of all answers
    weighted = sum(kind["distance"] * count for kind, count in zip(found, counts, strict=True))
    return weighted / sum(counts) if found else None


def oracle_table(arms: Sequence[Arm]) -> Table | None:
    """A row a model and match."""
    rows = [_row(arm, row) for arm in arms for row in _matches(arm)]
    header = ("Model", Term("In the image's place, or matched", "oracle"), "Cosine reached",
              Term("Means, centred", "oracle"), Term("Distance", "oracle"),
              Term("Harmful refused", "dsr"), Term("Harmless refused", "over_refusal"),
              "Difference", Term("n", "n"))  # fmt: skip
    caption = (
        "Refusals with matched states, with 95% intervals; the difference is harmful minus "
        "harmless, in percentage points; cosines are the lowest and highest of the matched layers, "
        "of harmful and harmless samples; 'means, centred' is the same of the means over image and "
        "caption, whatever was matched; the distance is from the embeddings to the model's own"
    )
    return Table(caption, header, rows, numbers=2) if rows else None


def _matches(arm: Arm) -> list[Json]:
    return arm.oracle.get("matches", [])


def _row(arm: Arm, row: Json) -> tuple[str, ...]:
    layers, far = arm.oracle["settings"]["layers"], distance(row)
    counts = [row[kind]["count"] for kind in KINDS]
    few = " (few)" if any(row[kind].get("few") for kind in KINDS) else ""
    return (
        arm.name,
        _name(row),
        range_text(reached(row, layers)) or DASH,
        range_text(reached(row, layers, "means_centred")) or DASH,
        DASH if far is None else f"{far:.2f}",
        *(figure_text("dsr", _figure(row[kind])) for kind in KINDS),
        difference_text("dsr", _difference(row)),
        f"{' + '.join(f'{count:,}' for count in counts)}{few}",
    )


def range_text(values: Sequence[float]) -> str:
    """The lowest and the highest of some cosines; "" of none."""
    return f"{min(values):.2f} to {max(values):.2f}" if values else ""


def _figure(found: Json) -> Figure | None:
    """The share that is refused; None where nothing was judged."""
    if found["refused"] is None:
        return None
    low, high = found["interval"]
    return Figure(found["refused"], low, high, found["count"], found.get("few", False))


def _difference(row: Json) -> Figure | None:
    """Harmful minus harmless, of independent shares: Newcombe's interval (1998, method 10)."""
    harmful, benign = (_figure(row[kind]) for kind in KINDS)
    if harmful is None or benign is None:
        return None
    (low, high), (low_b, high_b) = harmful.interval, benign.interval
    value = harmful.value - benign.value
    below = math.hypot(harmful.value - low, high_b - benign.value)
    above = math.hypot(high - harmful.value, benign.value - low_b)
    return Figure(value, value - below, value + above)


def _panels(pair: Sequence[Arm]) -> Markup:
    """Bars of the refusals, and the cosines over the layers."""
    groups = [group for kind in KINDS for group in _bars(pair, kind)]
    charts = [("Refusals with matched states", bar_chart(groups, title="Refusals by match"))]
    lines = _lines(pair)
    if lines:
        chart = line_chart(lines, title="Cosine reached, by layer", x_label="layer")
        charts.append(("Cosine reached, harmful samples", chart))
    panels = [
        {
            "title": Term(title, "oracle"),
            "lines": [(dash_sample(line.dash, line.arm), line.name) for line in lines] if i else [],
            "chart": chart,
            "note": "",
        }
        for i, (title, chart) in enumerate(charts)
    ]
    names = [arm.name for arm in pair]
    return render("panels.html", lead="", names=names, panels=panels, small=False)


def _bars(pair: Sequence[Arm], kind: str) -> list[Group]:
    """A heading, and a bar a model under the name of every match."""
    groups = [Group(words(KINDS[kind]))]
    for name in _names(pair):
        bars = []
        for place, arm in enumerate(pair, start=2 - len(pair)):
            row = next((row for row in _matches(arm) if row["match"] == name), None)
            figure = _figure(row[kind]) if row else None
            if figure is not None:
                text = f"{arm.name}: {figure_text('dsr', figure)}"
                bars.append(Bar(figure.value, figure.low, figure.high, place, text))
        groups += [Group(NAMES.get(name, name), tuple(bars))] if bars else []
    return groups


def _names(pair: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(row["match"] for arm in pair for row in _matches(arm)))


def _lines(pair: Sequence[Arm]) -> list[Series]:
    """The cosine on every layer, a line a model and match."""
    names = _names(pair)
    return [
        Series(
            f"{arm.name}, {_name(row)}",
            tuple(enumerate(row["harmful"]["cosine"], start=1)),
            place,
            names.index(row["match"]),
        )
        for place, arm in enumerate(pair, start=2 - len(pair))
        for row in _matches(arm)
        if row["harmful"]["cosine"]
    ]
