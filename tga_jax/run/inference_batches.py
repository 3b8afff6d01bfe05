"""Samples for inference: like lengths together, fixed shapes, the next batch prepared meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.data.batches import collate, pick_bucket
from tga_jax.data.example import Example
from tga_jax.data.images import ImageTransform
from tga_jax.data.loader import put_pixels
from tga_jax.data.tiles import TileTransform, tile_counts
from tga_jax.parallel.sharding import batch_sharding, batch_shards, local_rows
from tga_jax.run.model import OpenModel
from tga_jax.run.prompts import caption_buckets, prompt_buckets

Encoded = tuple[int, Example]  # a sample's number and what was made of it


@dataclasses.dataclass(frozen=True)
class InferenceBatch:
    """arrays of [B, ...] on the mesh; the first len(rows) of them are samples, the rest filling."""

    rows: list[int]
    examples: list[Example]
    arrays: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Batcher:
    """Makes batches of examples for a model.

    Attributes:
        mesh: the devices that the arrays go to.
        transform: images -> pixels.
        pad_id: the token that fills rows up.
        buckets: the padded lengths of prompts.
        caption_buckets: the padded lengths of the caption pass.
    """

    mesh: Mesh
    transform: ImageTransform | TileTransform
    pad_id: int
    buckets: tuple[int, ...]
    caption_buckets: tuple[int, ...]

    @classmethod
    def of(cls, data: ConfigDict, model: OpenModel) -> Batcher:
        """The batches that `config.data` describes for a model."""
        return cls(
            model.mesh,
            model.transform,
            model.source.tokenizer.pad_id,
            prompt_buckets(data),
            caption_buckets(data),
        )

    def batches(
        self,
        rows: Sequence[int],
        encode: Callable[[int], Example],
        *,
        batch_size: int,
        image_dir: Callable[[int], Path],
    ) -> Iterator[InferenceBatch]:
        """Yields batches of `rows` in this order; the last one is filled up with repeats.

        Args:
            rows: numbers of the samples, best sorted by length.
            encode: number -> example.
            batch_size: is rounded up to what the mesh divides.
            image_dir: number -> the sample's image folder; asked only where it has images.
        """
        size = self.rounded(batch_size)

        def consecutive() -> Iterator[list[Encoded]]:
            for start in range(0, len(rows), size):
                yield [(row, encode(row)) for row in rows[start : start + size]]

        return self._prepared(consecutive(), size, image_dir)

    def alike(
        self,
        rows: Sequence[int],
        encode: Callable[[int], Example],
        *,
        batch_size: int,
        image_dir: Callable[[int], Path],
    ) -> Iterator[InferenceBatch]:
        """Yields batches of prompts that are padded alike and have room for as many images.

        The rows are taken in this order, and a batch comes when it is full; in the end those that
        are not are filled up with repeats. So a row is padded in the same way whatever rows are
        asked with it. The arguments are those of `batches`.
        """
        size = self.rounded(batch_size)
        return self._prepared(self._alike(rows, encode, size), size, image_dir)

    def _alike(
        self, rows: Sequence[int], encode: Callable[[int], Example], size: int
    ) -> Iterator[list[Encoded]]:
        filling: dict[tuple[int, int], list[Encoded]] = {}
        for row in rows:
            example = encode(row)
            length = pick_bucket(len(example.tokens), self.buckets, name=f"record {example.id}")
            shape = length, self.transform.room(sum(tile_counts(example)))
            filling.setdefault(shape, []).append((row, example))
            if len(filling[shape]) == size:
                yield filling.pop(shape)
        yield from filling.values()

    def rounded(self, batch_size: int) -> int:
        """A batch size that the mesh divides, at least this one."""
        ways = batch_shards(self.mesh)
        return -(-batch_size // ways) * ways

    def _prepared(
        self, groups: Iterator[list[Encoded]], size: int, image_dir: Callable[[int], Path]
    ) -> Iterator[InferenceBatch]:
        """The batches of these groups; the next one is prepared meanwhile."""

        def prepare() -> InferenceBatch | None:
            group = next(groups, None)
            if group is None:
                return None
            rows, examples = [row for row, _ in group], [example for _, example in group]
            folders = [
                image_dir(row) if example.images and not example.contents else Path()
                for row, example in group
            ]
            return InferenceBatch(rows, examples, self._arrays(examples, folders, size))

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(prepare)
            while (now := ahead.result()) is not None:
                ahead = pool.submit(prepare)
                yield now

    def _arrays(
        self, examples: list[Example], folders: list[Path], size: int
    ) -> dict[str, jax.Array]:
        filled = examples + [examples[-1]] * (size - len(examples))
        folders = folders + [folders[-1]] * (size - len(folders))
        arrays = collate(
            filled,
            pad_id=self.pad_id,
            buckets=self.buckets,
            caption_buckets=self.caption_buckets,
            accumulate=1,
        )
        arrays = {name: value[0] for name, value in arrays.items()}
        arrays["images"] = self._images(filled, folders)
        sharding = batch_sharding(self.mesh)
        return {name: place(value, sharding) for name, value in arrays.items()}

    def _images(self, examples: Sequence[Example], folders: Sequence[Path]) -> np.ndarray:
        """uint8[B, M, side, side, 3]; M is the most images of an example, or tiles of them.

        Images are read of the rows that this process's devices hold; the others' stay zero.
        """
        most = self.transform.room(max(sum(tile_counts(example)) for example in examples))
        out = np.zeros((len(examples), most, *self.transform.size, 3), np.uint8)
        for row in local_rows(self.mesh, len(examples)):
            put_pixels(examples[row], out[row], image_dir=folders[row], transform=self.transform)
        return out


def place(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Puts an array on the mesh; nothing goes between processes.

    Of several processes each holds it whole, or at least what its own devices take.
    """
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
