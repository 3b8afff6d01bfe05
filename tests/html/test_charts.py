"""Chart geometry against plain arithmetic, markup that escapes, tables that a paper takes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from jinja2 import UndefinedError

from tga_jax.figure import Figure
from tga_jax.html import charts
from tga_jax.html.charts import (
    Bar,
    Group,
    Point,
    Series,
    bar_chart,
    line_chart,
    scatter_chart,
    strip,
    ticks,
)
from tga_jax.html.formats import difference_text, figure_text, p_text, seconds_text
from tga_jax.html.render import render
from tga_jax.html.tables import Table, Term, to_html, to_latex, to_markdown
from tga_jax.report.examples import spaced

HOSTILE = "<b>|a_b & 50% $x \\ [y]"


def test_a_bar_is_as_long_as_its_value_and_its_whisker_ends_at_the_interval() -> None:
    bars = (Bar(0.25, 0.1, 0.5, 0, "one"), Bar(1.0, None, None, 1, "two"))
    root = ET.fromstring(bar_chart([Group("a scene", bars)], title="t"))
    rects = [rect.attrib for rect in root.iter("rect")]
    assert [(rect["x"], rect["width"]) for rect in rects] == [("0", "25%"), ("0", "100%")]
    whisker = [line.attrib for line in root.iter("line") if line.attrib["class"] == "whisker"]
    ends = [(line["x1"], line["x2"]) for line in whisker]
    assert ends == [("10%", "50%"), ("10%", "10%"), ("50%", "50%")]
    middle = float(rects[0]["y"]) + charts.BAR / 2
    assert {float(whisker[0][key]) for key in ("y1", "y2")} == {middle}
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert texts == ["a scene", "one", "25.0%", "two", "100.0%", "0%", "50%", "100%"]


def grid_left(root: ET.Element) -> float:
    """Where the room for the lines begins."""
    return next(float(line.attrib["x1"]) for line in root.iter("line"))


def test_long_labels_get_room_on_the_left() -> None:
    def left(high: float) -> float:
        series = [Series("s", ((0.0, 0.0), (1.0, high)), 1)]
        return grid_left(ET.fromstring(line_chart(series, title="t", x_label="x")))

    assert left(1e9) - left(10.0) >= 7 * len(",000,000")  # as wide as a wide font's letters


def test_numbers_beside_a_scatter_chart_are_apart_and_inside() -> None:
    points = [Point(f"model {i}", 0.5, 0.5 + 0.001 * (i % 3), None, "") for i in range(40)]
    root = ET.fromstring(f"<x>{scatter_chart(points, title='t', x_label='x')}</x>")
    height = float(root[0].attrib["viewBox"].split()[-1])
    texts = [t for t in root.iter("text") if t.attrib["class"] == "tick" and t.text]
    places = [float(t.attrib["y"]) for t in texts if t.attrib["x"] == str(charts.WIDTH - 22)]
    assert len(places) == 40 and min(places) > 0 and max(places) < height
    assert min(b - a for a, b in zip(places, places[1:], strict=False)) >= charts.LABEL_STEP - 0.01
    assert {item.text for item in root.iter("li")} == {point.name for point in points}


def test_a_line_goes_through_its_points() -> None:
    points = ((1.0, 0.2), (2.0, 0.8), (3.0, 0.5))
    root = ET.fromstring(line_chart([Series("s", points, 1)], title="t", x_label="layer"))
    dots = [dot.attrib for dot in root.iter("circle")]
    low, high = 0.2 - 0.036, 0.8 + 0.036  # 6% of the range on both sides
    left = grid_left(root)
    for (x, y), dot in zip(points, dots, strict=True):
        width, height = charts.WIDTH - left - charts.RIGHT, 230 - charts.TOP - charts.BOTTOM
        assert float(dot["cx"]) == pytest.approx(left + (x - 1) / 2 * width, abs=0.01)
        at = 230 - charts.BOTTOM - (y - low) / (high - low) * height
        assert float(dot["cy"]) == pytest.approx(at, abs=0.01)


def test_a_band_has_the_corners_of_its_intervals_and_the_axis_holds_them() -> None:
    points, band = ((1.0, 0.2), (2.0, 0.8)), ((1.0, 0.0, 0.4), (2.0, 0.7, 1.0))
    chart = line_chart([Series("s", points, 1, band=band)], title="t", x_label="layer")
    root = ET.fromstring(chart)
    paths = [path.attrib for path in root.iter("path")]
    found = next(path["d"] for path in paths if path["class"] == "band arm1")
    corners = [tuple(map(float, c.split())) for c in found.strip("MZ").split(" L")]
    low, high = -0.06, 1.06  # 6% of the intervals' range on both sides
    left, right = grid_left(root), charts.WIDTH - charts.RIGHT
    height = 230 - charts.TOP - charts.BOTTOM
    for corner, x, value in zip(
        corners, (left, right, right, left), (0.4, 1.0, 0.7, 0.0), strict=True
    ):
        at = 230 - charts.BOTTOM - (value - low) / (high - low) * height
        assert corner == pytest.approx((x, at), abs=0.06)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.13, 0.41, [0.2, 0.3, 0.4]),
        (1, 1, [1]),
        (-3, 12, [0, 5, 10]),
        (0, 1000, [0, 250, 500, 750, 1000]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_text_is_escaped_and_markup_is_not() -> None:
    made = strip(Bar(0.5, None, None, 1, ""), title=f'"{HOSTILE}')
    assert "<b>" not in made and "&#34;&lt;b&gt;|a_b &amp; 50%" in made
    inside = render("tables.html", lead=HOSTILE, tables=[made], folded=[(HOSTILE, made)])
    assert "<b>" not in inside and inside.count("<svg") == 2


def test_a_name_that_nobody_gave_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("strip.html", title="t")


def test_a_table_survives_hostile_cells_in_every_form() -> None:
    table = Table("c_1", ("name", "value"), [(HOSTILE, "1.0%")])
    assert "<b>" not in to_html(table) and "&lt;b&gt;" in to_html(table)
    linked = to_html(Table("c", ("name",), [(Term(HOSTILE, "auc"),)]))
    assert '<a class="term" href="#term-auc">&lt;b&gt;' in linked and "<b>" not in linked
    row = to_markdown(table).splitlines()[-1]
    assert row == "| &lt;b&gt;\\|a_b & 50% $x \\\\ [y] | 1.0% |"
    tex = r"\textless{}b\textgreater{}\textbar{}a\_b \& 50\% \$x \textbackslash{} {[}y{]} & 1.0\%"
    assert tex + " \\\\\n" in to_latex(table)


def test_numbers_are_written_one_way() -> None:
    assert figure_text("dsr", Figure(0.831, 0.79, 0.865)) == "83.1% [79.0, 86.5]"
    assert figure_text("auc", Figure(0.9312, 0.9, 0.95)) == "0.931 [0.900, 0.950]"
    assert figure_text("dsr", Figure(0.5)) == "50.0%" and figure_text("dsr", None) == "\u2013"
    difference = Figure(-0.0213, -0.04, 0.0001)
    assert difference_text("dsr", difference, unit=True) == "\u22122.1 points [\u22124.0, 0.0]"
    assert p_text(0.00001) == "< 0.001" and p_text(0.0312) == "0.031"
    assert [seconds_text(s) for s in (4.25, 185, 3720)] == ["4.2 s", "3 min 05 s", "1 h 02 min"]


def test_examples_are_spaced_evenly() -> None:
    assert spaced(10, 2) == [2, 7] and spaced(3, 9) == [0, 1, 2] and spaced(5, 0) == []
