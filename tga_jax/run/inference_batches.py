"""Samples for inference: like lengths together, fixed shapes, the next batch prepared meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from tga_jax.data.batches import collate
from tga_jax.data.loader import example_pixels
from tga_jax.data.prompts import Example
from tga_jax.parallel.sharding import batch_sharding, batch_shards
from tga_jax.run.context import Context


@dataclasses.dataclass(frozen=True)
class InferenceBatch:
    """arrays of [B, ...] on the mesh; the first len(rows) of them are samples, the rest filling."""

    rows: list[int]
    examples: list[Example]
    arrays: dict[str, jax.Array]


def inference_batches(
    context: Context,
    rows: Sequence[int],
    encode: Callable[[int], Example],
    *,
    batch_size: int,
    image_dir: Callable[[int], Path] | None = None,
) -> Iterator[InferenceBatch]:
    """Batches of `rows` in this order; the last one is filled up with repeats.

    Args:
        context: the run.
        rows: numbers of the samples, best sorted by length.
        encode: number -> example.
        batch_size: rounded up to what the mesh divides.
        image_dir: number -> the sample's picture folder; config.data.image_dir without.
    """
    folder_of = image_dir or (lambda row: context.image_dir())
    ways = batch_shards(context.mesh)
    size = -(-batch_size // ways) * ways

    def prepare(start: int) -> InferenceBatch:
        chosen = list(rows[start : start + size])
        examples = [encode(row) for row in chosen]
        folders = [
            folder_of(row) if example.images and not example.contents else Path()
            for row, example in zip(chosen, examples, strict=True)
        ]
        return InferenceBatch(chosen, examples, _arrays(context, examples, folders, size))

    starts = range(0, len(rows), size)
    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(prepare, start) for start in starts[:1]]
        for start in [*starts[1:], None]:
            now = ahead.pop().result() if ahead else None
            if start is not None:
                ahead.append(pool.submit(prepare, start))
            if now is not None:
                yield now


def _arrays(
    context: Context, examples: list[Example], folders: list[Path], size: int
) -> dict[str, jax.Array]:
    filled = examples + [examples[-1]] * (size - len(examples))
    folders = folders + [folders[-1]] * (size - len(folders))
    arrays = collate(
        filled,
        pad_id=context.source.tokenizer.pad_id,
        buckets=context.buckets(),
        caption_buckets=context.caption_buckets(),
        accumulate=1,
    )
    arrays = {name: value[0] for name, value in arrays.items()}
    arrays["images"] = _images(context, filled, folders)
    sharding = batch_sharding(context.mesh)
    return {name: place(value, sharding) for name, value in arrays.items()}


def place(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process holds whole, on the mesh; nothing goes between processes."""
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _images(context: Context, examples: Sequence[Example], folders: Sequence[Path]) -> np.ndarray:
    """uint8[B, M, side, side, 3]."""
    most = max(len(example.images) for example in examples)
    out = np.zeros((len(examples), most, *context.transform.size, 3), np.uint8)
    for row, (example, folder) in enumerate(zip(examples, folders, strict=True)):
        for place in range(len(example.images)):
            out[row, place] = example_pixels(
                example, place, image_dir=folder, transform=context.transform
            )
    return out
