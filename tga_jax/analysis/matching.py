"""Free embeddings in an image's place, optimised until the states are those of its caption.

Letters: B samples, L decoder layers, P embeddings of an image, S tokens of the caption pass, T of
the prompt, N spans, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tga_jax.alignment.guide import minus_mean, safe_cosine
from tga_jax.alignment.pooling import span_mask
from tga_jax.models.llava import Llava, Params
from tga_jax.training.passes import Batch

Array = jax.Array

# What of an image's prompt is to be like what of the caption's: the mean over the image's and
# over the caption's tokens (the paper's pair term); the state where the answer begins (the answer
# term); the tokens one by one, by optimal transport. Centred: minus the captions' mean.
MATCHES = ("mean", "mean-centred", "answer", "answer-centred", "tokens")
BLUR = 0.05  # of the transport plan, in units of the cosine: the smaller, the nearer to one to one
SINKHORN_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Shown(Llava):
    """The model with float[B, P, D] embeddings where other jobs give images."""

    def image_features(self, params: Params, images: Array) -> Array:
        """The embeddings as they are."""
        del params
        return images


@dataclasses.dataclass(frozen=True)
class Matching:
    """Settings that say which states free embeddings are matched to, and how.

    Attributes:
        match: one of MATCHES.
        layers: 0-based, on which the states are to be alike.
        tokens: P.
        steps: of Adam, with a cosine schedule down to 0.
        learning_rate: in units of the spread of the model's own embeddings.
        near_weight: of the squared distance to the nearest of these, in the same units.
    """

    match: str
    layers: tuple[int, ...]
    tokens: int
    steps: int
    learning_rate: float
    near_weight: float = 0.0

    @property
    def centred(self) -> bool:
        """Whether the captions' mean is subtracted."""
        return self.match.endswith("-centred")

    @property
    def kind(self) -> int:
        """0: over the image's tokens; 1: where the answer begins."""
        return int(self.match.startswith("answer"))


def start_embeddings(params: Params, keys: Array, tokens: int) -> Array:
    """Random embeddings of the mean and spread of the model's own: float32[B, P, D]."""
    mean, spread = _own(params)
    shape = tokens, mean.shape[-1]
    return mean + spread * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def caption_kinds(model: Llava, params: Params, batch: Batch) -> Array:
    """States of the caption pass, over the caption and before the answer: float32[L, B, 2, D]."""
    spans = jnp.stack([batch["caption_span"], batch["caption_answer_span"]], axis=1)
    return _caption_states(model, params, batch, span_mask(spans, batch["caption_tokens"].shape[1]))


