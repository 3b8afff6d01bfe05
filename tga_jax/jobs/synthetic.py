"""Made-up batches, as arrays or as shapes alone, with the keys that the objective reads.

Letters: A micro-batches, B rows of each, T tokens, C caption tokens, M pictures a row.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from tga_jax.errors import UserError
from tga_jax.models.config import LlavaConfig

SPANS = ("image_span", "retrieved_span", "caption_span", "answer_span", "caption_answer_span")


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """`batch_size` rows in `accumulate` micro-batches, each with one picture."""

    batch_size: int
    accumulate: int
    length: int
    caption_length: int

    @property
    def rows(self) -> int:
        """Rows of a micro-batch."""
        return self.batch_size // self.accumulate

    def arrays(self, config: LlavaConfig) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every array of a batch, [A, B, ...]."""
        main, caption = (self.length,), (self.caption_length,)
        side = config.vision.image_size
        integers = {
            **dict.fromkeys(("tokens", "labels", "segments", "positions"), main),
            **dict.fromkeys(("caption_tokens", "caption_segments"), caption),
            **dict.fromkeys(SPANS, (2,)),
            "format": (),
        }
        lead = (self.accumulate, self.rows)
        out: dict[str, tuple[tuple[int, ...], type]] = {
            name: ((*lead, *shape), np.int32) for name, shape in integers.items()
        }
        out["images"] = ((*lead, 1, side, side, 3), np.uint8)
        return out


def batch_structs(
    shape: BatchShape, config: LlavaConfig, sharding: jax.sharding.Sharding | None
) -> dict[str, jax.ShapeDtypeStruct]:
    """The batch as shapes."""
    return {
        name: jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)
        for name, (dims, dtype) in shape.arrays(config).items()
    }


def made_up_batch(shape: BatchShape, config: LlavaConfig, *, seed: int) -> dict[str, np.ndarray]:
    """Rows without padding: a retrieved text, a picture, a question, an answer, a caption.

    Raises:
        UserError: the rows are too short for that.
    """
    rng = np.random.default_rng(seed)
    spans = row_spans(shape, config)
    arrays: dict[str, np.ndarray] = {
        name: np.zeros(dims, dtype) for name, (dims, dtype) in shape.arrays(config).items()
    }
    for name in ("tokens", "caption_tokens"):
        arrays[name][:] = _words(rng, arrays[name].shape, config)
    image, answer = spans["image_span"], spans["answer"]
    arrays["tokens"][..., slice(*image)] = config.image_token
    arrays["labels"][:] = -100
    arrays["labels"][..., slice(*answer)] = arrays["tokens"][..., slice(*answer)]
    arrays["segments"][:] = arrays["caption_segments"][:] = 1
    arrays["positions"][:] = np.arange(shape.length)
    for name in SPANS:
        arrays[name][:] = spans[name]
    arrays["images"][:] = rng.integers(0, 256, arrays["images"].shape, np.uint8)
    return arrays


def row_spans(shape: BatchShape, config: LlavaConfig) -> dict[str, tuple[int, int]]:
    """Where a made-up row has what; what the picture leaves is cut in four like parts."""
    quarter = (shape.length - config.image_tokens) // 4
    if quarter < 1 or shape.caption_length < 2:
        raise UserError(
            f"rows of {shape.length} tokens with captions of {shape.caption_length}: too short "
            f"for a picture of {config.image_tokens} tokens and a text"
        )
    image = 2 * quarter
    return {
        "retrieved_span": (quarter, image),
        "image_span": (image, image + config.image_tokens),
        "answer": (shape.length - quarter, shape.length),
        "caption_span": (1, shape.caption_length),
        "answer_span": (shape.length - quarter - 1, shape.length - quarter),
        "caption_answer_span": (shape.caption_length - 1, shape.caption_length),
    }


def _words(rng: np.random.Generator, dims: tuple[int, ...], config: LlavaConfig) -> np.ndarray:
    """Random tokens other than the picture's."""
    drawn = rng.integers(1, config.decoder.vocab - 1, dims)
    return drawn + (drawn >= config.image_token)
