"""A checkpoint written on eight devices is restored on other meshes and on fewer devices.

Runs inside `tests/parallel/test_eight_devices.py`, which restores it on a single CPU as well.
"""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from tests.training.checkpoint_meshes import restore, save

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint from a mesh of fsdp 4 x tensor 2."""
    folder = tmp_path_factory.mktemp("written", numbered=False) / "checkpoints"
    save(folder, (1, 4, 2))
    return folder


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        (1, 1, 2),
        pytest.param((8, 1, 1), marks=pytest.mark.slow),
        pytest.param((1, 2, 1), marks=pytest.mark.slow),
    ],
)
def test_restored_elsewhere(folder: Path, sizes: tuple[int, int, int]) -> None:
    assert restore(folder, sizes) > 70
