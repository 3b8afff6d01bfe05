"""The forward passes of a training step: the main pass, and the caption pass beside it.

Letters: R rows, B samples, T length, Tc length of the caption pass, M images a row, N spans, D
width.

Without packing a row is a sample. With packing the B / R samples of a row are next to each other in
the arrays of samples, and have the segments 1, 2, ... in the arrays of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tga_jax.alignment.guide import AnswerStates, GuideStates
from tga_jax.alignment.pooling import has_span, pooled_tokens, span_mask
from tga_jax.models.llava import Llava, Params
from tga_jax.models.tiling import images_of
from tga_jax.training.cross_entropy import shift_labels, token_nll

Batch = dict[str, Array]


@flax.struct.dataclass
class Passes:
    """What the forward passes leave: nll float32[R, T], states float32[layers, B, D].

    The layers are all, or the first caption_blocks of the caption's states.
    """

    nll: Array
    states: GuideStates | None
    answers: AnswerStates | None = None


def forward(
    model: Llava,
    params: Params,
    batch: Batch,
    *,
    guided: bool,
    ce_chunk: int,
    detach: bool = True,
    answers: bool = False,
    caption_blocks: int | None = None,
) -> Passes:
    """The main pass, and (guided) the caption pass.

    Args:
        model: the model.
        params: its parameters.
        batch: tokens, labels, segments, positions int32[R, T]; images uint8[R, M, side, side, 3];
            image_span, retrieved_span, caption_span int32[B, 2]; caption_tokens,
            caption_segments int32[B, Tc]; of images in tiles also what `images_of` reads, and
            unpooled.
        guided: whether hidden states are pooled and the caption pass is run.
        ce_chunk: see `token_nll`.
        detach: no gradient flows through the caption pass.
        answers: whether the states where the answer begins are wanted too; the batch then has
            answer_span, caption_answer_span int32[B, 2].
        caption_blocks: see `caption_pass`; the caption's states then have so many layers.
    """
    pool = None
    if guided:
        names = ["image_span", "retrieved_span", *["answer_span"] * answers]
        spans = jnp.stack([batch[name] for name in names], axis=1)
        pool = pooled_tokens(spans.reshape(batch["tokens"].shape[0], -1, 2), batch)
    embeddings = model.embed(params, batch["tokens"], images_of(batch))
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
    caption = caption_pass(model, params, batch, names, detach=detach, blocks=caption_blocks)
    # [all layers, B, N, D]: a packed row holds the spans of several samples.
    layers, _, _, width = out.pooled.shape
    pooled = out.pooled.reshape(layers, caption.shape[1], -1, width)
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
    model: Llava,
    params: Params,
    batch: Batch,
    names: Sequence[str],
    *,
    detach: bool = True,
    blocks: int | None = None,
) -> Float[Array, "layers batch spans width"]:
    """Mean hidden states over spans of the text-only pass: float32[layers, B, N, D].

    The states are 0 where a sample has no span.

    Args:
        model: the model.
        params: its parameters.
        batch: as `forward` has it.
        names: the N keys of the batch that have the spans.
        detach: no gradient flows through the pass.
        blocks: how many blocks are wanted, counted from the first; None: all. A detached pass runs
            only these, and none where the batch has no span at all.
    """
    if detach:
        params = jax.lax.stop_gradient(params)
    tokens = batch["caption_tokens"]
    spans = jnp.stack([batch[name] for name in names], axis=1)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

    def states() -> Array:
        out = model.decode(
            params,
            model.embed(params, tokens, None),
            positions=positions,
            segments=batch["caption_segments"],
            pool=span_mask(spans, tokens.shape[1]),
            blocks=blocks if detach else None,
        )
        assert out.pooled is not None
        return out.pooled[:blocks]

    if not detach:  # the parameters that a gradient needs would leave the branch as a copy
        return states()
    like = jax.eval_shape(states)
    return jax.lax.cond(jnp.any(has_span(spans)), states, lambda: jnp.zeros(like.shape, like.dtype))
