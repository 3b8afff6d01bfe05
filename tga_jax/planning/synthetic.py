"""Made-up batches, as arrays or as shapes alone, with the keys that the objective reads.

Letters: A micro-batches, R rows of each, B samples of each (R times packing), T tokens of a row,
C caption tokens.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from tga_jax.errors import UserError
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.config import LlavaConfig

SPANS = ("image_span", "retrieved_span", "caption_span", "answer_span", "caption_answer_span")


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """`batch_size` samples with an image each, in `accumulate` micro-batches, `packing` a row."""

    batch_size: int
    accumulate: int
    length: int  # of a row
    caption_length: int
    packing: int = 1

    @property
    def samples(self) -> int:
        """How many samples a micro-batch has."""
        return self.batch_size // self.accumulate

    @property
    def rows(self) -> int:
        """How many rows a micro-batch has; packed samples share one."""
        return self.samples // self.packing

    @property
    def tokens(self) -> int:
        """How many tokens the rows of a step have, padding included."""
        return self.accumulate * self.rows * self.length

    def divides(self, shards: int) -> bool:
        """Whether micro-batches, packed rows and batch shards come out even."""
        return self.batch_size % (self.accumulate * self.packing * shards) == 0

    def arrays(self, config: LlavaConfig) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every array: [A, R, ...], or [A, B, ...] of what a sample has."""
        side = config.vision.image_size
        row, sample = (self.accumulate, self.rows), (self.accumulate, self.samples)
        integers = {
            **dict.fromkeys(("tokens", "labels", "segments", "positions"), (*row, self.length)),
            **dict.fromkeys(("caption_tokens", "caption_segments"), (*sample, self.caption_length)),
            **dict.fromkeys(SPANS, (*sample, 2)),
        }
        out: dict[str, tuple[tuple[int, ...], type]] = {
            name: (shape, np.int32) for name, shape in integers.items()
        }
        out["images"] = ((*row, self.packing, side, side, 3), np.uint8)
        return out


def batch_structs(
    shape: BatchShape, config: LlavaConfig, sharding: jax.sharding.Sharding | None
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes, dtypes and shardings of a batch, without its values."""
    return {
        name: jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)
        for name, (dims, dtype) in shape.arrays(config).items()
    }


def made_up_batch(shape: BatchShape, config: LlavaConfig, *, seed: int) -> dict[str, np.ndarray]:
    """Samples of a retrieved text, an image, a question, an answer and a caption.

    They fill their rows but for what `packing` leaves over when it divides the length.

    Raises:
        UserError: the rows are too short for that.
    """
    rng, each = np.random.default_rng(seed), shape.length // shape.packing
    spans = sample_spans(shape, config)
    arrays: dict[str, np.ndarray] = {
        name: np.zeros(dims, dtype) for name, (dims, dtype) in shape.arrays(config).items()
    }
    for name in ("tokens", "caption_tokens"):
        arrays[name][:] = _words(rng, arrays[name].shape, config)
    arrays["labels"][:] = IGNORE_INDEX
    arrays["caption_segments"][:] = 1
    for number in range(shape.packing):
        start = number * each
        inside = slice(start, start + each)
        image, answer = (
            slice(start + spans[name][0], start + spans[name][1])
            for name in ("image_span", "answer")
        )
        arrays["tokens"][..., image] = config.image_token
        arrays["labels"][..., answer] = arrays["tokens"][..., answer]
        arrays["segments"][..., inside] = number + 1
        arrays["positions"][..., inside] = np.arange(each)
        for name in SPANS:
            offset = 0 if name.startswith("caption") else start
            arrays[name][:, number :: shape.packing] = np.add(spans[name], offset)
    arrays["images"][:] = rng.integers(0, 256, arrays["images"].shape, np.uint8)
    return arrays


def sample_spans(shape: BatchShape, config: LlavaConfig) -> dict[str, tuple[int, int]]:
    """Where a made-up sample has what; what the image leaves is cut in four like parts."""
    length = shape.length // shape.packing
    quarter = (length - config.image_tokens) // 4
    if quarter < 1 or shape.caption_length < 2:
        raise UserError(
            f"samples of {length} tokens with captions of {shape.caption_length}: too short "
            f"for an image of {config.image_tokens} tokens and a text"
        )
    image = 2 * quarter
    return {
        "retrieved_span": (quarter, image),
        "image_span": (image, image + config.image_tokens),
        "answer": (length - quarter, length),
        "caption_span": (1, shape.caption_length),
        "answer_span": (length - quarter - 1, length - quarter),
        "caption_answer_span": (shape.caption_length - 1, shape.caption_length),
    }


def _words(rng: np.random.Generator, dims: tuple[int, ...], config: LlavaConfig) -> np.ndarray:
    """Random tokens other than the image's."""
    drawn = rng.integers(1, config.decoder.vocab - 1, dims)
    return drawn + (drawn >= config.image_token)
