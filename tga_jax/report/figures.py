"""Sections of the headline figures: tiles, tables, all models, seeds, paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.evaluation.items import ALL
from tga_jax.html.charts import Bar, strip
from tga_jax.html.formats import (
    SECONDS,
    Figure,
    count_text,
    difference_text,
    figure_text,
    interval_text,
    value_text,
    words,
)
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html
from tga_jax.report import evidence
from tga_jax.report.collect import Arm
from tga_jax.report.defences import marked_name
from tga_jax.report.headlines import (
    HEADLINES,
    TILES,
    Difference,
    Line,
    Place,
    difference_of,
    first_lines,
    lines,
)
from tga_jax.report.identity import evaluate_profile
from tga_jax.report.seeds import seeds_tables
from tga_jax.report.trade_off import trade_off
from tga_jax.report.warnings import warnings

Differences = Mapping[Place, Difference]
DASH = "\u2013"


def figures(arms: Sequence[Arm], differences: Differences) -> Markup | None:
    """Warnings, a tile for each of the first figures, and a table of all."""
    found = lines(arms)
    if not found:
        return None
    first = {line.headline.key: line for line in reversed(found)}
    lacking = [headline.label for headline in HEADLINES
               if headline.key in TILES and headline.key not in first]  # fmt: skip
    return render(
        "figures.html",
        warnings=warnings(arms),
        tiles=[_tile(first[key], arms) for key in TILES if key in first],
        table=to_html(headline_table(arms, differences)),
        lacking=[label[0].lower() + label[1:] for label in lacking],
    )


def _tile(line: Line, arms: Sequence[Arm]) -> dict[str, Any]:
    aim = "higher is better" if line.headline.higher_is_better else "lower is better"
    where = [words(part) for part in (line.benchmark, line.scene) if part]
    where += [f"of {', '.join(words(part.benchmark) for part in line.parts)}"] if line.parts else []
    return {
        "label": Term(line.headline.label, line.headline.metric),
        "aim": " \u00b7 ".join([aim, " / ".join(where)] if where else [aim]),
        "figures": [
            _tile_figure(line, arm, place, figure)
            for place, arm in reversed(list(enumerate(arms, start=2 - len(arms))))
            if (figure := line.of(arm)) is not None
        ],
    }


def _tile_figure(line: Line, arm: Arm, place: int, figure: Figure) -> dict[str, Any]:
    metric = line.headline.metric
    text = figure_text(metric, figure)
    bar = Bar(figure.value, figure.low, figure.high, place, text)
    profile = evaluate_profile(arm)
    notes = [f"n = {count_text(figure)}"] if figure.count else []
    notes += [f"prompt profile {profile}"] if profile != DASH else []
    return {
        "place": place,
        "name": arm.name,
        "value": value_text(metric, figure.value),
        "interval": interval_text(metric, figure),
        "strip": strip(bar, title=f"{arm.name}: {text}"),
        "note": ", ".join(notes),
    }


def headline_table(arms: Sequence[Arm], differences: Differences) -> Table:
    """A row a headline: every arm of the pair, and the difference."""
    two, rows = len(arms) == 2, []
    profiles = " / ".join(dict.fromkeys(evaluate_profile(arm) for arm in arms))
    for line in lines(arms):
        metric = line.headline.metric
        where = _place(line) + _control(line, arms)
        cells = [figure_text(metric, line.of(arm)) for arm in arms]
        if two:
            difference = difference_of(line, differences)
            cells.append(difference_text(metric, difference.figure if difference else None))
        counts = [figure for arm in arms if (figure := line.of(arm)) is not None]
        cells.append(count_text(counts[-1]))
        place = Term(where, "macro") if line.parts else where
        rows.append((Term(line.headline.label, metric), place, profiles, *cells))
    names = [arm.name for arm in arms]
    header = ("Figure", "Benchmark/scene", Term("Prompt profile", "profile"), *names,
              *((Term("Difference", "difference"),) if two else ()), Term("n", "n"))  # fmt: skip
    caption = "Headline figures with 95% intervals"
    caption += "; differences in percentage points, on the same questions" if two else ""
    return Table(caption, header, rows, numbers=3)


def arms_table(arms: Sequence[Arm]) -> Table | None:
    """A row an arm, where there are more than two or defences: one table of all headlines."""
    found, timed = list(first_lines(arms).values()), _timed(arms)
    if len(arms) < (2 if timed else 3):
        return None
    rows = [
        (marked_name(arm), evaluate_profile(arm),
         *(figure_text(line.headline.metric, line.of(arm)) for line in found),
         *(_seconds(arm, name) for name in timed))
        for arm in arms
    ]  # fmt: skip
    header = (
        "Model",
        Term("Prompt profile", "profile"),
        *(Term(f"{line.headline.label} ({_place(line)})", line.headline.metric) for line in found),
        *(Term(f"Seconds a question ({name})", SECONDS) for name in timed),
    )
    return Table("All models, with 95% intervals", header, rows, numbers=2)


def _seconds(arm: Arm, benchmark: str) -> str:
    """A question's time, marked where compiling is in it."""
    row = arm.row(benchmark, ALL, SECONDS) or {}
    mark = " (with compiling)" if row.get("with_compiling") else ""
    return figure_text(SECONDS, arm.figure(benchmark, ALL, SECONDS)) + mark


