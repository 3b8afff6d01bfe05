"""Spans of tokens as masks for mean-pooling.

Letters: B samples, N spans, T length.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def span_mask(
    spans: Int[Array, "batch spans 2"], length: int
) -> Bool[Array, "batch spans {length}"]:
    """int32[B, N, 2] of [start, end) -> bool[B, N, T]; an empty span selects nothing."""
    place = jnp.arange(length)
    return (place >= spans[..., :1]) & (place < spans[..., 1:])


def pooled_tokens(
    spans: Int[Array, "batch spans 2"], batch: Mapping[str, Array]
) -> Bool[Array, "batch spans length"]:
    """The masks of spans of a batch's rows, without what is in no mean.

    Args:
        spans: int32[B, N, 2].
        batch: tokens int32[B, T]; unpooled bool[B, T], the tokens left out, where there are any.
    """
    mask = span_mask(spans, batch["tokens"].shape[1])
    return mask & ~batch["unpooled"][:, None] if "unpooled" in batch else mask


def has_span(span: Int[Array, "*lead 2"]) -> Bool[Array, "*lead"]:
    """int32[..., 2] -> bool[...]: whether the span holds a token."""
    return span[..., 1] > span[..., 0]
