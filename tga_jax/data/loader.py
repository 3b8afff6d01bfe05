"""Step number -> batch, and Grain around it to prepare batches ahead in threads or processes.

`BatchSource` is a pure function of (seed, step), so whatever the workers do, and wherever a run
was interrupted, the batches are the same; the whole state of a loader is its step.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np

from tga_jax.data.batches import balanced_rows, collate
from tga_jax.data.example import Example
from tga_jax.data.images import ImageTransform, load_pixels
from tga_jax.data.in_parallel import children_without_signals, end_with_parent
from tga_jax.data.lazy_records import known_of
from tga_jax.data.mixture import Part
from tga_jax.data.order import plan_order
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record
from tga_jax.data.tiles import TileTransform, tile_counts
from tga_jax.errors import UserError

DRAWN = 256  # samples by which the tokens of all are estimated


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of one step.

    Attributes:
        arrays: those of `batches.collate`, and "images" uint8[A, R, M, H, W, 3] for the R `rows`
            of each of the A micro-batches; M is the most images that a row of the step has, or
            tiles of images.
        ids: of all samples, row after row, micro-batch after micro-batch.
        rows: which rows of each micro-batch "images" holds.
    """

    arrays: dict[str, np.ndarray]
    ids: tuple[str, ...]
    rows: tuple[int, ...]


def _rows_of(batch_size: int, accumulate: int, packing: int) -> int:
    """Rows of a micro-batch."""
    if batch_size % accumulate:
        raise UserError(f"batch_size {batch_size} is not a multiple of accumulate {accumulate}")
    if batch_size // accumulate % packing:
        raise UserError(
            f"batch_size {batch_size} is not a multiple of accumulate {accumulate} times "
            f"packing {packing}"
        )
    return batch_size // accumulate // packing


class BatchSource:
    """Random access to the batches of a run: `source[step]`."""

    def __init__(
        self,
        records: Sequence[Record],
        prompter: Prompter,
        transform: ImageTransform | TileTransform,
        *,
        image_dir: Path | str,
        batch_size: int,
        accumulate: int,
        steps: int,
        seed: int,
        buckets: Sequence[int],
        caption_buckets: Sequence[int],
        pad_id: int,
        rows: Sequence[int] | None = None,
        parts: Sequence[Part] = (),
        packing: int = 1,
    ):
        """Plans the order of all steps.

        Args:
            records: the samples.
            prompter: makes tokens of them.
            transform: makes pixels of their images.
            image_dir: where the images are.
            batch_size: samples a step, over all processes and micro-batches.
            accumulate: micro-batches a step.
            steps, seed: the run's length, and of the order.
            buckets: allowed lengths of rows.
            caption_buckets: allowed lengths of the caption pass.
            pad_id: token for the padding.
            rows: the rows of each micro-batch whose images are loaded here; None means all. Every
                process tokenises all rows, so all agree on the shapes; images cost more.
            parts: sizes and weights of the sets that `records` is a mixture of.
            packing: samples a row. Which samples a step and a micro-batch hold is not changed.

        Raises:
            UserError: when there are no records, or `accumulate` times `packing` doesn't divide
                `batch_size`.
        """
        if not records:
            raise UserError("there are no records to make batches of")
        count = _rows_of(batch_size, accumulate, packing)
        self.records = records
        self._prompter = prompter
        self._transform = transform
        self._image_dir = Path(image_dir)
        self._accumulate, self._packing = accumulate, packing
        self._buckets = tuple(buckets)
        self._caption_buckets = tuple(caption_buckets)
        self._pad_id = pad_id
        self._rows = tuple(range(count) if rows is None else rows)
        self._order = plan_order(
            known_of(records),
            batch_size=batch_size,
            steps=steps,
            seed=seed,
            parts=parts,
        )

    def __len__(self) -> int:
        """The run's number of steps."""
        return len(self._order)

    def __getitem__(self, index: int) -> Batch:
        """The batch of step `index`."""
        examples = self._in_rows([self._encode(i) for i in self._order[index]])
        arrays = collate(
            examples,
            pad_id=self._pad_id,
            buckets=self._buckets,
            caption_buckets=self._caption_buckets,
            accumulate=self._accumulate,
            packing=self._packing,
        )
        arrays["images"] = self._images(examples)
        return Batch(arrays, tuple(example.id for example in examples), self._rows)

    def about_tokens(self, done: int) -> int:
        """Returns about how many tokens the steps after `done` have, by a draw of their samples."""
        samples = self._order[done:].reshape(-1)
        drawn = samples[:: max(1, len(samples) // DRAWN)]
        lengths = [len(self._encode(i).tokens) for i in drawn]
        return round(float(np.mean(lengths)) * len(samples)) if lengths else 0

    def image_first(self) -> bool:
        """Returns whether an image's tokens are the first of their sample, as they are under a
        template without a question where the tokenizer puts no token of its own in front."""
        samples = self._order.reshape(-1)[:DRAWN]
        spans = (span for i in samples for span in self._encode(i).image_spans)
        first = next(spans, None)  # the template is the same for all, so one sample tells
        return first is not None and first[0] == 0

    def _encode(self, index: int) -> Example:
        return self._prompter.encode(self.records[int(index)], self._image_dir)

    def _in_rows(self, examples: list[Example]) -> list[Example]:
        """The examples of each micro-batch, those of a row next to each other."""
        size = len(examples) // self._accumulate
        parts = [examples[start : start + size] for start in range(0, len(examples), size)]
        return [
            part[i]
            for part in parts
            for i in balanced_rows([len(example.tokens) for example in part], self._packing)
        ]

    def _images(self, examples: Sequence[Example]) -> np.ndarray:
        """Returns uint8[A, R, M, H, W, 3]; places without an image stay zero."""
        packing = self._packing
        rows = [examples[i : i + packing] for i in range(0, len(examples), packing)]
        most = self._transform.room(max(sum(sum(tile_counts(e)) for e in row) for row in rows))
        shape = (self._accumulate, len(self._rows), most, *self._transform.size, 3)
        images = np.zeros(shape, np.uint8)
        rows_per_micro_batch = len(rows) // self._accumulate
        for micro_batch in range(self._accumulate):
            for place, row in enumerate(self._rows):
                target = images[micro_batch, place]
                for example in rows[micro_batch * rows_per_micro_batch + row]:
                    target = put_pixels(
                        example, target, image_dir=self._image_dir, transform=self._transform
                    )
        return images


class Loader(Iterator[Batch]):
    """Iterates over the batches of a source from some step on; its state is the next step."""

    def __init__(self, source: BatchSource, *, start_step: int, workers: int, prefetch: int):
        self._source = source
        self._workers = workers
        self._prefetch = prefetch
        self._open(start_step)

    def _open(self, step: int) -> None:
        self._step = step
        dataset = grain.MapDataset.source(self._source)[step:].map(_to_tree)
        # A worker process makes one batch at a time; without workers, threads make several.
        threads = 0 if self._workers else self._prefetch
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        batches = dataset.to_iter_dataset(options)
        if self._workers:
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=self._workers, per_worker_buffer_size=max(1, self._prefetch)
                ),
                worker_init_fn=end_with_parent,
            )
        self._started = not self._workers
        with children_without_signals():  # Grain makes its threads here, processes at `next`
            self._batches = iter(batches)

    def __next__(self) -> Batch:
        with contextlib.nullcontext() if self._started else children_without_signals():
            tree = next(self._batches)
        self._started = True
        self._step += 1
        # Grain hands over shared memory that it frees on its own; a batch owns its arrays.
        arrays = tree["arrays"]
        if self._workers:
            arrays = {name: np.array(array) for name, array in arrays.items()}
        return Batch(arrays, tuple(tree["ids"]), tuple(tree["rows"]))

    def get_state(self) -> dict[str, int]:
        """Returns what `set_state` needs to go on from here, whatever the number of workers."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on at the step of a state."""
        self.close()
        self._open(state["step"])

    def close(self) -> None:
        """Ends threads and worker processes."""
        self._batches.close()


