"""Charts for pages. Colours come from the page's style: classes arm0, arm1.

Bars are HTML with the strokes as SVG in percent of the room that is left, so that a label of any
length and font has a place. Lines and points are SVG; their margins follow their labels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tga_jax.html.formats import number_text
from tga_jax.html.render import render

# All lengths are in the SVG's own units; a chart is at most that many CSS pixels wide.
WIDTH = 480
BAR = 11
LETTER = 7.0  # the width of a tick's letter in a wide font
RIGHT, TOP, BOTTOM = 24, 10, 38  # around a chart with axes; the left follows the labels
LABEL_STEP = 16  # between the numbers beside a scatter chart
DASHES = ("", "6 4", "2 3", "9 3 2 3")


@dataclasses.dataclass(frozen=True)
class Bar:
    """A value of 0..1 and its interval; `arm` 0 or 1 is its colour, `text` stands behind it."""

    value: float
    low: float | None
    high: float | None
    arm: int
    text: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Bars under one label; without bars, a heading over the groups that follow."""

    label: str
    bars: tuple[Bar, ...] = ()


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: its points by x, its colour and its place among DASHES.

    band: (x, low, high) of the points whose interval is known; drawn behind the line.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    arm: int
    dash: int = 0
    band: tuple[tuple[float, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Point:
    """A named place of two shares; `arm` 0 or 1 is its colour, `text` its tooltip."""

    name: str
    x: float
    y: float
    arm: int | None
    text: str


@dataclasses.dataclass(frozen=True)
class Axes:
    """The frame of a chart: both scales, and where the ticks and the label stand."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    left: float
    right: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_label: str


def linear(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The straight map of low..high to start..stop; the middle where low is high."""
    if high == low:
        return lambda value: (start + stop) / 2
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most so many round numbers (1, 2, 2.5 or 5 times a power of ten) inside low..high."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(step * number, 12) for number in range(first, last + 1)]
    raise AssertionError("a step of 20 times the power is always enough")


# --- bars ---


def bar_chart(groups: Sequence[Group], *, title: str) -> Markup:
    """Horizontal bars of shares, 0% to 100%, with their intervals as whiskers."""
    return render("bar_chart.html", groups=groups, title=title, height=BAR)


def strip(bar: Bar, *, title: str) -> Markup:
    """A share on a line of 0..1: a dot for the value, a thick stroke for its interval."""
    return render("strip.html", bar=bar, title=title)


# --- lines ---


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    height: int = 230,
    width: int = WIDTH,
    markers: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> Markup:
    """Lines over a common x, both axes as wide as the values and their intervals need.

    Args:
        series: the lines.
        title: for those who hear the page.
        x_label: what the x axis says.
        height, width: of the chart, in its own units.
        markers: whether every point has a dot.
        attributes: more ones of the <svg>, where it stands inside another.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [y for line in series for _, *ends in line.band for y in ends]
    axes = _axes((min(xs), max(xs)), padded(min(ys), max(ys)), x_label, width, height)
    return render(
        "line_chart.svg",
        lines=[_line(line, axes, markers) for line in series],
        axes=axes,
        title=title,
        width=width,
        height=height,
        attributes=attributes or {},
    )


def _line(line: Series, axes: Axes, markers: bool) -> dict[str, Any]:
    """A line as the template draws it."""
    upper = [(axes.x(at), axes.y(high)) for at, _, high in line.band]
    lower = [(axes.x(at), axes.y(low)) for at, low, _ in reversed(line.band)]
    dots = [
        (axes.x(at), axes.y(value), f"{axes.x_label} {number_text(at)}: {number_text(value)}")
        for at, value in line.points
    ]
    return {
        "name": line.name,
        "arm": line.arm,
        "dash": DASHES[line.dash % len(DASHES)],
        "path": _path((x, y) for x, y, _ in dots),
        "band": f"{_path(upper + lower)}Z" if line.band else None,
        "dots": dots if markers else (),
    }


def _path(points: Any) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def scatter_chart(points: Sequence[Point], *, title: str, x_label: str) -> Markup:
    """Named points of two shares, both axes in percent and as wide as they need.

    Every point has a number at the right edge, where numbers can't meet, and a list below says
    which model each number is.
    """
    height = max(300, LABEL_STEP * len(points) + TOP + BOTTOM)
    xs, ys = [100 * point.x for point in points], [100 * point.y for point in points]
    ranges = padded(min(xs), max(xs)), padded(min(ys), max(ys))
    axes = _axes(*ranges, f"{x_label}, %", WIDTH, height, right=48)
    order = sorted(points, key=lambda point: (-point.y, point.x))
    places = _apart([axes.y(100 * point.y) for point in order], TOP + 6, axes.bottom)
    return render(
        "scatter_chart.html",
        points=[
            {"point": point, "x": axes.x(100 * point.x), "y": axes.y(100 * point.y), "label_y": at}
            for point, at in zip(order, places, strict=True)
        ],
        axes=axes,
        title=title,
        width=WIDTH,
        height=height,
    )


def _apart(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Increasing places near the wanted ones, LABEL_STEP apart and inside low..high."""
    places: list[float] = []
    for number, place in enumerate(wanted):
        least = places[-1] + LABEL_STEP if places else low
        most = high - LABEL_STEP * (len(wanted) - 1 - number)
        places.append(min(max(place, least), most))
    return places


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with some air; one without extent gets some. Nothing but 0 may be of shares."""
    if low == high == 0:
        return 0.0, 1.0
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def _axes(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    width: int,
    height: int,
    *,
    right: int = RIGHT,
) -> Axes:
    """Scales that leave room for the longest label on the left."""
    y_texts = [(value, number_text(value)) for value in ticks(*y_range)]
    left = 14 + LETTER * max(len(text) for _, text in y_texts)
    x = linear(*x_range, left, width - right)
    y = linear(*y_range, height - BOTTOM, TOP)
    found = ticks(*x_range, most=6)
    whole = [value for value in found if value == int(value)] or found
    return Axes(
        x=x,
        y=y,
        left=left,
        right=width - right,
        bottom=height - BOTTOM,
        x_ticks=tuple((x(value), number_text(value)) for value in whole),
        y_ticks=tuple((y(value), text) for value, text in y_texts),
        x_label=x_label,
    )


def dash_sample(dash: int, arm: int, attributes: Mapping[str, Any] | None = None) -> Markup:
    """A short piece of a line, for a legend."""
    look = {"arm": arm, "dash": DASHES[dash % len(DASHES)]}
    return render("dash_sample.svg", attributes=attributes or {}, **look)
