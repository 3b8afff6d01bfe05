"""A small LLaVA checkpoint for the tests of reading weights, and a copy that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import hf_models


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    hf_models.tiny_llava(folder)
    return folder


@pytest.fixture
def copy(llava: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llava, tmp_path / "copy"))
