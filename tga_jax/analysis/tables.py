"""What job `analyze` writes: a line a sample, a table over the layers, its summary, its charts."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.analysis.charts import layer_charts
from tga_jax.analysis.layer_values import LayerValue
from tga_jax.analysis.logit_lens import NONE, locate
from tga_jax.analysis.prompts import SETS, Prompt
from tga_jax.errors import UserError
from tga_jax.evaluation.metrics import Z95, wilson
from tga_jax.files import read_log, write_json, write_jsonl, write_text

PARTIAL = "samples.partial.jsonl"  # as Work(folder, "samples", ...) names it; first its signature
HEADER = ("set", "layer", "metric", "value", "count", "low", "high")
SHARES = ("apology_top1",)
MEANS = ("apology_log_prob", "refusal_direction", "image_caption_cos", "image_caption_cos_centred")
PAIRED = ("image_caption_cos", "image_caption_cos_centred")
TEXT_SETS = ("harmful_scenes", "harmful_texts")


def sample_line(prompt: Prompt, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """A line of samples.jsonl; a figure that a sample does not have is null."""
    line: dict[str, Any] = {
        "id": prompt.item.id,
        "set": prompt.set,
        "benchmark": prompt.benchmark,
        "first_layer": int(figures["first_layer"]),
        "refused": bool(figures["refused"]),
        "apology_top1": figures["apology_top1"].tolist(),
    }
    for name in MEANS:
        values = [_number(value) for value in figures[name].tolist()]
        absent = name in PAIRED and not figures["has_pair"]
        line[name] = None if absent else values
    return line


def _number(value: float) -> float | None:
    """Seven digits are a float32's."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


# --- sums over the samples ---


@dataclasses.dataclass
class Tally:
    """Count, sum and sum of squares, float64[L] each."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, layers: int) -> Tally:
        """A tally into which no value has been counted."""
        return cls(*np.zeros((3, layers)))

    def add(self, values: Sequence[float | None]) -> None:
        """Count one value for each layer; None stands for no value."""
        row = np.array([math.nan if value is None else value for value in values])
        there = np.isfinite(row)
        row = np.where(there, row, 0.0)
        self.count, self.total = self.count + there, self.total + row
        self.squares = self.squares + row * row

    def figure(self, place: int, *, share: bool) -> tuple[float, int, float | None, float | None]:
        """Value, count and 95% interval: Wilson's for a share, the normal one for a mean."""
        count, total = int(self.count[place]), float(self.total[place])
        mean = total / count
        if share:
            return mean, count, *wilson(round(total), count)
        if count < 2:
            return mean, count, None, None
        variance = max(0.0, float(self.squares[place]) - total * mean) / (count - 1)
        half = Z95 * math.sqrt(variance / count)
        return mean, count, mean - half, mean + half


class Totals:
    """The tallies of every set and metric, and how many samples first turn at which layer."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.first: dict[str, dict[int, int]] = {}
        self.refused: dict[str, int] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Count a line of samples.jsonl in the tallies of its set."""
        name = line["set"]
        places = [NONE, *range(1, self.layers + 1)]
        first = self.first.setdefault(name, dict.fromkeys(places, 0))
        first[line["first_layer"]] += 1
        self.refused[name] = self.refused.get(name, 0) + line["refused"]
        for metric in (*SHARES, *MEANS):
            if line[metric] is not None:
                tally = self.tallies.setdefault((name, metric), Tally.of(self.layers))
                tally.add(line[metric])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows of layers.csv; layer -1 counts the samples that no layer turns to an apology."""
        for name in (name for name in SETS if name in self.first):
            for metric in (*SHARES, *MEANS):
                tally = self.tallies.get((name, metric))
                title = f"{metric}_share" if metric in SHARES else metric
                for place in range(self.layers) if tally else ():
                    assert tally is not None
                    if tally.count[place]:
                        yield name, place + 1, title, *tally.figure(place, share=metric in SHARES)
            count = sum(self.first[name].values())
            for layer, number in self.first[name].items():
                share = (number / count, count, *wilson(number, count))
                yield name, layer, "first_safety_layer_share", *share


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The lines behind the signature, one at a time."""
    yield from itertools.islice(read_log(path), 1, None)


# --- files ---


def write_tables(
    folder: Path,
    sums: dict[str, dict[str, np.ndarray]],
    apologies: Sequence[int],
    settings: dict[str, Any],
) -> None:
    """Writes samples.jsonl, layers.csv, a chart a metric and, last, summary.json."""
    partial = folder / PARTIAL
    layers = len(next(read_samples(partial))["apology_top1"])
    totals = Totals(layers)
    for line in read_samples(partial):
        totals.add(line)
    write_jsonl(folder / "samples.jsonl", read_samples(partial))
    rows = list(totals.rows())
    write_text(folder / "layers.csv", table(rows))
    for old in folder.glob("*.svg"):
        old.unlink()
    values = [LayerValue(name, layer, metric, value, low, high)
              for name, layer, metric, value, _, low, high in rows]  # fmt: skip
    for name, chart in layer_charts(values).items():
        write_text(folder / f"{name}.svg", chart)
    found = summary(totals, sums, apologies)
    if found["reason"] is not None and settings["profile"] == "none":
        found["reason"] += "; config.analyze.profile='paper' asks the model to refuse"
    write_json(folder / "summary.json", found | {"settings": settings})


def table(rows: Sequence[tuple[Any, ...]]) -> str:
    """layers.csv; an interval that is not known is empty."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for *head, value, count, low, high in rows:
        ends = ["" if end is None else f"{end:.7g}" for end in (low, high)]
        writer.writerow([*head, f"{value:.7g}", count, *ends])
    return out.getvalue()


def summary(
    totals: Totals, sums: dict[str, dict[str, np.ndarray]], apologies: Sequence[int]
) -> dict[str, Any]:
    """summary.json without its settings: the safety layers, or why there are none."""
    layers, reason = safety_layers_of(sums, apologies)
    sets = {}
    for name in (name for name in SETS if name in totals.first):
        first = totals.first[name]
        sets[name] = {
            "count": sum(first.values()),
            "refused": totals.refused[name],
            "none": first[NONE],
            "first_layer": {str(k): v for k, v in first.items() if k != NONE and v},
        }
    return {
        "safety_layers": layers,
        "reason": reason,
        "layers": totals.layers,
        "sets": sets,
    }


def safety_layers_of(
    sums: dict[str, dict[str, np.ndarray]], apologies: Sequence[int]
) -> tuple[str | None, str | None]:
    """The layers that `locate` finds in the harmful scenes and texts, or None and why."""
    found = [sums[name] for name in TEXT_SETS if name in sums]
    if not found:
        return None, "no safety layers: there are no harmful texts and no captions of images"
    count = sum(float(one["count"]) for one in found)
    ratios, leads = (sum(one[key] for one in found) / count for key in ("ratios", "leads"))
    try:
        return locate(np.asarray(ratios), np.asarray(leads), apologies), None
    except UserError as error:
        return None, str(error)
