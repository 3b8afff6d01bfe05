"""A checkpoint written on eight devices is restored on other meshes, fewer devices, one CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(devices: int, folder: Path, what: str, meshes: list[tuple[int, int, int]]) -> list[str]:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.training.checkpoint_meshes", str(folder), what]
    done = subprocess.run(
        [*command, json.dumps(meshes)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint from a mesh of fsdp 4 x tensor 2."""
    folder = tmp_path_factory.mktemp("meshes") / "checkpoints"
    _run(8, folder, "save", [(1, 4, 2)])
    return folder


@pytest.mark.parametrize(
    ("devices", "meshes"),
    [
        (8, [(8, 1, 1), (2, 2, 2)]),
        (1, [(1, 1, 1)]),
        pytest.param(2, [(1, 2, 1), (1, 1, 2)], marks=pytest.mark.slow),
    ],
)
def test_restored_elsewhere(folder: Path, devices: int, meshes: list[tuple[int, int, int]]) -> None:
    counts = _run(devices, folder, "restore", meshes)
    assert len(counts) == len(meshes) and all(int(n) > 70 for n in counts)
