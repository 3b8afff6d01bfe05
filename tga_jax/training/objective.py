"""The training objective: language modelling plus the guide terms, as sums over samples.

A mean is carried as a sum and a count (`clu.metrics.Average`), so that over the global batch it
comes out the same however the batch is accumulated or sharded. Letters: A micro-batches, R rows,
B samples, T length, L guided layers, D width.

Without packing a row is a sample. With packing the B / R samples of a row are next to each other in
the arrays of samples, and have the segments 1, 2, ... in the arrays of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp
from clu.metrics import Average
from jaxtyping import Array, Bool, Float

from tga_jax.alignment import guide
from tga_jax.alignment.guide import AnswerStates, GuideConfig, GuideStates, RunningMean
from tga_jax.alignment.pooling import has_span, span_mask
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.llava import Llava, Params
from tga_jax.training.cross_entropy import shift_labels, token_nll
from tga_jax.training.metric_table import MEAN, names_of

Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised; hashable."""

    guide: GuideConfig
    ce_chunk: int = 0  # see `token_nll`


@flax.struct.dataclass
class Passes:
    """What the forward passes leave: nll float32[R, T], states float32[all layers, B, D]."""

    nll: Array
    states: GuideStates | None
    answers: AnswerStates | None = None


@flax.struct.dataclass
class Sums:
    """Sums and counts over the samples of one micro-batch, or added up over several."""

    terms: dict[str, Average]  # by the metric's name: totals float32[], counts int32[]
    captions: Average  # caption states of the guided layers: total float32[L, D], count int32[]


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


def caption_states(
    model: Llava, params: Params, batch: Batch
) -> Float[Array, "layers batch width"]:
    """Mean hidden states over the caption's tokens, text only: float32[all layers, B, D]."""
    return caption_pass(model, params, batch, ["caption_span"])[:, :, 0]


def caption_pass(
    model: Llava, params: Params, batch: Batch, names: Sequence[str], *, detach: bool = True
) -> Float[Array, "layers batch spans width"]:
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


def has_terms(
    batch: Batch, running: RunningMean | None
) -> tuple[Bool[Array, "*lead"], Bool[Array, "*lead"]]:
    """Which samples have the pair term and the hinge term: bool[..., B] each."""
    pair = has_span(batch["image_span"]) & has_span(batch["caption_span"])
    if running is not None:
        # Before the first mean is known, nothing can be centred.
        pair &= running.known()
    return pair, pair & has_span(batch["retrieved_span"])


def has_answer(batch: Batch) -> Bool[Array, "*lead"]:
    """Which samples have the answer term: bool[..., B]."""
    return has_span(batch["answer_span"]) & has_span(batch["caption_answer_span"])


def term_masks(batch: Batch, cfg: GuideConfig, running: RunningMean | None) -> dict[str, Array]:
    """What each term of the objective runs over, by the metric's name.

    bool[..., R, T] for the tokens of "lm_loss", bool[..., B] for the samples of a guide term.
    """
    masks = {"lm_loss": shift_labels(batch["labels"]) != IGNORE_INDEX}
    if cfg.active:
        pair, hinge = has_terms(batch, running)
        masks |= {"guide_pair": pair, "guide_hinge": hinge, "image_caption_cos": pair}
    if cfg.answers:
        masks["guide_answer"] = has_answer(batch)
    return masks


def count_terms(
    batch: Batch, objective: Objective, running: RunningMean | None
) -> dict[str, Array]:
    """How many tokens or samples have each term in the whole batch, arrays of [A, B, ...]."""
    masks = term_masks(batch, objective.guide, running)
    return {name: jnp.sum(mask) for name, mask in masks.items()}


def loss_sums(
    model: Llava,
    params: Params,
    batch: Batch,
    *,
    objective: Objective,
    progress: Array,
    running: RunningMean | None,
) -> Sums:
    """The objective's sums and counts over one micro-batch (arrays of [B, ...])."""
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
    values: dict[str, Average] = {}
    captions = Average.empty()
    if passes.states is not None:
        states = jax.tree.map(lambda s: s[jnp.array(cfg.layers)], passes.states)
        captions = _caption_sum(states.caption, batch)
        states = _centered(states, captions, cfg.center, running)
        terms = guide.guide_terms(states, form=cfg.form, progress=progress)
        values |= {
            "guide_pair": terms.pair,
            "guide_hinge": terms.hinge,
            "image_caption_cos": terms.cosine,
        }
    if passes.answers is not None:
        values["guide_answer"] = _answer_terms(passes.answers, batch, cfg)
    masks = term_masks(batch, cfg, running)
    sums = {name: Average.empty() for name in names_of(MEAN)}
    # `token_nll` is 0 where nothing is predicted.
    sums["lm_loss"] = Average(jnp.sum(passes.nll), jnp.sum(masks["lm_loss"]))
    for name, value in values.items():
        sums[name] = Average.from_model_output(value, masks[name])
    return Sums(sums, captions)


def total_loss(sums: Sums, counts: dict[str, Array], cfg: GuideConfig) -> Float[Array, ""]:
    """A micro-batch's share of the loss: each term's sum over its count in the global batch."""
    weights = {"lm_loss": 1.0}
    if cfg.active:
        weights |= {"guide_pair": cfg.pair_weight, "guide_hinge": cfg.hinge_weight}
    if cfg.answers:
        weights["guide_answer"] = cfg.answer_weight
    loss = jnp.float32(0)
    for name, weight in weights.items():
        loss += weight * sums.terms[name].total / jnp.maximum(counts[name], 1)
    return loss


def loss_metrics(sums: Sums, counts: dict[str, Array], cfg: GuideConfig) -> dict[str, Array]:
    """Means over the global batch, by the metric's name; NaN where no sample has the term."""
    means = {name: average.compute() for name, average in sums.terms.items()}
    return {"loss": total_loss(sums, counts, cfg)} | means


def _caption_sum(caption: Array, batch: Batch) -> Average:
    """The caption states float32[L, B, D] of the samples with a pair, added up; no gradient."""
    has_pair, _ = has_terms(batch, None)
    total = guide.caption_sum(jax.lax.stop_gradient(caption), has_pair)
    return Average(total, jnp.sum(has_pair))


def _answer_terms(answers: AnswerStates, batch: Batch, cfg: GuideConfig) -> Array:
    """The answer term of each sample, float32[B]; centred within the micro-batch."""
    states = jax.tree.map(lambda s: s[jnp.array(cfg.answer_layers)], answers)
    if cfg.center != "none":
        present = has_answer(batch)
        total = guide.caption_sum(states.caption, present)
        mean = jax.lax.stop_gradient(guide.caption_mean(total, jnp.sum(present)))[:, None]
        states = jax.tree.map(lambda s: s - mean, states)
    return guide.answer_terms(states)


def _centered(
    states: GuideStates, captions: Average, kind: str, running: RunningMean | None
) -> GuideStates:
    """The states minus the mean that `GuideConfig.center` names."""
    if kind == "none":
        return states
    if kind == "running":
        assert running is not None
        return guide.center(states, running.mean())
    return guide.center(states, guide.caption_mean(captions.total, captions.count))
