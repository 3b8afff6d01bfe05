"""Attention: one entry, several backends, one description of who sees whom.

    xla         plain products and softmax; any device, any shape
    splash      TPU: Pallas kernel, scores never in memory
    cudnn       NVIDIA GPU: cuDNN's flash attention; bfloat16 and float16 only
    blockwise   any device: blocks of queries with a backward of its own, scores not kept

Letters: B batch, T queries, S keys, H heads, K kv heads, G = H / K, C head width.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tga_jax.models.blockwise_attention import attend_blockwise
from tga_jax.models.layers import capped
from tga_jax.models.splash_attention import attend_splash
from tga_jax.models.visibility import Visibility

BACKENDS = ("xla", "splash", "cudnn", "blockwise")


def choose_backend(name: str, *, platform: str, dtype: str) -> str:
    """The backend that config.model.attention stands for; "auto" takes the platform's.

    Args:
        name: "auto" or one of `BACKENDS`.
        platform: as `jax.Device.platform` has it: "cpu", "gpu" or "tpu".
        dtype: of the activations.
    """
    if name != "auto":
        return name
    if platform == "tpu":
        return "splash"
    if platform == "gpu" and dtype in ("bfloat16", "float16"):
        return "cudnn"
    return "blockwise" if platform == "cpu" else "xla"


def attend(
    q: Float[Array, "batch queries heads channels"],
    k: Float[Array, "batch keys kv_heads channels"],
    v: Float[Array, "batch keys kv_heads channels"],
    visible: Visibility | None,
    *,
    backend: str,
    softcap: float | None = None,
) -> Float[Array, "batch queries heads channels"]:
    """Softmax attention with grouped key-value heads, by the chosen backend.

    Args:
        q: float[B, T, H, C].
        k: float[B, S, K, C]; every G = H / K query heads share one.
        v: float[B, S, K, C].
        visible: who sees whom; None: everybody everything.
        backend: one of `BACKENDS`. The fused ones need all keys to be of this very sequence;
            where queries look into a cache, plain products are taken. So they are in place of
            cuDNN where there is a softcap, which that has not.
        softcap: scaled scores become softcap * tanh(score / softcap); None: they stay.

    Returns:
        float[B, T, H, C], in q's dtype.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}")
    whole = q.shape[1] == k.shape[1]
    if backend == "splash" and whole:
        return attend_splash(q, k, v, visible, softcap=softcap)
    if backend == "cudnn" and whole and softcap is None:
        return attend_library(q, k, v, visible, implementation="cudnn")
    if backend == "blockwise" and whole:
        return attend_blockwise(q, k, v, visible, softcap=softcap)
    return _attend_xla(q, k, v, visible, softcap)


def attend_library(
    q: Float[Array, "batch queries heads channels"],
    k: Float[Array, "batch keys kv_heads channels"],
    v: Float[Array, "batch keys kv_heads channels"],
    visible: Visibility | None,
    *,
    implementation: Literal["cudnn", "xla"],
) -> Float[Array, "batch queries heads channels"]:
    """`jax.nn.dot_product_attention`; who sees whom goes in as a mask of one head."""
    mask = None if visible is None else visible.mask()[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


def _attend_xla(
    q: Array, k: Array, v: Array, visible: Visibility | None, softcap: float | None
) -> Array:
    batch, queries, heads, width = q.shape
    groups = heads // k.shape[2]
    q = q.reshape(batch, queries, k.shape[2], groups, width)
    scores = jnp.einsum("btkgc,bskc->bkgts", q, k, preferred_element_type=jnp.float32)
    scores = capped(scores * width**-0.5, softcap)
    if visible is not None:
        # Finite, so that a row that sees nothing (padding) gives numbers and not NaN.
        scores = jnp.where(visible.mask()[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkgts,bskc->btkgc", weights, v)
    return out.reshape(batch, queries, heads, width)
