"""The train step's benchmark: its contenders compute the same, in a small setting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.parity
ROOT = Path(__file__).parents[2]


def test_contenders_have_the_same_losses_and_gradients() -> None:
    command = [sys.executable, "-m", "benchmarks.train_step", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    arms = {"tga_jax", "sdpa", "selected", "release"}
    assert set(result["check"]["losses"]) == set(result["cpu_seconds"]) == arms
    assert max(result["check"]["gradient_error"].values()) < 1e-5
    assert set(result["peak_gigabytes"]) == arms
