"""Made-up batches, as arrays or as shapes alone, with the keys that the objective reads.

Letters: A micro-batches, R rows of each, B samples of each (R times packing), T tokens of a row,
C caption tokens.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from tga_jax.data.tiles import room_for
from tga_jax.errors import UserError
from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.config import LlavaConfig, Tiling
from tga_jax.models.tiling import Layout, layout_of

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
        return out | (self._tiled(config.tiling, side) if config.tiling else {})

    def _tiled(self, tiling: Tiling, side: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Of images in as many tiles as there can be."""
        tokens, most = (self.accumulate, self.rows, self.length), tiling.most_tiles(side)
        tiles = (*tokens[:2], room_for(self.packing * most, most))
        sources = 1 if tiling.most is None else 4
        weights = {"image_weights": ((*tokens, sources), np.float32)} if sources > 1 else {}
        return weights | {
            "images": ((*tiles, side, side, 3), np.uint8),
            "image_sources": ((*tokens, sources), np.int32),
            "unpooled": (tokens, np.bool_),
        }


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

    They fill their rows but for what `packing` leaves over when it divides the length. Images in
    tiles are as large as fits.

    Raises:
        UserError: the rows are too short for that.
    """
    rng, each = np.random.default_rng(seed), shape.length // shape.packing
    layout = largest_layout(config, each)
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
        if layout is not None:
            _place(arrays, image, layout, before=number * layout.tiles)
        for name in SPANS:
            offset = 0 if name.startswith("caption") else start
            arrays[name][:, number :: shape.packing] = np.add(spans[name], offset)
    arrays["images"][:] = rng.integers(0, 256, arrays["images"].shape, np.uint8)
    return arrays


def sample_spans(shape: BatchShape, config: LlavaConfig) -> dict[str, tuple[int, int]]:
    """Where a made-up sample has what; what the image leaves is cut in four like parts."""
    length = shape.length // shape.packing
    layout = largest_layout(config, length)
    shown = config.image_tokens if layout is None else layout.tokens
    quarter = (length - shown) // 4
    if quarter < 1 or shape.caption_length < 2:
        raise UserError(
            f"samples of {length} tokens with captions of {shape.caption_length}: too short "
            f"for an image of {shown} tokens and a text"
        )
    image = 2 * quarter
    return {
        "retrieved_span": (quarter, image),
        "image_span": (image, image + shown),
        "answer": (length - quarter, length),
        "caption_span": (1, shape.caption_length),
        "answer_span": (length - quarter - 1, length - quarter),
        "caption_answer_span": (shape.caption_length - 1, shape.caption_length),
    }


def largest_layout(config: LlavaConfig, length: int) -> Layout | None:
    """Of an image in tiles with the most tokens that leave a text room; None without a tiling."""
    if config.tiling is None:
        return None
    layouts = [layout_of(point, config) for point in config.tiling.pinpoints]
    fitting = [layout for layout in layouts if layout.tokens + 4 <= length]
    if not fitting:
        return min(layouts, key=lambda layout: layout.tokens)
    return max(fitting, key=lambda layout: layout.tokens)


def _place(arrays: dict[str, np.ndarray], image: slice, layout: Layout, *, before: int) -> None:
    arrays["image_sources"][..., image, :] = layout.shifted(before)
    arrays["unpooled"][..., image] = ~layout.pooled
    if "image_weights" in arrays:
        arrays["image_weights"][..., image, :] = layout.weights


def _words(rng: np.random.Generator, dims: tuple[int, ...], config: LlavaConfig) -> np.ndarray:
    """Random tokens other than the image's."""
    drawn = rng.integers(1, config.decoder.vocab - 1, dims)
    return drawn + (drawn >= config.image_token)
