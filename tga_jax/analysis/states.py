"""Job `analyze` on the devices: states in, a few figures a sample or sums over samples out.

Letters: B samples, L layers, T length, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import flax
import jax
import jax.numpy as jnp

from tga_jax.alignment.guide import minus_mean, safe_cosine
from tga_jax.alignment.pooling import has_span
from tga_jax.analysis import logit_lens as safety_layers
from tga_jax.analysis.logit_lens import Lens
from tga_jax.inference.prompt_states import PromptStates, prompt_spans, prompt_states
from tga_jax.models.llava import Llava, Params
from tga_jax.models.tiling import images_of
from tga_jax.training.passes import caption_states

Array = jax.Array
Batch = dict[str, Array]


@flax.struct.dataclass
class Reference:
    """What the figures of a sample are measured against."""

    direction: Array  # float32[L, D]: unit refusal directions; 0 where there is none
    zero: Array  # float32[L]: projection of the answered texts
    length: Array  # float32[L]: from the answered to the refused texts
    caption: Array  # float32[L, D]: mean caption state


def last_states(model: Llava, params: Params, batch: Batch) -> PromptStates:
    """States at the last prompt position and over the image."""
    embeddings = model.embed(params, batch["tokens"], images_of(batch))
    out = model.decode(
        params,
        embeddings,
        positions=batch["positions"],
        segments=batch["segments"],
        pool=prompt_spans(batch),
    )
    assert out.pooled is not None
    return prompt_states(embeddings, batch["segments"], out.pooled)


def read_lens(
    model: Llava, params: Params, states: Array, *, apologies: tuple[int, ...], weights: Array
) -> Lens:
    """The logit lens on [1 + L, B, D]."""
    return safety_layers.logit_lens(
        states,
        lambda hidden: jax.nn.log_softmax(model.logits(params, hidden), axis=-1),
        apologies=apologies,
        weights=weights,
    )


def text_sums(
    model: Llava, params: Params, states: PromptStates, valid: Array, apologies: tuple[int, ...]
) -> dict[str, Array]:
    """Sums over a batch of prompts without an image.

    Args:
        model: the model.
        params: its parameters.
        states: of the prompts, which are of one set.
        valid: float32[B], 0 for filling.
        apologies: token ids.

    Returns:
        count, refused float32[]; ratios float32[L, V], of D_j; leads float32[L], samples whose
        most likely token is an apology; refused_states, answered_states float32[L, D], where
        refused means that the model's answer would begin with an apology.
    """
    lens = read_lens(model, params, states.last, apologies=apologies, weights=valid)
    refused = lens.leads[-1] * valid
    after = states.last[1:].astype(jnp.float32)
    return {
        "count": jnp.sum(valid),
        "refused": jnp.sum(refused),
        "ratios": lens.ratio_sum,
        "leads": jnp.sum(lens.leads * valid, axis=1),
        "refused_states": _weighted(after, refused),
        "answered_states": _weighted(after, valid - refused),
    }


def caption_sums(model: Llava, params: Params, batch: Batch, valid: Array) -> dict[str, Array]:
    """Number and sum of a batch's caption states: float32[] and float32[L, D]."""
    weights = valid * has_span(batch["caption_span"])
    states = caption_states(model, params, batch)
    return {"count": jnp.sum(weights), "states": _weighted(states, weights)}


def sample_figures(
    model: Llava,
    params: Params,
    batch: Batch,
    states: PromptStates,
    ref: Reference,
    apologies: tuple[int, ...],
    *,
    captions: bool,
) -> dict[str, Array]:
    """Figures of every sample of a batch; `captions`: whether there may be captions of images.

    Returns:
        first_layer int32[B], -1 for none; refused, has_pair bool[B]; arrays of [L, B]:
        apology_top1 bool, apology_log_prob, refusal_direction (NaN at a layer without one),
        image_caption_cos and image_caption_cos_centred (of use where has_pair).
    """
    last, image = states.last, states.image
    lens = read_lens(model, params, last, apologies=apologies, weights=jnp.zeros(image.shape[1]))
    caption, mean = jnp.zeros_like(image), ref.caption[:, None]
    if captions:
        caption = caption_states(model, params, batch)
    return {
        "first_layer": safety_layers.first_safety_layer(lens.turns),
        "refused": lens.leads[-1],
        "has_pair": has_span(batch["image_span"]) & has_span(batch["caption_span"]),
        "apology_top1": lens.leads,
        "apology_log_prob": lens.apology_log_prob,
        "refusal_direction": safety_layers.scaled_projection(
            last[1:].astype(jnp.float32), ref.direction, ref.zero, ref.length
        ),
        "image_caption_cos": safe_cosine(image, caption),
        "image_caption_cos_centred": safe_cosine(
            minus_mean(image, mean), minus_mean(caption, mean)
        ),
    }


def jitted(function: Any, model: Llava, sharding: Any, **static: Any) -> Any:
    """`function` of (params, batch, ...) compiled for a model; every device has whole results."""
    return jax.jit(lambda *inputs: function(model, *inputs, **static), out_shardings=sharding)


def _weighted(states: Array, weights: Array) -> Array:
    """float32[L, B, D], float32[B] -> float32[L, D]."""
    return jnp.einsum("lbd,b->ld", states, weights, precision=jax.lax.Precision.HIGHEST)
