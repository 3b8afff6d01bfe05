"""What starting costs: `--help` imports nothing that a job needs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = {"jax", "flax", "numpy", "tensorflow", "transformers", "torch", "absl", "ml_collections"}


def test_help_is_quick_and_imports_no_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tga_jax.main", "--help"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    assert "--workdir" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "tga_jax" in imported and not imported & HEAVY
    assert seconds < 2, seconds
