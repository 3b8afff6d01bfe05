"""Padded lengths and shares that the configuration gives."""

import pytest

from tga_jax.config import base_config
from tga_jax.data.row_check import allowed_bad
from tga_jax.errors import UserError
from tga_jax.run.prompts import caption_buckets, prompt_buckets
from tga_jax.run.stage_data import short_buckets_warning


def test_lengths_below_one_are_refused() -> None:
    data = base_config().data
    data.buckets, data.caption_buckets = (0, 256), (-1,)
    with pytest.raises(UserError, match=r"config.data.buckets=\(0, 256\)"):
        prompt_buckets(data)
    with pytest.raises(UserError, match=r"config.data.caption_buckets=\(-1,\)"):
        caption_buckets(data)


@pytest.mark.parametrize("fraction", [-0.1, 5])
def test_a_share_of_bad_rows_beyond_all_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="config.data.max_bad_fraction=.*must lie in 0..1"):
        allowed_bad(fraction, 100)


@pytest.mark.parametrize(("buckets", "warned"), [((64, 96), True), ((64, 128), False)])
def test_lengths_that_the_longest_sample_exceeds_are_said(
    buckets: tuple[int, ...], warned: bool
) -> None:
    said = short_buckets_warning(buckets, 128)
    assert ("end at 96, and max_length is 128" in said) is warned is bool(said)
