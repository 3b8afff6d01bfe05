"""Padded lengths and shares that the configuration gives."""

from pathlib import Path

import pytest

from tests.jobs.inputs import make_inputs
from tga_jax.config import base_config
from tga_jax.data.row_check import allowed_bad
from tga_jax.errors import UserError
from tga_jax.run.model import open_source
from tga_jax.run.prompts import PromptStyle, caption_buckets, make_prompter, prompt_buckets
from tga_jax.run.stage_data import short_buckets_line


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
    said = short_buckets_line(buckets, 128)
    assert ("end at 96, and max_length is 128" in said) is warned is bool(said)


@pytest.mark.parametrize(
    ("buckets", "captions", "longest"),
    [((), (), (64, 64)), ((40, 48), (16,), (48, 16)), ((128,), (96,), (64, 64))],
)
def test_nothing_is_longer_than_the_largest_padded_length(
    buckets: tuple[int, ...], captions: tuple[int, ...], longest: tuple[int, int], tmp_path: Path
) -> None:
    config = base_config()
    config.prompt.template = "vicuna_v1"
    config.data.max_length, config.data.buckets = 64, buckets
    config.data.caption_buckets = captions
    config.model.checkpoint = str(make_inputs(tmp_path) / "checkpoint")
    style = PromptStyle.of(config, tmp_path, open_source(config.model), say=lambda line: None)
    prompter = make_prompter(config, style)
    assert (prompter.max_length, prompter.max_caption_length) == longest
