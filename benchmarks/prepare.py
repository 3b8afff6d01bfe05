"""Images a second of `prepare` and of the loader: `python benchmarks/prepare.py`.

Makes JPEG files in a temporary folder and prints a JSON line a measurement, medians of --repeats:
checking images as job `prepare` does, writing ArrayRecord, and loading at 224 and 336 pixels from
files, from prepared data, and with a torch DataLoader and the same steps of Pillow; making tokens
of a sample, and copying a batch out of a worker's shared memory. All of it runs in one process on
one core, so the figures are per core; repeats of the loaders take turns, so that a busy machine
slows all of them alike.

From these it works out how many cores of a host keep the 7B steps of docs/plans.md supplied. Their
seconds are the roofline's: no step is faster, so no step needs more. While a host has these cores,
batches are ready before they are wanted, and the next one is fetched while the devices are busy.
"""

from __future__ import annotations

import argparse
import functools
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

from tga_jax.data.images import ImageTransform, load_image, load_pixels
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD
from tga_jax.hf.source import open_parts
from tga_jax.preparation import tfds_builder
from tga_jax.preparation.check import check_rows

# Stage and hardware, samples a step, seconds a step (docs/plans.md), hosts, cores of a host.
STEPS = (
    ("pretrain, h100:8", 256, 1.05, 1, 208),  # a3-highgpu-8g
    ("finetune, h100:8", 128, 1.12, 1, 208),
    ("finetune, v5e:4x4", 128, 2.80, 4, 112),  # ct5lp-hightpu-4t
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = make_images(folder, args.images)
        outcomes = list(check_rows(records, folder, workers=0))
        seconds = [
            timed(lambda: list(check_rows(records, folder, workers=0))) for _ in range(args.repeats)
        ]
        tell("prepare: check", args.images, seconds, core)
        seconds = [
            timed(functools.partial(write, folder / f"data{number}", outcomes))
            for number in range(args.repeats)
        ]
        tell("prepare: write", args.images, seconds, core)
        for side in (224, 336):
            loaders = make_loaders(folder, records, folder / "data0", side)
            compare(loaders)
            taken: dict[str, list[float]] = {kind: [] for kind in loaders}
            for _ in range(args.repeats):
                for kind, load in loaders.items():
                    taken[kind].append(timed(functools.partial(load_all, load)))
            for kind, seconds in taken.items():
                tell(f"load {side}: {kind}", args.images, seconds, core)
        encode = make_encode()
        tokens = [timed(lambda: [encode() for _ in range(50)]) / 50 for _ in range(args.repeats)]
        pixels = np.zeros((64, 336, 336, 3), np.uint8)
        copies = [timed(lambda: np.array(pixels)) / 64 for _ in range(args.repeats)]
        image = statistics.median(taken["prepared data"]) / args.images
        supply(image, statistics.median(tokens), statistics.median(copies))


def make_encode() -> Callable[[], Any]:
    """A function that makes the tokens of a sample of three turns and 1500 characters."""
    models = Path(__file__).parents[1] / "assets" / "miniature"
    source = open_parts(
        vision=str(models / "clip"), llm=str(models / "llm"), projector="mlp2x_gelu",
        feature_layer=-2, feature_select="default",
    )  # fmt: skip
    prompter = Prompter(
        source.tokenizer.tokenizer, template="vicuna_v1", image_token=source.tokenizer.image_token,
        image_tokens=576, max_length=4096, use_retrieved=True,
    )  # fmt: skip
    turns = [Turn("what is it and where is it " * 3, "a small red cup on the left " * 14)] * 3
    turns[0] = Turn("<image>\n" + turns[0].question, turns[0].answer)
    record = Record("1", ("1.jpg",), tuple(turns), "a red cup", "a cup on a table", False)
    return lambda: prompter.encode(record)


def supply(image: float, tokens: float, copy: float) -> None:
    """Cores that a host needs for each of STEPS, from seconds of a core for one sample.

    Args:
        image: to decode and prepare its image; a host prepares those of its own devices.
        tokens: to make its tokens; every host makes those of the whole batch.
        copy: to copy its image into the training process.
    """
    each = {"tokens_ms": round(1000 * tokens, 3), "copy_ms": round(1000 * copy, 3)}
    print(json.dumps({"what": "a sample", "picture_ms": round(1000 * image, 2), **each}))
    for name, samples, seconds, hosts, cores in STEPS:
        needed = (samples / hosts * image + samples * tokens) / seconds
        line = {"step": name, "samples": samples, "hosts": hosts, "step_seconds": seconds}
        line |= {"cores_needed": round(needed, 1), "of_cores": cores}
        line |= {"copying_share_of_step": round(samples / hosts * copy / seconds, 4)}
        print(json.dumps(line))


def make_images(folder: Path, count: int) -> list[Record]:
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
    """Name -> a function that yields all images' pixels, uint8[side, side, 3]."""
    import tensorflow_datasets as tfds
    import torch

    transform = ImageTransform(side, None, (side, side), 3, True, CLIP_MEAN, CLIP_STD, 1 / 255)
    source = tfds.builder_from_directory(data).as_data_source("train")

    class Images(torch.utils.data.Dataset):
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
        loader = torch.utils.data.DataLoader(Images(), batch_size=8, num_workers=0)
        for batch in loader:
            yield from batch.numpy()

    torch.set_num_threads(1)
    return {"files": from_files, "prepared data": from_data, "torch DataLoader": from_torch}


def compare(loaders: dict[str, Callable[[], Any]]) -> None:
    """All loaders must give the same pixels, or their times mean nothing."""
    first, *others = (load_all(load) for load in loaders.values())
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def load_all(load: Callable[[], Any]) -> list[np.ndarray]:
    """All images of a loader."""
    return list(load())


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tell(what: str, images: int, seconds: list[float], core: int) -> None:
    rate = images / statistics.median(seconds)
    print(
        json.dumps({"what": what, "pictures_per_core_second": round(rate, 1), "runs": len(seconds)})
    )


if __name__ == "__main__":
    main()
