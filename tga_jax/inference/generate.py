"""Answers: one prefill over the prompts, then a loop that adds a token at a time to all rows.

Letters: B batch (rows), T padded prompt length, N new tokens, V vocabulary.

Prompts are padded on the right. All rows put a new token into the same column of the cache, with
each row's own positions, so that rows may have begun at different times; padding and what an
earlier answer left is never seen. `refill.py` gives the rows of answers that ended to new prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from tga_jax.inference.prompt_states import PromptStates, prompt_states
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


@flax.struct.dataclass
class Answers:
    """Answers in the making, one a row."""

    cache: KVCache
    lengths: Array  # int32[B]: of the prompts
    counts: Array  # int32[B]: of the tokens so far
    tokens: Array  # int32[B, N]: padded behind the end
    last: Array  # int32[B]: the last of these tokens, which is not in the cache yet
    live: Array  # bool[B]: whether the answer goes on
    keys: Array  # key[B]
    margins: Array  # float32[B]: the first token's `refusal_margin`; 0 without apologies

    def add(self, token: Array, cache: KVCache, decoding: Decoding) -> Answers:
        """With one more token, int32[B], in the rows that are live."""
        column = jnp.where(self.live, self.counts, decoding.max_new_tokens)  # the last is dropped
        tokens = self.tokens.at[jnp.arange(len(column)), column].set(token, mode="drop")
        counts = self.counts + self.live
        ends = jnp.any(token[:, None] == jnp.array(decoding.eos_ids, jnp.int32), axis=1)
        live = self.live & ~ends & (counts < decoding.max_new_tokens)
        return dataclasses.replace(
            self, cache=cache, counts=counts, tokens=tokens, last=token, live=live
        )

    def sharded(self) -> Answers:
        """The same, each array cut over the mesh by rows."""

        def by_rows(x: Array) -> Array:
            return nn.with_logical_constraint(x, ("batch", *[None] * (x.ndim - 1)))

        rest = {name: by_rows(x) for name, x in vars(self).items() if name != "cache"}
        return Answers(cache=self.cache.sharded(), **rest)

    def next_keys(self) -> Array:
        """key[B]: of the next token, by the row's key and the token's number in the answer."""
        return jax.vmap(jax.random.fold_in)(self.keys, self.counts)


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
        prompts = tokens, segments, images, keys
        answers, _ = begin(model, decoding, params, *prompts, shift, apologies=apologies)
        layers = for_decoding(model, params)
        answers = extend(model, decoding, layers, answers, jnp.any, shift)
        return (answers.tokens, answers.margins) if apologies else answers.tokens

    return jax.jit(generate, out_shardings=out_sharding)


def begin(
    model: Llava,
    decoding: Decoding,
    params: Params,
    tokens: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    images: UInt8[Array, "batch images side side 3"] | TiledImages,
    keys: Shaped[Array, " batch"],
    shift: Float[Array, "layers width"] | None = None,
    pool: Bool[Array, "batch 2 length"] | None = None,
    *,
    apologies: tuple[int, ...] = (),
) -> tuple[Answers, PromptStates | None]:
    """Run the prompts and choose the first token of each answer; see `make_generate`.

    With the `prompt_spans` of the prompts as `pool` their states are returned, too.
    """
    room = max(decoding.max_new_tokens - 1, 1)  # the last token of an answer is not run
    logits, cache, states = prefill(
        model, params, tokens, segments, images, shift, pool, new_tokens=room
    )
    batch = len(tokens)
    answers = Answers(
        cache=cache,
        lengths=jnp.sum(segments > 0, axis=1),
        counts=jnp.zeros(batch, jnp.int32),
        tokens=jnp.full((batch, decoding.max_new_tokens), decoding.pad_id, jnp.int32),
        last=jnp.zeros(batch, jnp.int32),
        live=jnp.ones(batch, bool),
        keys=keys,
        margins=refusal_margin(logits, apologies) if apologies else jnp.zeros(batch),
    )
    return answers.add(choose(logits, answers.next_keys(), decoding), cache, decoding), states


def extend(
    model: Llava,
    decoding: Decoding,
    params: Params,
    answers: Answers,
    goes_on: Callable[[Array], Array],
    shift: Float[Array, "layers width"] | None = None,
) -> Answers:
    """Add tokens to the live answers while one is live and `goes_on`: bool[B], live -> bool[].

    `params` are those of `for_decoding`.
    """

    def step(answers: Answers) -> Answers:
        places = answers.lengths + answers.counts - 1
        logits, cache = decode_one(model, params, answers.last, places, answers.cache, shift)
        return answers.add(choose(logits, answers.next_keys(), decoding), cache, decoding)

    if decoding.max_new_tokens == 1:
        return answers  # all ended with their first token: there is no loop to compile
    return jax.lax.while_loop(
        lambda answers: jnp.any(answers.live) & goes_on(answers.live), step, answers
    )


def for_decoding(model: Llava, params: Params) -> Params:
    """The parameters as a loop over tokens reads them fastest; costs a CPU a copy of them."""
    return model.by_layer(params) if jax.default_backend() == "cpu" else params


def prefill(
    model: Llava,
    params: Params,
    tokens: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    images: UInt8[Array, "batch images side side 3"] | TiledImages,
    shift: Float[Array, "layers width"] | None = None,
    pool: Bool[Array, "batch 2 length"] | None = None,
    *,
    new_tokens: int,
) -> tuple[Float[Array, "batch vocab"], KVCache, PromptStates | None]:
    """Run the prompts; returns the next token's logits, float32[B, V], and the cache.

    The cache has room for `new_tokens`, and overwrites the oldest of them after that. The prompts'
    states come third where `pool` is their `prompt_spans`.
    """
    length, embeddings = tokens.shape[1], model.embed(params, tokens, images)
    out = model.decode(
        params,
        embeddings,
        positions=jnp.broadcast_to(jnp.arange(length), tokens.shape),
        segments=segments,
        pool=pool,
        shift=shift,
        room=new_tokens,
    )
    last = jnp.sum(segments > 0, axis=1) - 1
    hidden = jnp.take_along_axis(out.hidden, last[:, None, None], axis=1)[:, 0]
    assert out.cache is not None
    states = None if out.pooled is None else prompt_states(embeddings, segments, out.pooled)
    return model.logits(params, hidden), out.cache, states


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
