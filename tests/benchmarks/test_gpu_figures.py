"""The script of all of a GPU's figures, played on a CPU at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
OURS = ["attention_xla"] + [f"remat_{r}_batch_{b}" for r in ("dots", "full") for b in (2, 4)]


def test_every_part_of_the_script_leaves_its_figures(tmp_path: Path) -> None:
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "benchmarks/gpu_figures.sh", str(tmp_path), "tiny"],
        cwd=ROOT,
        env={**os.environ, "PATH": paths},
        capture_output=True,
        text=True,
    )
    parts = [line.split(":") for line in (tmp_path / "parts.txt").read_text().splitlines()]
    assert [name for name, _ in parts] == ["check", "small", "large", *OURS], done.stderr
    assert all(how.startswith(" rc 0 ") for _, how in parts), parts
    checks = [json.loads(line) for line in (tmp_path / "check.json").read_text().splitlines()]
    assert all(case["within_bound"] for case in checks) and len(checks) == 4
    for name in ("small", "large"):
        for result in json.loads((tmp_path / f"{name}.json").read_text()):
            assert result["largest_relative_difference_of_losses"] < 1e-4
    for name in OURS:
        (result,) = json.loads((tmp_path / f"{name}.json").read_text())
        assert set(result["arms"]) == {"tga_jax"}
