"""docs/models.md is what the tables say, and each row is of a kind that tests know."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
from tests import hf_models  # noqa: E402
from tga_jax.hf.decoders import DECODERS  # noqa: E402
from tga_jax.hf.models_table import models_table  # noqa: E402

FILE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_is_up_to_date():
    """If not: `python -m tga_jax.hf.models_table > docs/models.md`."""
    assert FILE.read_text(encoding="utf-8") == models_table()


def test_every_kind_of_language_model_has_a_tiny_one():
    assert {cls.model_type for cls, _ in hf_models.KINDS.values()} == set(DECODERS)
