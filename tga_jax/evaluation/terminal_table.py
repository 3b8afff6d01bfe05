"""The figures of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tga_jax.evaluation.items import ALL
from tga_jax.html.formats import COUNTS, SECONDS, aligned

# Metrics that are shown for scenes too, not for everything alone.
BY_SCENE = ("dsr", "over_refusal", "refusal_rate", "accuracy")
HIDDEN = ("asr", "asr_by_", "dsr_by_", "over_refusal_by_")  # 1 - dsr, and other judges' figures


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lines of aligned columns, of rows as in metrics.json."""
    cells = [("benchmark", "scene", "metric", "value", "95% interval", "of")]
    for row in rows:
        scene, metric = row["scene"], row["metric"]
        if metric == HIDDEN[0] or metric.startswith(HIDDEN[1:]):
            continue
        if scene == ALL or (metric.removesuffix("_difference") in BY_SCENE and "/" not in scene):
            cells.append((row["benchmark"], scene, metric, *_figures(row)))
    return aligned(cells)


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["metric"] in COUNTS:
        return f"{row['value']:.0f}", row.get("unit", ""), str(row["count"])
    if row["metric"] == SECONDS:
        compiling = "with compiling" if row.get("with_compiling") else ""
        return f"{row['value']:.3g}", compiling, str(row["count"])
    low, high = row["interval"]
    interval = f"{low:.3f} .. {high:.3f}"
    if "p_value" in row:
        interval += f"  p={row['p_value']:.2g}"
    return f"{row['value']:.3f}", interval, str(row["count"])
