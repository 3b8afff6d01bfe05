"""Numbers as they are written everywhere: on the page and in the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tga_jax.figure import Figure

MINUS = "\u2212"
PLAIN = ("auc", "kappa")  # metrics that are no shares
SECONDS = "seconds"  # a metric that is a time, without an interval
COUNTS = ("missing", "no_verdict", "empty", "truncated", "without_image", "no_control")


def value_text(metric: str, value: float) -> str:
    """83.1% for a share, 0.931 for an area under a curve, 0.42 s for a time."""
    if metric == SECONDS:
        return f"{number_text(float(f'{value:.2g}'))} s"
    return f"{value:.3f}" if metric in PLAIN else f"{100 * value:.1f}%"


def count_text(figure: Figure | None) -> str:
    """How many questions a figure is of; "few" where that is too few to say much."""
    if figure is None or not figure.count:
        return "\u2013"
    return f"{figure.count:,} (few)" if figure.few else f"{figure.count:,}"


def interval_text(metric: str, figure: Figure) -> str:
    """[79.0, 86.5], or nothing where there is no interval."""
    if figure.low is None or figure.high is None or metric == SECONDS:
        return ""
    if metric in PLAIN:
        return f"[{figure.low:.3f}, {figure.high:.3f}]"
    return f"[{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def figure_text(metric: str, figure: Figure | None) -> str:
    """83.1% [79.0, 86.5]; a dash where there is none."""
    if figure is None:
        return "\u2013"
    return f"{value_text(metric, figure.value)} {interval_text(metric, figure)}".rstrip()


def difference_text(metric: str, figure: Figure | None, *, unit: bool = False) -> str:
    """+35.0 [31.2, 38.8]: percentage points, or as it is for an area under a curve."""
    if figure is None:
        return "\u2013"
    digits, factor = (3, 1) if metric in PLAIN else (1, 100)
    text = signed(factor * figure.value, digits)
    if unit and metric not in PLAIN:
        text += " points"
    if figure.low is not None and figure.high is not None:
        low, high = (signed(factor * v, digits, plus="") for v in (figure.low, figure.high))
        text += f" [{low}, {high}]"
    return text


def signed(value: float, digits: int, plus: str = "+") -> str:
    """With a sign, a true minus; what rounds to zero has none."""
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return (MINUS if value < 0 else plus) + text


def p_text(p_value: float) -> str:
    """A p-value as text: three digits like 0.031, or "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def number_text(value: float) -> str:
    """Four significant digits, thousands apart: for axes and other numbers of any size."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def seconds_text(seconds: float) -> str:
    """1 h 02 min, 3 min 05 s, or 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def words(name: str) -> str:
    """A name from data as it is read: new_concept -> new concept."""
    return name.replace("_", " ")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each, as lines of aligned columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
