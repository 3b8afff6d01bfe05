"""The training objective: language modelling plus the guide terms, as sums over samples.

Sums and counts are kept apart, so that a mean over the global batch comes out the same however
the batch is accumulated or sharded. Letters: A micro-batches, R rows, B samples, T length, L
guided layers, F prompt formats, D width.

Without packing a row is a sample. With packing the B / R samples of a row are next to each other in
the arrays of samples, and have the segments 1, 2, ... in the arrays of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp

from tga_jax.alignment import guide
from tga_jax.alignment.guide import AnswerStates, GuideConfig, GuideStates, RunningMean
from tga_jax.alignment.pooling import has_span, span_mask
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.llava import Llava, Params
from tga_jax.training.cross_entropy import shift_labels, token_nll

Array = jax.Array
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; hashable."""

    guide: GuideConfig
    num_formats: int = 1
    ce_chunk: int = 0  # see `token_nll`


@flax.struct.dataclass
class Passes:
    """What the forward passes leave: nll float32[R, T], states float32[all layers, B, D]."""

    nll: Array
    states: GuideStates | None
    answers: AnswerStates | None = None


@flax.struct.dataclass
class Sums:
    """Sums over the samples of a (micro-)batch; `terms` that no sample has are 0."""

    nll: Array  # float32[]
    pair: Array  # float32[]
    hinge: Array  # float32[]
    answer: Array  # float32[]
    cosine: Array  # float32[]
    captions: Array  # float32[L, F, D], caption states a format


@flax.struct.dataclass
class Counts:
    """How many samples (or answer tokens) the sums run over, in the whole batch."""

    tokens: Array  # int32[]
    pairs: Array  # int32[]
    hinges: Array  # int32[]
    answers: Array  # int32[]
    captions: Array  # float32[F]


def forward(
    model: Llava,
    params: Params,
    batch: Batch,
    *,
    guided: bool,
    ce_chunk: int,
    detach: bool = True,
    answers: bool = False,
) -> Passes:
    """The main pass, and (guided) the caption pass.

    Args:
        model: the model.
        params: its parameters.
        batch: tokens, labels, segments, positions int32[R, T]; images uint8[R, M, side, side, 3];
            image_span, retrieved_span, caption_span int32[B, 2]; caption_tokens,
            caption_segments int32[B, Tc].
        guided: whether hidden states are pooled and the caption pass is run.
        ce_chunk: see `token_nll`.
        detach: no gradient flows through the caption pass.
        answers: whether the states where the answer begins are wanted too; the batch then has
            answer_span, caption_answer_span int32[B, 2].
    """
    pool = None
    if guided:
        names = ["image_span", "retrieved_span", *["answer_span"] * answers]
        spans = jnp.stack([batch[name] for name in names], axis=1)
        rows, length = batch["tokens"].shape
        pool = span_mask(spans.reshape(rows, -1, 2), length)
    embeddings = model.embed(params, batch["tokens"], batch["images"])
    out = model.decode(
        params,
        embeddings,
        positions=batch["positions"],
        segments=batch["segments"],
        pool=pool,
    )
    hidden = model.final_norm(params, out.hidden)
    targets = shift_labels(batch["labels"])
    nll = token_nll(hidden, model.head_kernel(params), targets, chunk=ce_chunk)
    if out.pooled is None:
        return Passes(nll, None)
    names = ["caption_span", *["caption_answer_span"] * answers]
    caption = caption_pass(model, params, batch, names, detach=detach)
    # [all layers, B, N, D]: a packed row holds the spans of several samples.
    pooled = out.pooled.reshape(*caption.shape[:2], -1, caption.shape[3])
    states = GuideStates(pooled[:, :, 0], pooled[:, :, 1], caption[:, :, 0])
    if not answers:
        return Passes(nll, states)
    return Passes(nll, states, AnswerStates(pooled[:, :, 2], caption[:, :, 1]))


def caption_states(model: Llava, params: Params, batch: Batch) -> Array:
    """Mean hidden states over the caption's tokens, text only: float32[all layers, B, D]."""
    return caption_pass(model, params, batch, ["caption_span"])[:, :, 0]


def caption_pass(
    model: Llava, params: Params, batch: Batch, names: Sequence[str], *, detach: bool = True
) -> Array:
    """Mean hidden states over spans of the text-only pass: float32[all layers, B, N, D].

    Args:
        model: the model.
        params: its parameters.
        batch: as `forward` has it.
        names: the N keys of the batch that have the spans.
        detach: no gradient flows through the pass.
    """
    if detach:
        params = jax.lax.stop_gradient(params)
    tokens = batch["caption_tokens"]
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    out = model.decode(
        params,
        model.embed(params, tokens, None),
        positions=positions,
        segments=batch["caption_segments"],
        pool=span_mask(jnp.stack([batch[name] for name in names], axis=1), tokens.shape[1]),
    )
    assert out.pooled is not None
    return out.pooled


def has_terms(batch: Batch, running: RunningMean | None) -> tuple[Array, Array]:
    """Which samples have the pair term and the hinge term: bool[..., B] each."""
    pair = has_span(batch["image_span"]) & has_span(batch["caption_span"])
    if running is not None:
        # Before a format's first mean is known, its samples cannot be centred.
        pair &= running.known(batch["format"])
    return pair, pair & has_span(batch["retrieved_span"])


