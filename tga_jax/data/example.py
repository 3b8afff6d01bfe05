"""A sample as the model is fed with it: tokens, labels, and the spans that the guide pools over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tga_jax.data.templates import Span
from tga_jax.models.tiling import Layout


@dataclass(frozen=True, eq=False)
class Example:
    """What the model is fed for one sample. Spans are [start, end) in tokens.

    Attributes:
        id: the record's.
        tokens: int32[T], each image's token repeated as often as the model has image features.
        labels: int32[T], the token itself where it is learnt and -100 elsewhere; not shifted.
        image_spans: where each image is.
        retrieved_span: where the retrieved text is, None without one.
        caption_tokens: int32[Tc], the caption pass; empty without a caption and for "tox" rows.
        caption_span: where the caption is in it, None when it is empty.
        answer_span: the token before the first answer, whose state decides how that begins; None
            unless the prompter was asked for it, and where the image is not in the first turn.
        caption_answer_span: its like in the caption pass, which then goes on to there; None also
            where that did not fit.
        images: file names, one for each image span.
        tox: the images are to be replaced by blank ones.
        truncated_tokens: how many tokens of the sample did not fit `max_length`.
        truncated_caption_tokens: how many of its caption pass did not; it then has no answer term.
        contents: the images' bytes, of prepared data; else empty, and they are files.
        layouts: what each image's tokens show, of a model that takes images in tiles; else empty.
    """

    id: str
    tokens: np.ndarray
    labels: np.ndarray
    image_spans: tuple[Span, ...]
    retrieved_span: Span | None
    caption_tokens: np.ndarray
    caption_span: Span | None
    images: tuple[str, ...]
    tox: bool
    truncated_tokens: int
    contents: tuple[bytes, ...] = ()
    answer_span: Span | None = None
    caption_answer_span: Span | None = None
    layouts: tuple[Layout, ...] = ()
    truncated_caption_tokens: int = 0

    def without_images(self) -> Example:
        """The example with its image tokens, and no images for them."""
        return replace(self, images=(), contents=(), layouts=())
