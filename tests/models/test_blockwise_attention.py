"""Blockwise attention against plain products: values and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.models.attention import attend
from tga_jax.models.blockwise_attention import attend_blockwise
from tga_jax.models.visibility import Visibility


def _visible(queries: int, *, causal: bool, window: int | None) -> Visibility:
    """Row 0: two segments, then padding. Row 1: padding on the left."""
    first, padding = queries // 3, 3
    rest = queries - first - padding
    positions = [
        [*range(first), *range(rest), *[0] * padding],
        [*[0] * padding, *range(queries - padding)],
    ]
    segments = [[1] * first + [2] * rest + [0] * padding, [0] * padding + [1] * (queries - padding)]
    p, s = jnp.asarray(positions), jnp.asarray(segments)
    return Visibility(p, p, s, s, causal=causal, window=window)


@pytest.mark.parametrize("block", [8, 64])
@pytest.mark.parametrize(
    "causal, window, masked",
    [(True, None, True), (True, 5, True), (False, None, True), (False, None, False)],
)
def test_values_and_gradients_are_those_of_plain_attention(block, causal, window, masked):
    rng = np.random.default_rng(0)
    shapes = [(2, 27, 4, 8), (2, 27, 2, 8), (2, 27, 2, 8), (2, 27, 4, 8)]
    q, k, v, pull = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    visible = _visible(27, causal=causal, window=window) if masked else None
    if visible is not None:  # padded rows mean nothing, and may differ
        pull = pull * (visible.q_segments > 0)[:, :, None, None]

    def blockwise(*args):
        return attend_blockwise(*args, visible, block=block)

    def plain(*args):
        return attend(*args, visible, backend="xla")

    ours, ours_back = jax.vjp(blockwise, q, k, v)
    wanted, wanted_back = jax.vjp(plain, q, k, v)
    real = np.asarray(pull != 0)
    np.testing.assert_allclose(np.asarray(ours)[real], np.asarray(wanted)[real], atol=1e-5)
    for got, want in zip(ours_back(pull), wanted_back(pull), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_rows_that_see_nothing_give_zeros_and_no_gradient():
    q = jnp.ones((2, 27, 2, 8))
    visible = _visible(27, causal=True, window=None)
    out, back = jax.vjp(lambda q: attend_blockwise(q, q, q, visible, block=8), q)
    padded = np.asarray(visible.q_segments == 0)
    assert not np.asarray(out)[padded].any()
    assert not np.asarray(back(jnp.ones_like(out))[0])[padded].any()