def count_terms(batch: Batch, objective: Objective, running: RunningMean | None) -> Counts:
    """Counts over the whole batch, arrays of [A, B, ...]."""
    pair, hinge = has_terms(batch, running)
    any_pair, _ = has_terms(batch, None)
    captions = guide.format_counts(
        any_pair.reshape(-1), batch["format"].reshape(-1), objective.num_formats
    )
    tokens = jnp.sum(batch["labels"][..., 1:] != IGNORE_INDEX)
    answers = jnp.sum(has_answer(batch)) if objective.guide.answers else jnp.int32(0)
    return Counts(tokens, jnp.sum(pair), jnp.sum(hinge), answers, captions)


def has_answer(batch: Batch) -> Array:
    """Which samples have the answer term: bool[..., B]."""
    return has_span(batch["answer_span"]) & has_span(batch["caption_answer_span"])


def loss_sums(
    model: Llava,
    params: Params,
    batch: Batch,
    *,
    objective: Objective,
    progress: Array,
    running: RunningMean | None,
) -> Sums:
    """The objective's sums over one micro-batch (arrays of [B, ...])."""
    cfg = objective.guide
    passes = forward(
        model,
        params,
        batch,
        guided=cfg.active,
        ce_chunk=objective.ce_chunk,
        detach=cfg.detach_caption,
        answers=cfg.answers,
    )
    nll, zero = jnp.sum(passes.nll), jnp.float32(0)
    if passes.states is None:
        return Sums(nll, zero, zero, zero, zero, jnp.zeros((0, objective.num_formats, 0)))
    states = jax.tree.map(lambda s: s[jnp.array(cfg.layers)], passes.states)
    any_pair, _ = has_terms(batch, None)
    captions = guide.format_sums(
        jax.lax.stop_gradient(states.caption), any_pair, batch["format"], objective.num_formats
    )
    states = _centered(states, captions, any_pair, batch["format"], objective, running)
    terms = guide.guide_terms(states, form=cfg.form, progress=progress)
    pair, hinge = has_terms(batch, running)
    return Sums(
        nll,
        jnp.sum(jnp.where(pair, terms.pair, 0.0)),
        jnp.sum(jnp.where(hinge, terms.hinge, 0.0)),
        _answer_sum(passes.answers, batch, objective),
        jnp.sum(jnp.where(pair, terms.cosine, 0.0)),
        captions,
    )


def total_loss(sums: Sums, counts: Counts, cfg: GuideConfig) -> Array:
    """A micro-batch's share of the loss: each term's sum over its count in the global batch."""
    loss = sums.nll / jnp.maximum(counts.tokens, 1)
    if cfg.active:
        loss += cfg.pair_weight * sums.pair / jnp.maximum(counts.pairs, 1)
        loss += cfg.hinge_weight * sums.hinge / jnp.maximum(counts.hinges, 1)
    if cfg.answers:
        loss += cfg.answer_weight * sums.answer / jnp.maximum(counts.answers, 1)
    return loss


def loss_metrics(sums: Sums, counts: Counts, cfg: GuideConfig) -> dict[str, Array]:
    """Means over the global batch; NaN where no sample has the term."""

    def mean(total: Array, count: Array) -> Array:
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)

    return {
        "loss": total_loss(sums, counts, cfg),
        "lm_loss": mean(sums.nll, counts.tokens),
        "guide_pair": mean(sums.pair, counts.pairs * cfg.active),
        "guide_hinge": mean(sums.hinge, counts.hinges * cfg.active),
        "guide_answer": mean(sums.answer, counts.answers * cfg.answers),
        "image_caption_cos": mean(sums.cosine, counts.pairs * cfg.active),
    }


def _answer_sum(answers: AnswerStates | None, batch: Batch, objective: Objective) -> Array:
    """The answer term summed over the samples that have it; centred within the micro-batch."""
    if answers is None:
        return jnp.float32(0)
    present, formats = has_answer(batch), batch["format"]
    states = jax.tree.map(lambda s: s[jnp.array(objective.guide.answer_layers)], answers)
    if objective.guide.center != "none":
        sums = guide.format_sums(states.caption, present, formats, objective.num_formats)
        counts = guide.format_counts(present, formats, objective.num_formats)
        means = jax.lax.stop_gradient(guide.format_means(sums, counts))[:, formats]
        states = jax.tree.map(lambda s: s - means, states)
    return jnp.sum(jnp.where(present, guide.answer_terms(states), 0.0))


def _centered(
    states: GuideStates,
    captions: Array,
    any_pair: Array,
    formats: Array,
    objective: Objective,
    running: RunningMean | None,
) -> GuideStates:
    kind = objective.guide.center
    if kind == "none":
        return states
    if kind == "running":
        assert running is not None
        return guide.center(states, running.means(), formats)
    counts = guide.format_counts(any_pair, formats, objective.num_formats)
    return guide.center(states, guide.format_means(captions, counts), formats)
