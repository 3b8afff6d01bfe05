"""The tables of job analyze are made in one pass over the samples: memory does not follow them."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np

from tga_jax.analysis.tables import MEANS, PARTIAL, write_tables

LAYERS = 4


def _peak_bytes(folder: Path, samples: int) -> int:
    """Of `write_tables` on so many samples, which are written beforehand."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / PARTIAL).open("w") as file:
        file.write("{}\n")
        for number in range(samples):
            line = {
                "id": number,
                "set": "harmful_images",
                "benchmark": "b",
                "first_layer": -1 if number % 2 else 3,
                "refused": number % 2 == 0,
                "apology_top1": [False, False, number % 2 == 0, False],
                **{name: rng.random(LAYERS).tolist() for name in MEANS},
            }
            file.write(json.dumps(line) + "\n")
    tracemalloc.start()
    write_tables(folder, {}, (1,), {"profile": "none"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    _peak_bytes(tmp_path / "warm", 10)
    few, many = (_peak_bytes(tmp_path / str(n), n) for n in (50, 2000))
    size = (tmp_path / "2000" / PARTIAL).stat().st_size
    assert many - few < size / 20
    with (tmp_path / "2000" / "layers.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "first_safety_layer_share"]
    shares = {int(row["layer"]): float(row["value"]) for row in rows}
    assert shares == {-1: 0.5, 1: 0.0, 2: 0.0, 3: 0.5, 4: 0.0}
    first = json.loads((tmp_path / "2000" / "summary.json").read_text())["sets"]["harmful_images"]
    assert first == {"count": 2000, "apology_first": 1000, "none": 1000, "first_layer": {"3": 1000}}
