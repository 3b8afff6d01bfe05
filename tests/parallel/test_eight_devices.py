"""Tests that need eight devices run in one process of their own; elsewhere they are skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.child_environment import on_devices
from tests.training.checkpoint_meshes import restore

ROOT = Path(__file__).parents[2]
TESTS = [
    "tests/hf/test_quantised_loading.py::test_shards_are_those_of_one_device",
    "tests/hf/test_weights.py::test_sharded_target",
    "tests/inference/test_generation_meshes.py",
    "tests/parallel/test_quantised_steps.py",
    "tests/parallel/test_steps_on_meshes.py",
    "tests/parallel/test_tiled_steps.py",
    "tests/training/test_checkpoint_meshes.py",
]


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_eight_host_devices(tmp_path: Path, which: str) -> None:
    command = [sys.executable, "-m", "pytest", "-rs", "-m", which, f"--basetemp={tmp_path / 'in'}"]
    done = subprocess.run(
        [*command, *TESTS], env=on_devices(8), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout
    assert restore(tmp_path / "in" / "written" / "checkpoints", (1, 1, 1)) > 70
