"""Charts as SVG. Colours come from the page's style: classes arm0, arm1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from tga_jax.html.formats import number_text
from tga_jax.html.markup import Child, Markup, tag

# All lengths are in the SVG's own units; a chart is at most that many CSS pixels wide.
WIDTH = 480
LABEL_WIDTH, VALUE_WIDTH, BAR, GAP, GROUP_GAP, AXIS = 128, 52, 11, 3, 13, 24
LABEL_LETTERS = 20
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 10, 34  # around a line chart
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
    x = linear(0, 1, LABEL_WIDTH, WIDTH - VALUE_WIDTH)
    parts, y = [], 4.0
    for group in groups:
        height = len(group.bars) * (BAR + GAP) - GAP if group.bars else BAR
        parts.append(_label(group, y + height / 2))
        for place, bar in enumerate(group.bars):
            parts += _bar(bar, x, y + place * (BAR + GAP))
        y += height + (GROUP_GAP if group.bars else 8)
    bottom = y - GROUP_GAP + 7
    grid = [
        (
            tag("line", class_="grid", x1=x(share), x2=x(share), y1=0, y2=bottom),
            tag("text", f"{share:.0%}", class_="tick", x=x(share), y=bottom + 14,
                text_anchor="middle"),
        )
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]  # fmt: skip
    return _svg(WIDTH, bottom + AXIS, title, [grid, parts])


def _label(group: Group, middle: float) -> Markup:
    """Left of the bars; a heading is bold and starts at the left edge."""
    if not group.bars:
        return tag("text", group.label, class_="heading", x=0, y=middle + 4)
    short = group.label
    if len(short) > LABEL_LETTERS:
        short = short[: LABEL_LETTERS - 1] + "\u2026"
    place = {"x": LABEL_WIDTH - 10, "y": middle + 4, "text_anchor": "end"}
    return tag("text", tag("title", group.label), short, class_="label", **place)


def _bar(bar: Bar, x: Callable[[float], float], y: float) -> list[Markup]:
    parts = [
        tag("rect", tag("title", bar.text), class_=f"bar arm{bar.arm}", x=x(0), y=y,
            width=x(bar.value) - x(0), height=BAR),
    ]  # fmt: skip
    end = bar.value
    if bar.low is not None and bar.high is not None:
        parts += _whisker(x(bar.low), x(bar.high), y + BAR / 2)
        end = max(end, bar.high)
    text = {"class_": "value", "x": x(end) + 6, "y": y + BAR - 1.5}
    return [*parts, tag("text", f"{100 * bar.value:.1f}%", **text)]


def _whisker(low: float, high: float, y: float) -> list[Markup]:
    """A line from end to end, with a stroke across at both."""
    ends = [tag("line", class_="whisker", x1=x, x2=x, y1=y - 3, y2=y + 3) for x in (low, high)]
    return [tag("line", class_="whisker", x1=low, x2=high, y1=y, y2=y), *ends]


def strip(bar: Bar, *, title: str, width: int = 220) -> Markup:
    """A share on a line of 0..1: a dot for the value, a thick stroke for its interval."""
    x, middle = linear(0, 1, 5, width - 5), 6.0
    parts = [tag("line", class_="track", x1=x(0), x2=x(1), y1=middle, y2=middle)]
    if bar.low is not None and bar.high is not None:
        ends = {"x1": x(bar.low), "x2": x(bar.high), "y1": middle, "y2": middle}
        parts.append(tag("line", class_=f"range arm{bar.arm}", **ends))
    parts.append(tag("circle", class_=f"dot arm{bar.arm}", cx=x(bar.value), cy=middle, r=4.5))
    return _svg(width, 12, title, parts, css="strip")


# --- lines ---


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    height: int = 230,
    width: int = WIDTH,
    markers: bool = True,
) -> Markup:
    """Lines over a common x, both axes as wide as the values and their intervals need."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [y for line in series for _, *ends in line.band for y in ends]
    low, high = padded(min(ys), max(ys))
    x = linear(min(xs), max(xs), LEFT, width - RIGHT)
    y = linear(low, high, height - BOTTOM, TOP)
    parts: list[Child] = [_axes(x, y, (min(xs), max(xs)), (low, high), x_label, width, height)]
    parts += [_band(line, x, y) for line in series if line.band]
    for line in series:
        places = [(x(a), y(b)) for a, b in line.points]
        path = "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        dash = DASHES[line.dash % len(DASHES)] or None
        look = {"class_": f"line arm{line.arm}", "d": path, "stroke_dasharray": dash}
        parts.append(tag("path", tag("title", line.name), **look))
        for (a, b), (at, value) in zip(places, line.points, strict=True) if markers else ():
            name = f"{line.name}, {x_label} {number_text(at)}: {number_text(value)}"
            parts.append(
                tag("circle", tag("title", name), class_=f"dot arm{line.arm}", cx=a, cy=b, r=2.6)
            )
    return _svg(width, height, title, parts)


