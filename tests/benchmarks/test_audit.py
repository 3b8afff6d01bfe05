"""The benchmark of an audit, in small: all three ways of answering say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def test_the_whole_benchmark_in_small() -> None:
    command = [sys.executable, "-m", "benchmarks.audit", "--small", "--whole-batches"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["same_answers"] == {"tga_jax": "20 of 20", "whole batches": "20 of 20"}
    assert 1 < result["answer_tokens"]["mean"] < result["answer_tokens"]["longest"]  # unequal
    assert result["ratio"] > 0 and len(result["ratios"]) == 2
