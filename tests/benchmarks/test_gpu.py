"""The GPU's benchmark on a CPU: contenders agree; libraries that may be missing are not read."""

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
BLOCK = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in ("scann", "tensorflow", "clu", "ml_collections", "grain"):
            return super().find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def test_arms_agree_without_the_libraries_that_a_gpu_machine_may_lack(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK)  # of all processes of the run
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    probe = [sys.executable, "-c", "import ml_collections"]
    assert b"No module named" in subprocess.run(probe, env=environment, capture_output=True).stderr
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "tiny", "--device", "cpu"]
    command += ["--dtype", "float32", "--mode", "lora", "--turns", "2", "--warmup", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert set(result["arms"]) == {"tga_jax", "torch"}
    assert len(result["arms"]["torch"]["losses"]) == 3
    assert result["largest_relative_difference_of_losses"] < 1e-4
    assert result["model_flops"] > 0 and result["speed_of_tga_jax_over"]["torch"] > 0
