"""The train step's benchmark: its contenders compute the same, in a small setting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from benchmarks import train_step  # noqa: E402

pytestmark = pytest.mark.parity
ROOT = Path(__file__).parents[2]
ARMS = {"tga_jax", "sdpa", "selected", "release"}


@pytest.mark.slow
def test_contenders_have_the_same_losses_and_gradients(tmp_path, monkeypatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["train_step", "--small", "--vision-layers=2"])
    args = train_step.arguments()
    train_step.make(args, tmp_path)
    try:
        found = train_step.check(args, tmp_path)
    finally:
        torch.set_num_threads(threads)  # the benchmark takes all cores
    assert set(found["losses"]) == set(found["gradient_error"]) == ARMS
    assert max(found["gradient_error"].values()) < 1e-5


@pytest.mark.slow
def test_the_whole_benchmark_in_small() -> None:
    command = [sys.executable, "-m", "benchmarks.train_step", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert max(result["check"]["gradient_error"].values()) < 1e-5
    assert set(result["cpu_seconds"]) == set(result["peak_gigabytes"]) == ARMS
