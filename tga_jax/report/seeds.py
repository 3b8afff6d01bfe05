"""Arms that differ in their seed alone: means over the seeds, and what the guide changes.

NAME and NAME-seed-1, NAME-seed-2, ... are one family.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tga_jax.figure import Figure
from tga_jax.html.formats import difference_text, figure_text, p_text, words
from tga_jax.html.tables import Table
from tga_jax.report.collect import Arm
from tga_jax.report.evidence import METRICS
from tga_jax.report.headlines import Place

Family = dict[int, Arm]  # seed -> arm; NAME alone is seed 0
SEED = re.compile(r"(.+)-seed-(\d+)")
# Of fewer seeds there is no interval: of two, Student's goes six times their distance beyond both.
FEWEST = 3


def family_of(name: str) -> tuple[str, int]:
    """The family and the seed that an arm's name tells."""
    match = SEED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, 0)


def families(arms: Sequence[Arm]) -> dict[str, Family]:
    """Name -> arms by seed, of those that were trained with two seeds or more."""
    found: dict[str, Family] = {}
    for arm in arms:
        name, seed = family_of(arm.name)
        found.setdefault(name, {})[seed] = arm
    return {name: family for name, family in found.items() if len(family) > 1}


def mean_figure(values: Sequence[float]) -> Figure:
    """The mean over seeds with Student's 95% interval; none of two, or where all are equal."""
    mean, count = float(np.mean(values)), len(values)
    spread = float(np.std(values, ddof=1)) if count >= FEWEST else 0.0
    if spread < 1e-12:
        return Figure(mean, count=count)
    half = float(stats.t.ppf(0.975, count - 1)) * spread / count**0.5
    return Figure(mean, mean - half, mean + half, count)


def mean_share(values: Sequence[float]) -> Figure:
    """`mean_figure` of values that lie in 0..1, as the interval then must."""
    found = mean_figure(values)
    if found.low is None:
        return found
    low, high = found.interval
    return dataclasses.replace(found, low=max(0.0, low), high=min(1.0, high))


def paired(first: Sequence[float], second: Sequence[float]) -> tuple[Figure, float | None]:
    """Second minus first, seed by seed, and the p-value of the paired t-test."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    figure = mean_figure(differences)
    if figure.low is None:
        return figure, None
    return figure, float(stats.ttest_1samp(differences, 0.0).pvalue)


def seeds_tables(arms: Sequence[Arm], pair: Sequence[str]) -> list[Table]:
    """A table a family, beside its baseline: NAME-baseline, or else that of the first of `pair`.

    A row is a figure: the means, and the difference with a test. A family that has no baseline with
    several seeds has a table of its own.
    """
    found = families(arms)
    tables, usual = [], family_of(pair[0])[0] if pair else ""
    for name, family in found.items():
        first = f"{name}-baseline" if f"{name}-baseline" in found else usual
        if name.endswith("-baseline") and name.removesuffix("-baseline") in found or name == first:
            continue
        others = {first: found[first]} if first in found else {}
        tables.append(_table(others | {name: family}))
    return tables


def _table(found: dict[str, Family]) -> Table:
    sizes, rows = [len(family) for family in found.values()], []
    common = sorted(set.intersection(*(set(family) for family in found.values())))
    compared = len(found) == 2 and bool(common)
    tested = compared and len(common) >= FEWEST
    for place in _places(list(found.values())):
        values = [_values(family, place) for family in found.values()]
        metric = place[2]
        cells = [figure_text(metric, mean_share(list(v.values()))) for v in values]
        if compared:
            first, second = values
            difference, p_value = paired(*([v[s] for s in common] for v in (first, second)))
            cells.append(difference_text(metric, difference))
            if tested:
                cells.append("\u2013" if p_value is None else p_text(p_value))
        rows.append((f"{place[0]}/{words(place[1])}", METRICS.get(metric, words(metric)), *cells))
    names = [f"{name}, {len(family)} seeds" for name, family in found.items()]
    tests = ("Difference",) * compared + ("p",) * tested
    header = ("Benchmark/scene", "Figure", *names, *tests)
    caption = "Means over seeds"
    caption += " with Student's 95% intervals" if max(sizes) >= FEWEST else ""
    caption += "; p is that of the paired t-test over seeds" if tested else ""
    return Table(caption, header, rows, numbers=2)


def _places(found: Sequence[Family]) -> list[Place]:
    """Figures that every arm of every family has, benchmark by benchmark."""
    arms = [arm for family in found for arm in family.values()]
    places = [
        (row["benchmark"], row["scene"], metric)
        for metric in METRICS
        for row in arms[0].rows
        if row["metric"] == metric
    ]
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in arms[0].rows))
    places = [place for place in places if all(arm.figure(*place) for arm in arms)]
    return sorted(dict.fromkeys(places), key=lambda place: benchmarks.index(place[0]))


def _values(family: Family, place: Place) -> dict[int, float]:
    figures = {seed: arm.figure(*place) for seed, arm in family.items()}
    return {seed: figure.value for seed, figure in figures.items() if figure is not None}