def scatter_chart(points: Sequence[Point], *, title: str, x_label: str) -> Markup:
    """Named points of two shares, both axes in percent and as wide as they need."""
    height = 300
    xs, ys = [100 * point.x for point in points], [100 * point.y for point in points]
    x_range, y_range = padded(min(xs), max(xs)), padded(min(ys), max(ys))
    x = linear(*x_range, LEFT, WIDTH - RIGHT)
    y = linear(*y_range, height - BOTTOM, TOP)
    parts: list[Child] = [_axes(x, y, x_range, y_range, f"{x_label}, %", WIDTH, height)]
    for point in points:
        at_x, at_y = x(100 * point.x), y(100 * point.y)
        colour = "other" if point.arm is None else f"arm{point.arm}"
        dot = {"class_": f"dot {colour}", "cx": at_x, "cy": at_y, "r": 4}
        right = at_x < WIDTH * 0.62
        place = {"x": at_x + (7 if right else -7), "y": at_y + 4}
        anchor = "start" if right else "end"
        parts.append(tag("circle", tag("title", point.text), **dot))
        parts.append(tag("text", point.name, class_="tick", text_anchor=anchor, **place))
    return _svg(WIDTH, height, title, parts)


def _band(line: Series, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    """The area between both ends of the intervals."""
    upper = [f"{x(at):.1f} {y(high):.1f}" for at, _, high in line.band]
    lower = [f"{x(at):.1f} {y(low):.1f}" for at, low, _ in reversed(line.band)]
    return tag("path", class_=f"band arm{line.arm}", d="M" + " L".join(upper + lower) + "Z")


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with some air; one without extent gets some."""
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    width: int,
    height: int,
) -> list[Markup]:
    parts = []
    for value in ticks(*y_range):
        line = {"x1": LEFT, "x2": width - RIGHT, "y1": y(value), "y2": y(value)}
        parts.append(tag("line", class_="grid", **line))
        place = {"x": LEFT - 8, "y": y(value) + 4, "text_anchor": "end"}
        parts.append(tag("text", number_text(value), class_="tick", **place))
    for value in (v for v in ticks(*x_range, most=8) if v == int(v)):
        place = {"x": x(value), "y": height - BOTTOM + 15, "text_anchor": "middle"}
        parts.append(tag("text", number_text(value), class_="tick", **place))
    place = {"x": (LEFT + width - RIGHT) / 2, "y": height - 4, "text_anchor": "middle"}
    parts.append(tag("text", x_label, class_="axis", **place))
    return parts


def dash_sample(dash: int, arm: int) -> Markup:
    """A short piece of a line, for a legend."""
    look = {"class_": f"line arm{arm}", "stroke_dasharray": DASHES[dash % len(DASHES)] or None}
    line = tag("line", x1=1, x2=29, y1=6, y2=6, **look)
    return tag("svg", line, class_="sample", viewBox="0 0 30 12", aria_hidden="true")


def _svg(width: float, height: float, title: str, parts: object, css: str = "chart") -> Markup:
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", parts, class_=css, viewBox=box, role="img", aria_label=title)  # type: ignore[arg-type]
