"""Answers: one prefill over the prompt, then one loop that adds a token at a time.

Letters: B batch, T padded prompt length, N new tokens, V vocabulary.

Prompts are padded on the right. New tokens go into cache slots T, T + 1, ... of all rows alike,
with each row's own positions, so that padding is never seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt8

from tga_jax.models.cache import KVCache
from tga_jax.models.llava import Llava, Params
from tga_jax.models.tiling import TiledImages


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How tokens are chosen. temperature 0 is greedy; top_p 1 keeps the whole distribution."""

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    temperature: float = 0.0
    top_p: float = 1.0


def make_generate(
    model: Llava,
    decoding: Decoding,
    *,
    apologies: tuple[int, ...] = (),
    out_sharding: Any = None,
) -> Callable[..., Any]:
    """A jitted function of (params, tokens, segments, images, keys, shift) -> new tokens.

    tokens, segments int32[B, T]; images as `Llava.embed` takes them; keys: one a row, so that
    an answer does not depend on its neighbours. shift float[L, D] steers the model: it is added to
    each layer's output at every position; None, or left out: nothing is. Returns int32[B, N],
    pad_id after the end; given the ids of `apologies`, a pair of that and of the first token's
    `refusal_margin`, float32[B].
    """

    def generate(
        params: Params,
        tokens: Array,
        segments: Array,
        images: Array | TiledImages,
        keys: Array,
        shift: Array | None = None,
    ) -> Any:
        batch = tokens.shape[0]
        lengths = jnp.sum(segments > 0, axis=1)
        new_tokens = decoding.max_new_tokens
        logits, cache = prefill(
            model, params, tokens, segments, images, shift, new_tokens=new_tokens
        )
        first = choose(logits, jax.vmap(jax.random.fold_in)(keys, jnp.zeros(batch, int)), decoding)
        out = jnp.full((batch, decoding.max_new_tokens), decoding.pad_id, jnp.int32)
        eos = jnp.array(decoding.eos_ids, jnp.int32)

        def unfinished(loop: tuple) -> Array:
            count, _, done, _, _ = loop
            return (count < decoding.max_new_tokens) & ~jnp.all(done)

        def body(loop: tuple) -> tuple:
            count, token, done, out, cache = loop
            out = out.at[:, count].set(jnp.where(done, decoding.pad_id, token))
            done |= jnp.any(token[:, None] == eos, axis=1)
            logits, cache = decode_one(model, params, token, lengths + count, cache, shift)
            count += 1
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
            return count, choose(logits, step_keys, decoding), done, out, cache

        start = (jnp.int32(0), first, jnp.zeros(batch, bool), out, cache)
        new = jax.lax.while_loop(unfinished, body, start)[3]
        return (new, refusal_margin(logits, apologies)) if apologies else new

    return jax.jit(generate, out_shardings=out_sharding)


def prefill(
    model: Llava,
    params: Params,
    tokens: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    images: UInt8[Array, "batch images side side 3"] | TiledImages,
    shift: Float[Array, "layers width"] | None = None,
    *,
    new_tokens: int,
) -> tuple[Float[Array, "batch vocab"], KVCache]:
    """Run the prompts; returns the next token's logits, float32[B, V], and the cache."""
    length = tokens.shape[1]
    out = model.decode(
        params,
        model.embed(params, tokens, images),
        positions=jnp.broadcast_to(jnp.arange(length), tokens.shape),
        segments=segments,
        shift=shift,
        slots=length + new_tokens,
    )
    last = jnp.sum(segments > 0, axis=1) - 1
    hidden = jnp.take_along_axis(out.hidden, last[:, None, None], axis=1)[:, 0]
    assert out.cache is not None
    return model.logits(params, hidden), out.cache


def decode_one(
    model: Llava,
    params: Params,
    token: Int[Array, " batch"],
    positions: Int[Array, " batch"],
    cache: KVCache,
    shift: Float[Array, "layers width"] | None = None,
) -> tuple[Float[Array, "batch vocab"], KVCache]:
    """One more token a row: int32[B] at int32[B] -> logits float32[B, V] and the cache."""
    out = model.decode(
        params,
        model.embed(params, token[:, None], None),
        positions=positions[:, None],
        segments=jnp.ones_like(token)[:, None],
        shift=shift,
        cache=cache,
    )
    assert out.cache is not None
    return model.logits(params, out.hidden[:, 0]), out.cache


def refusal_margin(
    logits: Float[Array, "batch vocab"], apologies: tuple[int, ...]
) -> Float[Array, " batch"]:
    """Log-probability of the likeliest apology token minus that of the likeliest other one.

    float32[B, V] -> float32[B]; above 0 the greedy answer begins with an apology.
    """
    is_apology = jnp.zeros(logits.shape[-1], bool).at[jnp.array(apologies)].set(True)
    best = jnp.max(jnp.where(is_apology, logits, -jnp.inf), axis=-1)
    return best - jnp.max(jnp.where(is_apology, -jnp.inf, logits), axis=-1)


def choose(
    logits: Float[Array, "batch vocab"], keys: Shaped[Array, " batch"], decoding: Decoding
) -> Int[Array, " batch"]:
    """float32[B, V] -> int32[B]: the likeliest, or a sample at a temperature and top-p."""
    if decoding.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / decoding.temperature
    if decoding.top_p < 1:
        logits = _keep_top_p(logits, decoding.top_p)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _keep_top_p(logits: Array, top_p: float) -> Array:
    """Drop what lies beyond the smallest set of tokens with probability >= top_p."""
    order = jnp.argsort(-logits, axis=-1)
    sorted_probs = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(sorted_probs, axis=-1) - sorted_probs
    rank = jnp.argsort(order, axis=-1)
    kept = (before < top_p) | (before == 0)  # the likeliest stays whatever top_p is
    keep = jnp.take_along_axis(kept, rank, axis=-1)
    return jnp.where(keep, logits, -jnp.inf)
