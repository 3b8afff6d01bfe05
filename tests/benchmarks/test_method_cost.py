"""The cost of the guide: both ways to the caption's states are the same computation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import method_cost, train_step

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_ways_have_the_same_losses_and_the_segment_computes_more(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["method_cost", "--small", "--vision-layers=2"])
    args = method_cost.arguments()
    train_step.make(args, tmp_path)
    losses = method_cost.check(args, tmp_path)
    two_ways = losses["caption pass"], losses["caption segment"]
    np.testing.assert_allclose(*two_ways, rtol=1e-5)
    executed = {}
    for args.arm in method_cost.ARMS:
        executed[args.arm] = method_cost.flops(args, tmp_path)
    alone, half, whole, segment = (
        executed[name]
        for name in ("language model alone", "half the layers", "caption pass", "caption segment")
    )
    assert segment > whole > half > alone


@pytest.mark.slow
def test_the_whole_benchmark_in_small() -> None:
    command = [sys.executable, "-m", "benchmarks.method_cost", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    over = json.loads(done.stdout)["over_alone"]
    assert over["executed_tflop"]["caption segment"] > over["executed_tflop"]["caption pass"] > 1
    sent = over["sent_gigabytes_of_fsdp"]
    assert sent["caption pass"] > sent["half the layers"] > sent["caption segment"]
