"""States of a prompt where its answer begins and over its image, from one run of the decoder.

Letters: B samples, L layers, T length, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tga_jax.alignment.pooling import pooled_tokens


@flax.struct.dataclass
class PromptStates:
    """States before the final norm, of a batch of prompts."""

    last: Array  # dtype[1 + L, B, D]: at the last position, of the embeddings first
    image: Array  # float32[L, B, D]: mean over the first image; 0 where there is none

    def of(self, row: int) -> PromptStates:
        """Those of one prompt, [1 + L, D] and [L, D]."""
        return PromptStates(self.last[:, row], self.image[:, row])


def prompt_spans(batch: Mapping[str, Array]) -> Bool[Array, "batch 2 length"]:
    """What the decoder has to pool for `prompt_states`: the last position, and the image.

    Args:
        batch: tokens and segments int32[B, T], image_span int32[B, 2], and unpooled bool[B, T]
            where there is any.
    """
    last = _last(batch["segments"])
    # A span of one position: its mean is the state itself.
    spans = jnp.stack([jnp.stack([last, last + 1], axis=1), batch["image_span"]], axis=1)
    return pooled_tokens(spans, batch)


def prompt_states(
    embeddings: Float[Array, "batch length width"],
    segments: Int[Array, "batch length"],
    pooled: Float[Array, "layers batch 2 width"],
) -> PromptStates:
    """The states of prompts whose `prompt_spans` the decoder pooled."""
    last = _last(segments)
    first = jnp.take_along_axis(embeddings, last[:, None, None], axis=1)[:, 0]
    states = jnp.concatenate([first[None], pooled[:, :, 0].astype(first.dtype)])
    return PromptStates(states, pooled[:, :, 1])


def _last(segments: Any) -> Any:
    return jnp.sum(segments > 0, axis=1) - 1
