"""The rows of layers.csv: a figure of one set of prompts at one layer, read back for charts."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LayerValue:
    """A line of analyze/layers.csv: a metric of a set of samples at a layer.

    low, high: the ends of its 95% interval, where it has one.
    count: how many samples it is of, where that was recorded.
    """

    set: str
    layer: int
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


def read_layers(path: Path) -> list[LayerValue]:
    """The rows of a layers.csv with a finite value; none where there is no file."""
    if not path.exists():
        return []
    found = []
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    for number, row in enumerate(reader, start=2):
        try:
            value = float(row["value"]) if row["value"] else math.nan
            low, high = (float(row[end]) if row.get(end) else None for end in ("low", "high"))
            count = int(row["count"]) if row.get("count") else None
            point = LayerValue(
                row["set"], int(row["layer"]), row["metric"], value, low, high, count
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: line {number}: it needs the columns set, layer, metric, value"
            ) from error
        found += [point] if math.isfinite(value) else []
    return found


LAYERS = {
    "image_caption_cos": "Cosine of image and caption states",
    "image_caption_cos_centred": "Cosine of image and caption states, centred",
    "apology_top1_share": "Share of samples for which an apology token comes first",
    "first_safety_layer_share": "Share of samples whose safety sets in at the layer",
    "apology_log_prob": "Log-probability of an apology as next word",
    "refusal_direction": "Projection on the refusal direction",
}


FEW_REFUSED = 10  # texts that begin with an apology, below which their mean says little


def notes(summary: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> what its chart must say; `summary` is analyze/summary.json."""
    found = summary.get("direction") or {}
    if not found or min(found["apology_first"], found["other"]) >= FEW_REFUSED:
        return {}
    refused, other = found["apology_first"], found["other"]
    return {
        "refusal_direction": f"it rests on {refused} {found['kind']} for which an apology token "
        f"comes first and {other} others, which is few"
    }


Points = tuple[tuple[float, float], ...]


Band = tuple[tuple[float, float, float], ...]


def over_layers(values: Sequence[LayerValue], name: str, metric: str) -> Points:
    """The points of a set and a metric; layer -1 (samples that no layer turns) is no point."""
    return tuple((float(v.layer), v.value) for v in _of_set(values, name, metric))


def layer_band(values: Sequence[LayerValue], name: str, metric: str) -> Band:
    """The intervals of the same points."""
    return tuple(
        (float(v.layer), v.low, v.high)
        for v in _of_set(values, name, metric)
        if v.low is not None and v.high is not None
    )


def _of_set(values: Sequence[LayerValue], name: str, metric: str) -> list[LayerValue]:
    chosen = (v for v in values if (v.set, v.metric) == (name, metric) and v.layer >= 1)
    return sorted(chosen, key=lambda v: v.layer)
