"""The page of file formats tells of every training metric."""

from __future__ import annotations

from pathlib import Path

import pytest

from tga_jax.jobs.registry import JOBS
from tga_jax.training.metric_table import NAMES

PAGE = Path("docs/outputs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_of_training_is_told(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted(set(JOBS) - {"miniature"}))
def test_every_job_has_its_files_told(name: str) -> None:
    assert all(part in PAGE for part in Path(JOBS[name].writes).parts)
