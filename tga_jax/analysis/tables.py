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
from tga_jax.analysis.layer_values import LayerValue, notes
from tga_jax.analysis.logit_lens import NONE, locate
from tga_jax.analysis.prompts import SETS, Prompt
from tga_jax.errors import UserError
from tga_jax.evaluation.metrics import wilson
from tga_jax.files import read_log, write_json, write_jsonl, write_text

PARTIAL = "samples.partial.jsonl"  # as Work(folder, "samples", ...) names it; first its signature
HEADER = ("set", "layer", "metric", "value", "count", "low", "high")
SHARES = ("apology_top1",)
MEANS = ("apology_log_prob", "refusal_direction", "image_caption_cos", "image_caption_cos_centred")
Sums = dict[str, dict[str, np.ndarray]]
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
        """Value, count and 95% interval: Wilson's for a share, Student's for a mean."""
        count, total = int(self.count[place]), float(self.total[place])
        mean = total / count
        if share:
            return mean, count, *wilson(round(total), count)
        if count < 2:
            return mean, count, None, None
        variance = max(0.0, float(self.squares[place]) - total * mean) / (count - 1)
        from scipy import stats

        half = float(stats.t.ppf(0.975, count - 1)) * math.sqrt(variance / count)
        return mean, count, mean - half, mean + half


class Totals:
    """The tallies of every set and metric, and how many samples first turn at which layer."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.first: dict[str, dict[int, int]] = {}
        self.apology_first: dict[str, int] = {}  # at the last layer

    def add(self, line: dict[str, Any]) -> None:
        """Count a line of samples.jsonl in the tallies of its set."""
        name = line["set"]
        places = [NONE, *range(1, self.layers + 1)]
        first = self.first.setdefault(name, dict.fromkeys(places, 0))
        first[line["first_layer"]] += 1
        self.apology_first[name] = self.apology_first.get(name, 0) + line["refused"]
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
    sums: Sums,
    apologies: Sequence[int],
    settings: dict[str, Any],
    warning: str | None = None,
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
    values = [LayerValue(name, layer, metric, value, low, high, count)
              for name, layer, metric, value, count, low, high in rows]  # fmt: skip
    found = summary(totals, sums, apologies)
    for name, chart in layer_charts(values, notes(found)).items():
        write_text(folder / f"{name}.svg", chart)
    if found["reason"] is not None and settings["profile"] == "none":
        found["reason"] += "; config.analyze.profile='paper' asks the model to refuse"
    write_json(folder / "summary.json", found | {"warning": warning, "settings": settings})


def table(rows: Sequence[tuple[Any, ...]]) -> str:
    """layers.csv; an interval that is not known is empty."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for *head, value, count, low, high in rows:
        ends = ["" if end is None else f"{end:.7g}" for end in (low, high)]
        writer.writerow([*head, f"{value:.7g}", count, *ends])
    return out.getvalue()


def summary(totals: Totals, sums: Sums, apologies: Sequence[int]) -> dict[str, Any]:
    """summary.json without its settings: the safety layers, or why there are none."""
    layers, reason = safety_layers_of(sums, apologies)
    sets = {}
    for name in (name for name in SETS if name in totals.first):
        first = totals.first[name]
        sets[name] = {
            "count": sum(first.values()),
            "apology_first": totals.apology_first[name],
            "none": first[NONE],
            "first_layer": {str(k): v for k, v in first.items() if k != NONE and v},
        }
    return {
        "safety_layers": layers,
        "reason": reason,
        "layers": totals.layers,
        "sets": sets,
        "direction": direction_of(sums),
    }


def direction_of(sums: Sums) -> dict[str, Any] | None:
    """Of which texts the refusal direction is, and how many; None where there is none."""
    kind = direction_kind(sums)
    if kind is None:
        return None
    refused, count = (int(_total(sums, kind, key)) for key in ("refused", "count"))
    return {"kind": kind, "apology_first": refused, "other": count - refused}


def direction_kind(sums: Sums) -> str | None:
    """The kind of prompt that the refusal direction is of: one alone, so that it is no format's.

    "scenes" where some are refused and some answered, whose prompts are those of the images but
    for the image itself; else "texts"; None where the model treats all alike.
    """
    for kind in ("scenes", "texts"):
        refused, count = (_total(sums, kind, key) for key in ("refused", "count"))
        if 0 < refused < count:
            return kind
    return None


def _total(sums: Sums, kind: str, key: str) -> Any:
    return sum(values[key] for name, values in sums.items() if name.endswith(f"_{kind}"))


def state_mean(sums: Sums, kind: str, which: str) -> np.ndarray:
    """The mean state of the "refused" or "answered" prompts of a kind: float[L, D]."""
    refused, count = (float(_total(sums, kind, key)) for key in ("refused", "count"))
    number = refused if which == "refused" else count - refused
    return np.asarray(_total(sums, kind, f"{which}_states") / number)


def safety_layers_of(sums: Sums, apologies: Sequence[int]) -> tuple[str | None, str | None]:
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
