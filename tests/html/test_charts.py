"""Chart geometry against plain arithmetic, markup that escapes, tables that a paper takes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tga_jax.html import charts
from tga_jax.html.charts import Bar, Group, Series, bar_chart, line_chart, ticks
from tga_jax.html.formats import Figure, difference_text, figure_text, p_text, seconds_text
from tga_jax.html.markup import Markup, tag
from tga_jax.html.tables import Table, to_html, to_latex, to_markdown
from tga_jax.report.examples import spaced

HOSTILE = "<b>|a_b & 50% $x \\ [y]"


def test_a_bar_is_as_long_as_its_value_and_its_whisker_ends_at_the_interval() -> None:
    bars = (Bar(0.25, 0.1, 0.5, 0, "one"), Bar(1.0, 0.9, 1.0, 1, "two"))
    root = ET.fromstring(bar_chart([Group("scene", bars)], title="t"))
    span = charts.WIDTH - charts.LABEL_WIDTH - charts.VALUE_WIDTH
    first, second = (rect.attrib for rect in root.iter("rect"))
    assert float(first["x"]) == charts.LABEL_WIDTH == float(second["x"])
    assert float(first["width"]) == pytest.approx(0.25 * span)
    assert float(second["width"]) == pytest.approx(span)
    assert float(second["y"]) - float(first["y"]) == charts.BAR + charts.GAP
    whisker = [line.attrib for line in root.iter("line") if line.attrib["class"] == "whisker"]
    assert float(whisker[0]["x1"]) == pytest.approx(charts.LABEL_WIDTH + 0.1 * span)
    assert float(whisker[0]["x2"]) == pytest.approx(charts.LABEL_WIDTH + 0.5 * span)
    middle = float(first["y"]) + charts.BAR / 2
    assert {float(whisker[0][k]) for k in ("y1", "y2")} == {middle}
    assert [float(w["x1"]) for w in whisker[1:3]] == [float(whisker[0][k]) for k in ("x1", "x2")]


def test_a_line_goes_through_its_points() -> None:
    points = ((1.0, 0.2), (2.0, 0.8), (3.0, 0.5))
    root = ET.fromstring(line_chart([Series("s", points, 1)], title="t", x_label="layer"))
    dots = [dot.attrib for dot in root.iter("circle")]
    low, high = 0.2 - 0.036, 0.8 + 0.036  # 6% of the range on both sides
    for (x, y), dot in zip(points, dots, strict=True):
        width, height = charts.WIDTH - charts.LEFT - charts.RIGHT, 230 - charts.TOP - charts.BOTTOM
        assert float(dot["cx"]) == pytest.approx(charts.LEFT + (x - 1) / 2 * width, abs=0.01)
        at = 230 - charts.BOTTOM - (y - low) / (high - low) * height
        assert float(dot["cy"]) == pytest.approx(at, abs=0.01)


def test_a_band_has_the_corners_of_its_intervals_and_the_axis_holds_them() -> None:
    points, band = ((1.0, 0.2), (2.0, 0.8)), ((1.0, 0.0, 0.4), (2.0, 0.7, 1.0))
    chart = line_chart([Series("s", points, 1, band=band)], title="t", x_label="layer")
    paths = [path.attrib for path in ET.fromstring(chart).iter("path")]
    found = next(path["d"] for path in paths if path["class"] == "band arm1")
    corners = [tuple(map(float, c.split())) for c in found.strip("MZ").split(" L")]
    low, high = -0.06, 1.06  # 6% of the intervals' range on both sides
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
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
    made = tag("p", HOSTILE, tag("b", "x"), Markup("<i></i>"), title='"<', class_=None)
    assert made == ('<p title="&quot;&lt;">&lt;b&gt;|a_b &amp; 50% $x \\ [y]<b>x</b><i></i></p>')


def test_a_table_survives_hostile_cells_in_every_form() -> None:
    table = Table("c_1", ("name", "value"), [(HOSTILE, "1.0%")])
    assert "<b>" not in to_html(table) and "&lt;b&gt;" in to_html(table)
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