def match_embeddings(
    model: Shown, params: Params, batch: Batch, center: Array, keys: Array, *, cfg: Matching
) -> tuple[Array, Array]:
    """Embeddings of every sample whose states match its caption's, and how well they do.

    Args:
        model: whose states are matched; none of its parameters is changed.
        params: its parameters.
        batch: of samples with a caption, whose image has P tokens.
        center: float32[L, 2, D], the mean of `caption_kinds` over all samples.
        keys: [B], one a sample, so that its start does not depend on its neighbours.
        cfg: how to match.

    Returns:
        float32[B, P, D], and the cosine reached on every layer, float32[L, B].
    """
    mean, spread = _own(params)
    target = jax.lax.stop_gradient(_target(model, params, batch, cfg))
    chosen = jnp.array(cfg.layers)

    def reached(shown: Array) -> Array:
        return _cosines(model, params, batch, shown, target, center, cfg)

    def loss(free: Array) -> Array:
        shown = mean + spread * free
        lost = -jnp.sum(jnp.mean(reached(shown)[chosen], axis=0))
        if cfg.near_weight:
            lost += cfg.near_weight * jnp.sum(own_distance(params, shown))
        return lost

    optimizer = optax.adam(optax.cosine_decay_schedule(cfg.learning_rate, cfg.steps))

    def step(_: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        free, state = carry
        updates, state = optimizer.update(jax.grad(loss)(free), state)
        return optax.apply_updates(free, updates), state

    free = (start_embeddings(params, keys, cfg.tokens) - mean) / spread
    free, _ = jax.lax.fori_loop(0, cfg.steps, step, (free, optimizer.init(free)))
    shown = mean + spread * free
    return shown, reached(shown)


def centred_means(model: Shown, params: Params, batch: Batch, shown: Array, center: Array) -> Array:
    """How alike the means over the image's and the caption's tokens are: float32[L, B].

    The cosine of both minus the captions' mean, whatever the embeddings were matched for.

    Args:
        model: whose states are compared.
        params: its parameters.
        batch: as for `match_embeddings`.
        shown: float32[B, P, D], the embeddings.
        center: float32[L, 2, D], likewise.
    """
    compared = Matching("mean-centred", (), shown.shape[1], steps=0, learning_rate=0.0)
    target = _target(model, params, batch, compared)
    return _cosines(model, params, batch, shown, target, center, compared)


def own_distance(params: Params, shown: Array) -> Array:
    """How far embeddings are from the model's nearest own ones: float32[B].

    The mean square of a sample's, in units of the variance of the model's own.
    """
    table = params["decoder"]["embed"].astype(jnp.float32)
    score = shown @ table.T - 0.5 * jnp.sum(table**2, axis=1)
    nearest = table[jnp.argmax(jax.lax.stop_gradient(score), axis=-1)]
    return jnp.mean((shown - nearest) ** 2, axis=(-2, -1)) / jnp.var(table)


def _own(params: Params) -> tuple[Array, Array]:
    """Mean float32[D] and spread float32[] of the model's own embeddings."""
    table = params["decoder"]["embed"].astype(jnp.float32)
    return jnp.mean(table, axis=0), jnp.std(table)


def _target(model: Llava, params: Params, batch: Batch, cfg: Matching) -> Array:
    """What the states are to be: float32[L, B, D], or of "tokens" float32[L, B, S, D]."""
    if cfg.match != "tokens":
        return caption_kinds(model, params, batch)[:, :, cfg.kind]
    length = batch["caption_tokens"].shape[1]
    return _caption_states(model, params, batch, _each(batch["caption_span"], length, length))


def _cosines(
    model: Shown,
    params: Params,
    batch: Batch,
    shown: Array,
    target: Array,
    center: Array,
    cfg: Matching,
) -> Array:
    """How alike the states are: float32[L, B]."""
    length = batch["tokens"].shape[1]
    if cfg.match == "tokens":
        pool = _each(batch["image_span"], cfg.tokens, length)
    else:
        span = batch["answer_span"] if cfg.kind else batch["image_span"]
        pool = span_mask(span[:, None], length)
    out = model.decode(
        params,
        model.embed(params, batch["tokens"], shown),
        positions=batch["positions"],
        segments=batch["segments"],
        pool=pool,
    )
    assert out.pooled is not None
    if cfg.match == "tokens":
        caption = batch["caption_span"]
        return transported(out.pooled, target, caption[:, 1] - caption[:, 0])
    image = out.pooled[:, :, 0]
    if not cfg.centred:
        return safe_cosine(image, target)
    mean = center[:, cfg.kind][:, None]
    return safe_cosine(minus_mean(image, mean), minus_mean(target, mean))


def transported(states: Array, target: Array, count: Array) -> Array:
    """The mean cosine under the transport plan between two sets of states: float32[L, B].

    Every state of both sets weighs the same within its set (Cuturi, arXiv 1306.0895).

    Args:
        states: float32[L, B, P, D].
        target: float32[L, B, S, D].
        count: int32[B], how many of the S there are.
    """
    full = jax.lax.Precision.HIGHEST
    cosine = jnp.einsum("lbpd,lbsd->lbps", _unit(states), _unit(target), precision=full)
    real = jnp.arange(target.shape[2]) < count[:, None]
    nothing = -1e9  # finite: infinities would meet as NaN
    kernel = jnp.where(real[:, None], cosine / BLUR, nothing)
    rows = -jnp.log(states.shape[2])
    columns = jnp.where(real, -jnp.log(jnp.maximum(count, 1))[:, None], nothing)

    def balance(_: Array, potentials: tuple[Array, Array]) -> tuple[Array, Array]:
        _, right = potentials
        left = rows - jax.nn.logsumexp(kernel + right[..., None, :], axis=-1)
        right = columns - jax.nn.logsumexp(kernel + left[..., :, None], axis=-2)
        return left, jnp.where(real, right, 0.0)

    kernel = jax.lax.stop_gradient(kernel)  # the plan is optimal: its own gradient is nothing
    start = jnp.zeros(cosine.shape[:-1]), jnp.zeros(cosine.shape[:-2] + cosine.shape[-1:])
    left, right = jax.lax.fori_loop(0, SINKHORN_STEPS, balance, start)
    plan = jnp.exp(kernel + left[..., :, None] + right[..., None, :])
    return jnp.sum(plan * cosine, axis=(-2, -1))


def _unit(states: Array) -> Array:
    return states * jax.lax.rsqrt(jnp.maximum(jnp.sum(states**2, axis=-1, keepdims=True), 1e-12))


def _each(span: Array, count: int, length: int) -> Array:
    """Masks of the first `count` tokens of a span, one each: bool[B, count, length]."""
    places = span[:, :1] + jnp.arange(count)
    inside = places < span[:, 1:]
    return (places[..., None] == jnp.arange(length)) & inside[..., None]


def _caption_states(model: Llava, params: Params, batch: Batch, pool: Array) -> Array:
    """States of the text-only pass over bool[B, N, S]: float32[L, B, N, D]."""
    tokens = batch["caption_tokens"]
    out = model.decode(
        params,
        model.embed(params, tokens, None),
        positions=jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
        segments=batch["caption_segments"],
        pool=pool,
    )
    assert out.pooled is not None
    return out.pooled
