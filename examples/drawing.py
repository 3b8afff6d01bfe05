"""What the examples' drawings have in common: their look, their file, and their command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def axes_of(width: float, height: float, panels: int = 1, rows: int = 1, **grid: Any) -> Any:
    """Axes of a new drawing, in inches; no window is opened.

    Args:
        width: of the drawing.
        height: of the drawing.
        panels: side by side; several of them are an array of axes.
        rows: of panels, one below the other.
        grid: more about their places, as matplotlib's `subplots` takes it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, panels, figsize=(width, height), **grid)[1]


def save(axes: Any, out: Path, *, x_label: str, y_label: str, **legend: Any) -> None:
    """Writes the drawing, with names of its axes and a legend."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(**legend)
    axes.grid(alpha=0.3)
    axes.figure.tight_layout()
    axes.figure.savefig(out, dpi=110)


def options(description: str | None, out: str) -> argparse.Namespace:
    """The command line: a run's workdir, and where its drawing goes.

    Args:
        description: the docstring whose first line `--help` shows.
        out: the file where none is named.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser.parse_args()
