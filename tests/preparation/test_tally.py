"""The counts of job prepare, and the index of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.file_limits import files_end_at
from tga_jax.data.prepared import index_path
from tga_jax.data.stored import Figures
from tga_jax.preparation.check import Outcome
from tga_jax.preparation.tally import Tally


def test_an_index_that_cannot_be_written_to_its_end_is_an_error(tmp_path: Path) -> None:
    tally = Tally(0.0, 100, say=lambda line: None)
    for number in range(100):
        tally.add("train", Outcome(None, {}, "", Figures(number, 1, *[0] * 8)))
    index_path(tmp_path, "train").parent.mkdir(parents=True, exist_ok=True)
    with files_end_at(1000), pytest.raises(OSError, match="File too large"):
        tally.write_index(tmp_path, "train")
    tally.write_index(tmp_path, "train")
    np.testing.assert_array_equal(np.load(index_path(tmp_path, "train"))[:, 0], range(100))
