"""The training objective: language modelling plus the guide terms, as sums over samples.

A mean is carried as a sum and a count (`clu.metrics.Average`), so that over the global batch it
comes out the same however the batch is accumulated or sharded. Letters: A micro-batches, R rows,
B samples, T length, L guided layers, D width; rows and samples are as `passes` has them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
from clu.metrics import Average
from jaxtyping import Array, Bool, Float

from tga_jax.alignment import guide
from tga_jax.alignment.guide import AnswerStates, GuideConfig, GuideStates, RunningMean
from tga_jax.alignment.pooling import has_span
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.llava import Llava, Params
from tga_jax.training.cross_entropy import shift_labels
from tga_jax.training.metric_table import MEAN, names_of
from tga_jax.training.passes import Batch, caption_pass, forward


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss that training minimises; hashable, so that programs can be told apart."""

    guide: GuideConfig
    ce_chunk: int = 0  # see `token_nll`


@flax.struct.dataclass
class CaptionSums:
    """The caption states of the samples that have a term, added up, without gradient.

    total float32[L, D] of the term's layers, count int32[].
    """

    pair: Average
    answer: Average


@flax.struct.dataclass
class Sums:
    """Sums and counts over the samples of one micro-batch, or added up over several."""

    terms: dict[str, Average]  # by the metric's name: totals float32[], counts int32[]
    captions: CaptionSums


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


def term_masks(
    batch: Batch, cfg: GuideConfig, running: RunningMean | None, captioned: dict[str, Array]
) -> dict[str, Array]:
    """What each term of the objective runs over, by the metric's name.

    bool[..., R, T] for the tokens of "lm_loss", bool[..., B] for the samples of a guide term.

    Args:
        batch: a micro-batch or several.
        cfg: which terms there are.
        running: the mean of the steps before.
        captioned: `caption_counts` of the whole step. Minus a mean that is its own alone a state is
            zero, so that a sample has no term where the step has no other one.
    """
    masks = {"lm_loss": shift_labels(batch["labels"]) != IGNORE_INDEX}
    if cfg.active:
        pair, hinge = has_terms(batch, running)
        if cfg.center == "batch":
            several = captioned["guide_pair"] > 1
            pair, hinge = pair & several, hinge & several
        masks |= {"guide_pair": pair, "guide_hinge": hinge, "image_caption_cos": pair}
    if cfg.answers:
        masks["guide_answer"] = has_answer(batch)
        if cfg.center != "none":
            masks["guide_answer"] &= captioned["guide_answer"] > 1
    return masks


def caption_counts(batch: Batch, cfg: GuideConfig) -> dict[str, Array]:
    """How many samples the mean of caption states is over, by the term's metric: int32[]."""
    counts = {"guide_pair": jnp.sum(has_terms(batch, None)[0])} if cfg.active else {}
    return counts | ({"guide_answer": jnp.sum(has_answer(batch))} if cfg.answers else {})


def count_terms(
    batch: Batch, objective: Objective, running: RunningMean | None
) -> dict[str, Array]:
    """How many tokens or samples have each term in the whole batch, arrays of [A, B, ...]."""
    captioned = caption_counts(batch, objective.guide)
    masks = term_masks(batch, objective.guide, running, captioned)
    return {name: jnp.sum(mask) for name, mask in masks.items()}


