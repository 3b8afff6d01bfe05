"""Tests that need eight devices run in a process of their own; elsewhere they are skipped."""

from __future__ import annotations

import os
import subprocess
import sys

TESTS = [
    "tests/hf/test_weights.py::test_sharded_target",
    "tests/inference/test_generation_meshes.py",
]


def test_eight_host_devices() -> None:
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-m", "pytest", "-rs", *TESTS]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout
