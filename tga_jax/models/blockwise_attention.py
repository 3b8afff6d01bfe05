"""Softmax attention over blocks of queries, with its own backward; plain JAX, any device.

Nothing of size T x S outlives a block: the forward keeps the output and one logsumexp a row, and
the backward makes the weights again (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2).

Letters: B batch, T queries, S keys, H heads, K kv heads, G = H / K, C head width.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tga_jax.models.layers import capped
from tga_jax.models.visibility import Visibility

BLOCK = 128  # queries; a last block may be shorter


def attend_blockwise(
    q: Float[Array, "batch length heads channels"],
    k: Float[Array, "batch length kv_heads channels"],
    v: Float[Array, "batch length kv_heads channels"],
    visible: Visibility | None,
    *,
    block: int = BLOCK,
    softcap: float | None = None,
) -> Float[Array, "batch length heads channels"]:
    """Attention of a sequence to itself.

    Where `visible.causal`, positions must rise along a segment: keys behind a block of queries
    are then not computed at all. A row that sees nothing (padding) gives zeros.

    Args:
        q: float[B, T, H, C].
        k: float[B, T, K, C]; every G = H / K query heads share one.
        v: float[B, T, K, C].
        visible: who sees whom; None: everybody everything.
        block: queries worked on at once.
        softcap: scaled scores become softcap * tanh(score / softcap); None: they stay.

    Returns:
        float[B, T, H, C], in q's dtype.
    """
    batch, queries, heads, width = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(batch, queries, kv_heads, heads // kv_heads, width)
    out = _attend(
        grouped.transpose(0, 2, 3, 1, 4),
        k.transpose(0, 2, 1, 3),
        v.transpose(0, 2, 1, 3),
        visible,
        block,
        softcap,
    )
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, width)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(
    q: Array, k: Array, v: Array, visible: Visibility | None, block: int, softcap: float | None
) -> Array:
    """q: float[B, K, G, T, C]; k, v: float[B, K, T, C]. Returns float[B, K, G, T, C]."""
    return _forward(q, k, v, visible, block, softcap)[0]


def _forward(
    q: Array, k: Array, v: Array, visible: Visibility | None, block: int, softcap: float | None
) -> tuple[Array, tuple[Array, Array, Array, Visibility | None, Array, Array]]:
    outs, sums = [], []
    for rows, keys in _blocks(q.shape[3], visible, block):
        scores, seen = _scores(q, k, visible, rows, keys, softcap)
        highest = scores.max(axis=-1, keepdims=True)
        weights = jnp.where(seen, jnp.exp(scores - highest), 0)
        total = jnp.maximum(weights.sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
        out = jnp.einsum("bkgts,bksc->bkgtc", weights.astype(v.dtype), v[:, :, keys])
        outs.append((out / total).astype(q.dtype))
        sums.append(highest + jnp.log(total))
    out, logsumexp = jnp.concatenate(outs, axis=3), jnp.concatenate(sums, axis=3)
    return out, (q, k, v, visible, out, logsumexp)


def _backward(
    block: int,
    softcap: float | None,
    saved: tuple[Array, Array, Array, Visibility | None, Array, Array],
    d_out: Array,
) -> tuple[Array, Array, Array, None]:
    q, k, v, visible, out, logsumexp = saved
    scale = q.shape[-1] ** -0.5
    d_q = []
    d_k, d_v = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for rows, keys in _blocks(q.shape[3], visible, block):
        scores, seen = _scores(q, k, visible, rows, keys, softcap)
        weights = jnp.where(seen, jnp.exp(scores - logsumexp[:, :, :, rows]), 0)
        d_rows = d_out[:, :, :, rows]
        d_weights = _product("bkgtc,bksc->bkgts", d_rows, v[:, :, keys])
        mean = (d_rows.astype(jnp.float32) * out[:, :, :, rows]).sum(axis=-1, keepdims=True)
        d_scores = weights * (d_weights - mean) * scale
        if softcap is not None:  # the derivative of cap * tanh(x / cap), from its value
            d_scores *= 1 - jnp.where(seen, scores / softcap, 0) ** 2
        d_scores = d_scores.astype(q.dtype)
        d_q.append(_product("bkgts,bksc->bkgtc", d_scores, k[:, :, keys]).astype(q.dtype))
        d_k = d_k.at[:, :, keys].add(_product("bkgts,bkgtc->bksc", d_scores, q[:, :, :, rows]))
        weights = weights.astype(v.dtype)
        d_v = d_v.at[:, :, keys].add(_product("bkgts,bkgtc->bksc", weights, d_rows))
    return jnp.concatenate(d_q, axis=3), d_k.astype(k.dtype), d_v.astype(v.dtype), None


_attend.defvjp(_forward, _backward)


def _blocks(queries: int, visible: Visibility | None, block: int) -> list[tuple[slice, slice]]:
    """(rows, keys) of each block; a causal block leaves out the keys behind its last query."""
    causal = visible is not None and visible.causal
    ends = [min(start + block, queries) for start in range(0, queries, block)]
    return [
        (slice(start, end), slice(0, end if causal else queries))
        for start, end in zip(range(0, queries, block), ends, strict=True)
    ]


def _scores(
    q: Array,
    k: Array,
    visible: Visibility | None,
    rows: slice,
    keys: slice,
    softcap: float | None,
) -> tuple[Array, Array]:
    """Scaled scores float32[B, K, G, t, s] of a block, and bool where a query sees a key."""
    scores = _product("bkgtc,bksc->bkgts", q[:, :, :, rows], k[:, :, keys]) * q.shape[-1] ** -0.5
    scores = capped(scores, softcap)
    if visible is None:
        return scores, jnp.ones((), bool)
    seen = Visibility(
        q_positions=visible.q_positions[:, rows],
        kv_positions=visible.kv_positions[:, keys],
        q_segments=visible.q_segments[:, rows],
        kv_segments=visible.kv_segments[:, keys],
        causal=visible.causal,
        window=visible.window,
        windowed=visible.windowed,
    ).mask()[:, None, None]
    return jnp.where(seen, scores, jnp.finfo(jnp.float32).min), seen


def _product(letters: str, left: Array, right: Array) -> Array:
    return jnp.einsum(letters, left, right, preferred_element_type=jnp.float32)