def step_captions(
    model: Llava, params: Params, batch: Batch, cfg: GuideConfig
) -> CaptionSums | None:
    """The caption states of a whole step, arrays of [A, B, ...], which its states are centred by.

    None where a micro-batch is the whole step, or nothing is centred by the step's mean. Else the
    caption pass runs here once more, forward only, for a mean cannot be known before its last
    micro-batch.
    """
    if batch["tokens"].shape[0] == 1 or not cfg.centers_by_step:
        return None
    names = ["caption_span", *["caption_answer_span"] * cfg.answers]

    def add(total: CaptionSums, micro: Batch) -> tuple[CaptionSums, None]:
        states = caption_pass(model, params, micro, names, blocks=cfg.blocks)
        answer = states[:, :, 1] if cfg.answers else None
        sums = _caption_sums(states[:, :, 0], answer, micro, cfg)
        return jax.tree.map(jnp.add, total, sums), None

    width = model.config.decoder.width
    zeros = CaptionSums(
        *(
            Average(jnp.zeros((len(layers), width)), jnp.int32(0))
            for layers in (cfg.layers, cfg.answer_layers if cfg.answers else ())
        )
    )
    read = {k: v for k, v in batch.items() if "caption" in k or "span" in k}
    return jax.lax.scan(add, zeros, read)[0]


def loss_sums(
    model: Llava,
    params: Params,
    batch: Batch,
    *,
    objective: Objective,
    progress: Array,
    running: RunningMean | None,
    captions: CaptionSums | None = None,
) -> Sums:
    """The objective's sums and counts over one micro-batch (arrays of [B, ...]).

    `captions` is `step_captions`; None where this micro-batch is the whole step.
    """
    cfg = objective.guide
    passes = forward(
        model,
        params,
        batch,
        guided=cfg.active,
        ce_chunk=objective.ce_chunk,
        detach=cfg.detach_caption,
        answers=cfg.answers,
        caption_blocks=cfg.blocks,
    )
    values: dict[str, Array] = {}
    own = CaptionSums(Average.empty(), Average.empty())
    if passes.states is not None:
        answers = None if passes.answers is None else passes.answers.caption
        own = _caption_sums(passes.states.caption, answers, batch, cfg)
    whole = own if captions is None else captions
    if passes.states is not None:
        states = _layers(passes.states, cfg.layers)
        states = _centered(states, whole.pair, cfg.center, running)
        terms = guide.guide_terms(states, form=cfg.form, progress=progress)
        values |= {
            "guide_pair": terms.pair,
            "guide_hinge": terms.hinge,
            "image_caption_cos": terms.cosine,
        }
    if passes.answers is not None:
        values["guide_answer"] = _answer_terms(passes.answers, whole.answer, cfg)
    captioned = {"guide_pair": whole.pair.count, "guide_answer": whole.answer.count}
    masks = term_masks(batch, cfg, running, captioned)
    sums = {name: Average.empty() for name in names_of(MEAN)}
    # `token_nll` is 0 where nothing is predicted.
    sums["lm_loss"] = Average(jnp.sum(passes.nll), jnp.sum(masks["lm_loss"]))
    for name, value in values.items():
        sums[name] = Average.from_model_output(value, masks[name])
    return Sums(sums, own)


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


def _layers(states: Any, layers: tuple[int, ...]) -> Any:
    """Of states float32[layers, B, D] those of these layers."""
    return jax.tree.map(lambda s: s[jnp.array(layers)], states)


def _caption_sums(pair: Array, answer: Array | None, batch: Batch, cfg: GuideConfig) -> CaptionSums:
    """The caption states float32[layers, B, D] of one micro-batch, added up."""
    has_pair, _ = has_terms(batch, None)
    return CaptionSums(
        _added(pair, cfg.layers, has_pair),
        Average(jnp.zeros((0, pair.shape[-1])), jnp.int32(0))
        if answer is None
        else _added(answer, cfg.answer_layers, has_answer(batch)),
    )


def _added(caption: Array, layers: tuple[int, ...], present: Array) -> Average:
    total = guide.caption_sum(jax.lax.stop_gradient(_layers(caption, layers)), present)
    return Average(total, jnp.sum(present))


def _answer_terms(answers: AnswerStates, captions: Average, cfg: GuideConfig) -> Array:
    """The answer term of each sample, float32[B]; centred by the step, if at all."""
    states = _layers(answers, cfg.answer_layers)
    if cfg.center != "none":
        states = guide.center(states, guide.caption_mean(captions.total, captions.count))
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
