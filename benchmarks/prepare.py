"""Pictures a second of `prepare` and of the loader: `python benchmarks/prepare.py`.

Makes JPEG files in a temporary folder and prints a JSON line a measurement, medians of --repeats:
checking pictures as job `prepare` does, writing ArrayRecord, and loading at 224 and 336 pixels from
files, from prepared data, and with a torch DataLoader and the same steps of Pillow. All of it runs
in one process on one core, so the figures are per core; repeats of the loaders take turns, so that
a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from tga_jax.data import tfds_builder
from tga_jax.data.images import ImageTransform, load_image, load_pixels
from tga_jax.data.records import Record, Turn
from tga_jax.data.stored import check_rows

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = make_pictures(folder, args.pictures)
        rows = list(enumerate(records))
        outcomes = list(check_rows(rows, folder, workers=0))
        seconds = [
            timed(lambda: list(check_rows(rows, folder, workers=0))) for _ in range(args.repeats)
        ]
        tell("prepare: check", args.pictures, seconds, core)
        seconds = [
            timed(lambda i=i: write(folder / f"data{i}", outcomes)) for i in range(args.repeats)
        ]
        tell("prepare: write", args.pictures, seconds, core)
        for side in (224, 336):
            loaders = make_loaders(folder, records, folder / "data0", side)
            compare(loaders)
            taken: dict[str, list[float]] = {kind: [] for kind in loaders}
            for _ in range(args.repeats):
                for kind, load in loaders.items():
                    taken[kind].append(timed(lambda load=load: list(load())))
            for kind, seconds in taken.items():
                tell(f"load {side}: {kind}", args.pictures, seconds, core)


def make_pictures(folder: Path, count: int) -> list[Record]:
    """JPEG files of 500 x 375 pixels, smooth enough to have a photograph's size."""
    rng, records = np.random.default_rng(0), []
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (375, 500, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(folder / f"{number}.jpg", quality=90)
        turns = (Turn("<image>\nWhat is it?", "A thing."),)
        records.append(Record(str(number), (f"{number}.jpg",), turns, None, None, False))
    return records


def write(folder: Path, outcomes: list[Any]) -> None:
    examples = [(o.number, o.example) for o in outcomes]
    tfds_builder.write(folder, ["train"], lambda split: examples)


def make_loaders(
    folder: Path, records: list[Record], data: Path, side: int
) -> dict[str, Callable[[], Any]]:
    """Name -> a function that yields all pictures' pixels, uint8[side, side, 3]."""
    import tensorflow_datasets as tfds
    import torch

    transform = ImageTransform(side, None, (side, side), 3, True, MEAN, STD, 1 / 255)
    source = tfds.builder_from_directory(data).as_data_source("train")

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(records)

        def __getitem__(self, index: int) -> np.ndarray:
            return transform(load_image(folder / records[index].images[0], record_id=str(index)))

    def from_files() -> Any:
        for record in records:
            yield load_pixels(folder, record.images[0], transform=transform, record_id=record.id)

    def from_data() -> Any:
        for index in range(len(source)):
            example = source[index]
            yield load_pixels(
                folder, "x", transform=transform, record_id=str(index),
                content=bytes(example["images"][0]),
            )  # fmt: skip

    def from_torch() -> Any:
        loader = torch.utils.data.DataLoader(Pictures(), batch_size=8, num_workers=0)
        for batch in loader:
            yield from batch.numpy()

    torch.set_num_threads(1)
    return {"files": from_files, "prepared data": from_data, "torch DataLoader": from_torch}


def compare(loaders: dict[str, Callable[[], Any]]) -> None:
    """All loaders must give the same pixels, or their times mean nothing."""
    first, *others = (list(load()) for load in loaders.values())
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tell(what: str, pictures: int, seconds: list[float], core: int) -> None:
    rate = pictures / statistics.median(seconds)
    print(
        json.dumps({"what": what, "pictures_per_core_second": round(rate, 1), "runs": len(seconds)})
    )


if __name__ == "__main__":
    main()
