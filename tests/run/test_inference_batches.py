"""Which prompts are run together, and how far they are padded."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from tests import tiny
from tga_jax.data.example import Example
from tga_jax.data.images import ImageTransform
from tga_jax.errors import UserError
from tga_jax.parallel.mesh import make_mesh
from tga_jax.run.inference_batches import Batcher, InferenceBatch
from tga_jax.run.prompts import close_buckets

LENGTHS = (5, 20, 3, 17, 30, 8, 2, 31, 9, 25)


def example(number: int) -> Example:
    """Of a prompt of LENGTHS[number] tokens without an image."""
    tokens, nothing = np.full(LENGTHS[number], 10 + number, np.int32), np.zeros(0, np.int32)
    return Example(str(number), tokens, tokens, (), None, nothing, None, (), False, 0)


def batcher(*lengths: int) -> Batcher:
    sides = tiny.SIDE, tiny.SIDE
    transform = ImageTransform(None, sides, None, 3, False, (0.5,) * 3, (0.2,) * 3, 1 / 255)
    mesh = make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
    return Batcher(mesh, transform, tiny.PAD, lengths, (32,))


def alike(rows: list[int], size: int) -> list[InferenceBatch]:
    batches = batcher(16, 24, 32).alike(rows, example, batch_size=size, image_dir=Path)
    return list(batches)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_each_prompt_comes_once_in_the_smallest_length_that_holds_it(size: int) -> None:
    batches = alike(list(range(len(LENGTHS))), size)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(LENGTHS)))
    for batch in batches:
        tokens = np.asarray(batch.arrays["tokens"])
        assert tokens.shape[0] == size
        for row, found in zip(batch.rows, tokens, strict=False):
            padded = next(bucket for bucket in (16, 24, 32) if bucket >= LENGTHS[row])
            want = np.pad(example(row).tokens, (0, padded - LENGTHS[row]))
            np.testing.assert_array_equal(found, want)


def test_a_batch_comes_as_soon_as_it_is_full_and_the_rest_at_the_end() -> None:
    rows = [batch.rows for batch in alike(list(range(len(LENGTHS))), 2)]
    assert rows == [[0, 2], [1, 3], [5, 6], [4, 7], [8], [9]]


def test_a_prompt_is_padded_alike_whatever_is_asked_with_it() -> None:
    def widths(rows: list[int]) -> dict[int, int]:
        return {r: b.arrays["tokens"].shape[1] for b in alike(rows, 4) for r in b.rows}

    every = widths(list(range(len(LENGTHS))))
    assert widths([7, 1, 5]) == {row: every[row] for row in (7, 1, 5)}


def test_no_prompts_no_batches() -> None:
    assert alike([], 4) == []


@pytest.mark.parametrize("last", [64, 100, 512, 2048, 4096])
def test_close_lengths_waste_little(last: int) -> None:
    lengths = close_buckets(last)
    assert lengths[-1] == last and list(lengths) == sorted(set(lengths))
    for tokens in range(1, last + 1):
        padding = next(n for n in lengths if n >= tokens) - tokens
        assert padding <= max(31, tokens / 8)


def test_a_prompt_beyond_the_longest_is_named() -> None:
    with pytest.raises(UserError, match="record 7 has 31 tokens"):
        list(batcher(16).alike([7], example, batch_size=2, image_dir=Path))
