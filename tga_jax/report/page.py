"""The page: all sections from top to bottom, and the tables that go beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tga_jax.evaluation.items import ALL
from tga_jax.html.charts import Bar, strip
from tga_jax.html.formats import (
    COUNTS,
    difference_text,
    figure_text,
    interval_text,
    value_text,
    words,
)
from tga_jax.html.markup import Markup, join, tag
from tga_jax.html.style import STYLE
from tga_jax.html.tables import Table, to_html, to_latex, to_markdown
from tga_jax.report import cards, curves, evidence
from tga_jax.report.collect import Arm, Run
from tga_jax.report.examples import Example
from tga_jax.report.headlines import (
    TILES,
    Difference,
    Line,
    Place,
    first_lines,
    lines,
    remarks,
    verdict,
)
from tga_jax.report.judges import judges, judges_table
from tga_jax.report.seeds import seeds_tables
from tga_jax.report.trade_off import trade_off

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class Report:
    """What is shown.

    Attributes:
        run: what was collected.
        pair: the models that are compared: (reference, candidate), or one alone; none without arms.
        differences: candidate minus reference, on the same questions.
        examples: chosen questions, with the pair's answers.
        blur: whether harmful pictures are blurred until they are asked for.
    """

    run: Run
    pair: tuple[Arm, ...]
    differences: Mapping[Place, Difference]
    examples: Sequence[Example]
    blur: bool = True

    @property
    def reference(self) -> Arm | None:
        """The arm to compare with."""
        return self.pair[0] if len(self.pair) == 2 else None


def page(report: Report) -> str:
    """The whole HTML page."""
    arms = report.pair
    sections = [
        ("figures", "Headline figures", _headlines(report)),
        ("scenes", "By scene", evidence.scenes(arms)),
        ("examples", "Examples", cards.examples(arms, report.examples, blur=report.blur)),
        ("layers", "Layer by layer", curves.layers(arms)),
        ("seeds", "Over seeds", _over_seeds(report)),
        ("arms", "All arms", _all_arms(report)),
        ("training", "Training", curves.training(arms)),
        ("tests", "Paired tests", evidence.tests(paired_table(report))),
        ("judges", "Judges", judges(arms)),
        ("provenance", "What produced the figures", evidence.provenance(report.run, arms)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    title = f"Report: {report.run.workdir.resolve().name}"
    links = tag("nav", [tag("a", text, href=f"#{name}") for name, text, _ in shown],
                aria_label="Sections")  # fmt: skip
    bodies = [
        tag("section", tag("h2", text), body, id=name) if name != "figures"
        else tag("section", body, id=name, style="margin-top:0", aria_label=text)
        for name, text, body in shown
    ]  # fmt: skip
    top = tag("header", tag("h1", title), tag("p", _verdict(report), class_="verdict"),
              _remarks(report), links)  # fmt: skip
    foot = tag(
        "footer",
        "The same figures are in tables.md and tables.tex beside this page, all rows with what "
        "produced them in metrics.json. Intervals are 95%; shares have Wilson intervals, AUCs "
        "DeLong intervals, matched rates and differences bootstrap intervals.",
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag("body", tag("main", top, bodies, foot))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def tables(report: Report) -> list[Table]:
    """Those of tables.md and tables.tex, which are on the page too."""
    found: list[Table | None] = [headline_table(report), *over_seeds_tables(report)]
    found.append(arms_table(report))
    found += evidence.scene_tables(report.pair)
    found += [paired_table(report), judges_table(report.pair)]
    return [table for table in found if table is not None and table.rows]


def markdown(report: Report) -> str:
    """tables.md"""
    return "\n".join(to_markdown(table) for table in tables(report))


def latex(report: Report) -> str:
    """tables.tex"""
    head = "% Needs \\usepackage{booktabs} and \\usepackage{textcomp}.\n\n"
    return head + "\n".join(to_latex(table) for table in tables(report))


# --- the top ---


def _verdict(report: Report) -> str:
    if not report.pair:
        return "No model has been evaluated or trained here yet; see below what there is."
    found = lines(report.pair)
    return verdict(found, report.reference, report.pair[-1], report.differences)


def _remarks(report: Report) -> Markup | None:
    if not report.pair:
        return None
    found = remarks(lines(report.pair), report.reference, report.pair[-1], report.differences)
    where = (curves.where_refusal_arises(arm) for arm in report.pair)
    found += [("Where refusal of text arises", text) for text in where if text]
    parts = [tag("li", tag("b", f"{about}. "), text) for about, text in found]
    return tag("ul", parts, class_="remarks") if parts else None


def _headlines(report: Report) -> Markup:
    found = lines(report.pair)
    if not found:
        return evidence.absent("No figures: there is no evaluate/metrics.json (job evaluate).")
    first = {line.headline.key: line for line in reversed(found)}
    tiles = [_tile(first[key], report.pair) for key in TILES if key in first]
    table = headline_table(report)
    parts = [*_warnings(report), tag("div", tiles, class_="tiles"), to_html(table)]
    lacking = [key for key in TILES if key not in first]
    if lacking:
        text = f"Not measured here: {', '.join(words(key) for key in lacking)}."
        parts.append(evidence.absent(text))
    return join(parts)


def _warnings(report: Report) -> list[Markup]:
    """What makes the figures incomplete, or the two models hard to compare."""
    found = [
        f"{arm.name}: {words(row['metric'])} in {row['benchmark']}: {row['value']:g} of "
        f"{row['count']}. The figures leave these out."
        for arm in report.pair
        for row in arm.rows
        if row["metric"] in COUNTS and row["scene"] == ALL and row["value"]
    ]
    differing = evidence.differing_settings(report.pair)
    if differing:
        names = ", ".join(differing)
        found.append(f"The two models were not asked in the same way; they differ in: {names}.")
    return [tag("p", text, class_="warning") for text in found]


def _tile(line: Line, arms: Sequence[Arm]) -> Markup:
    aim = "higher is better" if line.headline.higher_is_better else "lower is better"
    where = " / ".join(words(part) for part in (line.benchmark, line.scene) if part)
    figures = []
    for place, arm in reversed(list(enumerate(arms, start=2 - len(arms)))):
        figure, metric = line.of(arm), line.headline.metric
        if figure is None:
            continue
        text = figure_text(metric, figure)
        big = "big" if place == 1 else "small"
        figures.append(
            tag("div",
                tag("div", tag("span", class_=f"swatch arm{place}"),
                    tag("span", arm.name, class_="name"), class_="who"),
                tag("span", value_text(metric, figure.value), class_=big), " ",
                tag("span", interval_text(metric, figure), class_="range-text"),
                strip(Bar(figure.value, figure.low, figure.high, place, text),
                      title=f"{arm.name}: {text}"),
                class_="figure")
        )  # fmt: skip
    where = f"{aim} \u00b7 {where}" if where else aim
    return tag("div", tag("h3", line.headline.label), tag("p", where, class_="aim"), figures,
               class_="tile")  # fmt: skip


def headline_table(report: Report) -> Table:
    """A row a headline: every arm of the pair, and the difference."""
    names = [arm.name for arm in report.pair]
    two = report.reference is not None
    rows = []
    for line in lines(report.pair):
        metric = line.headline.metric
        where = "/".join(part for part in (line.benchmark, line.scene) if part)
        cells = [figure_text(metric, line.of(arm)) for arm in report.pair]
        if two:
            difference = report.differences.get(line.place)
            cells.append(difference_text(metric, difference.figure if difference else None))
        counts = [figure.count for arm in report.pair if (figure := line.of(arm))]
        cells.append(str(counts[-1]) if counts and counts[-1] else "\u2013")
        rows.append((line.headline.label, where, *cells))
    header = ("Figure", "Benchmark/scene", *names, *(("Difference",) if two else ()), "n")
    caption = "Headline figures with 95% intervals"
    caption += "; differences in percentage points, on the same questions" if two else ""
    return Table(caption, header, rows, numbers=2)


def arms_table(report: Report) -> Table | None:
    """A row an arm, where there are more than two: one table of all headlines."""
    arms = report.run.arms
    if len(arms) < 3:
        return None
    found = list(first_lines(arms).values())
    rows = [
        (arm.name, *(figure_text(line.headline.metric, line.of(arm)) for line in found))
        for arm in arms
    ]
    header = ("Arm", *(line.headline.label for line in found))
    return Table("All arms, with 95% intervals", header, rows)


def _all_arms(report: Report) -> Markup | None:
    table = arms_table(report)
    if table is None:
        return None
    names = [arm.name for arm in report.pair]
    return join([to_html(table), trade_off(report.run.arms, names)])


def over_seeds_tables(report: Report) -> list[Table]:
    """Means over the seeds, where arms were trained with several."""
    return seeds_tables(report.run.arms, [arm.name for arm in report.pair])


def _over_seeds(report: Report) -> Markup | None:
    found = over_seeds_tables(report)
    return join(to_html(table) for table in found) if found else None


def paired_table(report: Report) -> Table | None:
    """Every difference on the same questions, with McNemar's exact p-value where it fits."""
    if report.reference is None or not report.differences:
        return None
    groups = list(dict.fromkeys(place[:2] for place in report.differences))
    found = sorted(report.differences.items(), key=lambda item: groups.index(item[0][:2]))
    rows = [evidence.paired_row(place, difference) for place, difference in found]
    reference, candidate = (arm.name for arm in report.pair)
    header = ("Benchmark/scene", "Figure", "Difference", f"only {candidate}", f"only {reference}",
              "p", "n")  # fmt: skip
    caption = f"{candidate} minus {reference}, in percentage points (AUC: as it is)"
    return Table(caption, header, rows, numbers=2)
