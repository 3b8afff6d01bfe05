"""docs/plans.md says what job `plan` finds: memory, FLOPs, traffic, roofline of the 7B rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.plans import HEAD, KINDS, ROWS, Row, cells_of, place_of, plan

PAGE = Path(__file__).parents[2] / "docs/plans.md"
MFU_ALLOWED = 0.55
H100S = [row for row in ROWS if row.topology == "h100:8"]
SLICES = [row for row in ROWS if row.topology == "v5e:4x4" and row.kind in ("finetune", "lora")]
# Nothing of a price or an assumed share of the peak.
COMPARED = [i for i, name in enumerate(HEAD) if not name.startswith(("hours", "$"))]


def published(row: Row) -> list[str]:
    """The row's cells in the page."""
    sections = PAGE.read_text().split("\n## ")
    (section,) = [text for text in sections if text.startswith(f"{KINDS[row.kind]}: ")]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    (cells,) = [cells for cells in lines if cells[0] == place_of(row)]
    return cells


def compare(row: Row, folder: Path) -> None:
    """Every cell, numbers to three per cent; the model's FLOPs may reach 55% of the peak."""
    plan(row, folder)
    found = cells_of(row, json.loads((folder / "rows" / f"{row.name}.json").read_text()))
    expected = published(row)
    for i in COMPARED:
        new, old = (cells[i].replace(",", "").replace("%", "") for cells in (found, expected))
        numbers = [text.split(" of ")[0] for text in (new, old)]
        try:
            values = [float(text) for text in numbers]
        except ValueError:
            assert new == old, HEAD[i]
            continue
        assert values[0] == pytest.approx(values[1], rel=0.03, abs=0.02), HEAD[i]
    assert float(found[HEAD.index("MFU allowed")].strip("%")) / 100 >= MFU_ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("row", H100S, ids=lambda row: row.name)
def test_plans_of_gpus_are_the_published_ones(row: Row, tmp_path: Path) -> None:
    compare(row, tmp_path)


@pytest.mark.tpu_compile
@pytest.mark.parametrize("row", SLICES, ids=lambda row: row.name)
def test_plans_of_slices_are_the_published_ones(row: Row, tmp_path: Path) -> None:
    compare(row, tmp_path)
