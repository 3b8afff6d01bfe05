"""The cost of the guide: both ways to the caption's states are the same computation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_two_ways_have_the_same_losses_and_the_segment_sends_less() -> None:
    command = [sys.executable, "-m", "benchmarks.method_cost", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    np.testing.assert_allclose(*list(result["losses"].values())[1:], rtol=1e-5)
    over = result["over_alone"]
    assert over["executed_tflop"]["caption segment"] > over["executed_tflop"]["caption pass"] > 1
    sent = over["sent_gigabytes_of_fsdp"]
    assert sent["caption pass"] > sent["caption segment"]