def _timed(arms: Sequence[Arm]) -> list[str]:
    """Where defences are compared, the benchmarks that say what a question costs."""
    defences = {
        str(row["settings"].get("defence") and row["settings"]["defence"].get("name"))
        for arm in arms
        for row in arm.rows
    }
    if len(defences) < 2:
        return []
    return list(
        dict.fromkeys(r["benchmark"] for a in arms for r in a.rows if r["metric"] == SECONDS)
    )


def _place(line: Line) -> str:
    return "/".join(part for part in (line.benchmark, line.scene) if part) or "summary"


def _control(line: Line, arms: Sequence[Arm]) -> str:
    """Whose harmless items a figure of the margin is against, where they are not its own."""
    rows = [row for arm in arms if (row := arm.row(*line.place))]
    names = dict.fromkeys(row.get("control", {}).get("name", "own") for row in rows)
    return f", against the harmless of {' and '.join(names)}" if set(names) - {"own"} else ""


def all_arms(arms: Sequence[Arm], pair: Sequence[Arm], notes: Sequence[str] = ()) -> Markup | None:
    """The table of all models, and what safety costs each; above it the notes."""
    table = arms_table(arms)
    if table is None and not notes:
        return None
    chart = trade_off(arms, [arm.name for arm in pair]) if table else None
    parts = [*([to_html(table)] if table else []), *([chart] if chart else [])]
    return render("tables.html", lead="", notes=notes, tables=parts, folded=[])


def over_seeds(arms: Sequence[Arm], pair: Sequence[Arm]) -> Markup | None:
    """Means over the seeds, where arms were trained with several."""
    found = seeds_tables(arms, [arm.name for arm in pair])
    tables = [to_html(table) for table in found]
    return render("tables.html", lead="", tables=tables, folded=[]) if tables else None


def paired_table(arms: Sequence[Arm], differences: Differences) -> Table | None:
    """Every difference on the same questions, with McNemar's exact p-value where it fits."""
    if len(arms) < 2 or not differences:
        return None
    groups = list(dict.fromkeys(place[:2] for place in differences))
    found = sorted(differences.items(), key=lambda item: groups.index(item[0][:2]))
    rows = [evidence.paired_row(place, difference) for place, difference in found]
    reference, candidate = (arm.name for arm in arms)
    header = ("Benchmark/scene", "Figure", Term("Difference", "difference"), f"only {candidate}",
              f"only {reference}", Term("p", "p"), Term("n", "n"))  # fmt: skip
    caption = f"{candidate} minus {reference}, in percentage points (AUC: as it is)"
    return Table(caption + evidence.under(arms), header, rows, numbers=2)


def paired_section(table: Table | None) -> Markup | None:
    """Both models on the same questions."""
    if table is None:
        return None
    lead = (
        "Both models were asked the same questions. The interval of a difference comes from "
        "drawing pairs of answers anew (paired bootstrap). Where all pairs differ alike, drawing "
        "anew gives no width, and the interval is as wide as Wilson's for none of so many. p is "
        "McNemar's exact test over the questions on which the two models differ, or over images "
        "where several questions are about one. A row without p has no such test. "
        f"The p-values are not corrected for the number of rows, which is {len(table.rows)}."
    )
    return render("tables.html", lead=lead, tables=[to_html(table)], folded=[])