def make_loader(
    source: BatchSource, *, start_step: int = 0, workers: int = 0, prefetch: int = 2
) -> Loader:
    """Returns an iterator over `source[start_step:]`.

    Args:
        source: the batches.
        start_step: the first step.
        workers: processes that prepare batches; with 0 threads of this process do. Grain wants
            absl's flags to be parsed before it starts processes.
        prefetch: batches prepared ahead, by each worker process if there are any.

    The iterator raises UserError as the source does, also from threads and processes.
    """
    return Loader(source, start_step=start_step, workers=workers, prefetch=prefetch)


def put_pixels(
    example: Example,
    target: np.ndarray,
    *,
    image_dir: Path,
    transform: ImageTransform | TileTransform,
) -> np.ndarray:
    """Writes a sample's images into uint8[M, H, W, 3]; returns the part behind them."""
    for number in range(len(example.images)):
        tiles = example_pixels(example, number, image_dir=image_dir, transform=transform)
        target[: len(tiles)] = tiles
        target = target[len(tiles) :]
    return target


def example_pixels(
    example: Example, number: int, *, image_dir: Path, transform: ImageTransform | TileTransform
) -> np.ndarray:
    """Returns uint8[tiles, H, W, 3], a sample's image: blank, from its bytes, or from its file.

    Raises:
        UserError: naming the record and the image.
    """
    if example.tox:
        pixels = transform.blank()
    else:
        pixels = load_pixels(
            image_dir,
            example.images[number],
            transform=transform,
            record_id=example.id,
            content=example.contents[number] if example.contents else None,
        )
    tiles = pixels.reshape(-1, *transform.size, 3)
    if len(tiles) != tile_counts(example)[number]:
        raise UserError(
            f"record {example.id}: image {example.images[number]}: has another size than when its "
            "tokens were counted; let no other program change the images"
        )
    return tiles


def _to_tree(batch: Batch) -> dict[str, Any]:
    """Grain moves arrays between processes through shared memory when it finds them in a dict."""
    return {"arrays": batch.arrays, "ids": batch.ids, "rows": batch.rows}
