"""An audit's questions beside transformers' `generate`: `python -m benchmarks.audit`.

Makes a LLaVA of random weights whose decoder has the shape of SmolLM2-135M, reads it into both, and
asks both the same questions: half have an image, the texts are of unequal length, and so are the
greedy answers, as 3.4% of the vocabulary end one: the median is about 20 tokens, the longest are
cut at 128. Ours are asked as job `evaluate` asks them, refusal margins included; transformers' in
batches that favour it, of like prompts and with images that are read already.

The questions are asked in parts, ours and theirs in turn, so that other work on the machine
disturbs both alike. The first part is asked once before, which compiles. Prints a JSON object; the
ratio is (their seconds / ours) for all parts together, by the clock and by the process's CPU time.

    python -m benchmarks.audit --whole-batches     # also ours without refilling
    python -m benchmarks.audit --small             # a minute, in small
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generation import FIRST_TEXT, PAD, load_ours, make_reference
from benchmarks.guard import machine_kind, processor, write_ratios
from benchmarks.reference import IMAGE_TOKEN
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD

APOLOGIES = (20, 21, 22)
SMALL = {
    "layers": 2, "width": 64, "ffn": 128, "heads": 4, "kv_heads": 2, "vocab": 512,
    "image_tokens_a_side": 2, "vision_width": 32, "vision_layers": 2, "questions": 20, "batch": 4,
    "new_tokens": 24, "parts": 2, "text_tokens": (6, 24), "ends": 0.3,
}  # fmt: skip

# Numbers of questions -> the tokens of each answer.
Ask = Callable[[Sequence[int]], dict[int, list[int]]]


@dataclasses.dataclass(frozen=True)
class Questions:
    """Token ids of each question, its image uint8[side, side, 3] or None, and ids that end it."""

    rows: list[list[int]]
    images: list[np.ndarray | None]
    ends: tuple[int, ...]

    def by_length(self, numbers: Sequence[int]) -> list[int]:
        """Those without an image by themselves, and like lengths together."""
        return sorted(numbers, key=lambda i: (self.images[i] is not None, len(self.rows[i])))


def main() -> None:
    args = arguments()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores :])
    questions = make_questions(args)
    with tempfile.TemporaryDirectory() as folder:
        theirs = make_reference(
            args,
            Path(folder),
            embedding=0.2,
            vision_width=args.vision_width,
            vision_layers=args.vision_layers,
            tied_head=True,
        )
        arms = {"tga_jax": our_audit(args, Path(folder), questions)}
        if args.whole_batches:
            arms["whole batches"] = our_batches(args, Path(folder), questions)
        arms["transformers"] = their_audit(args, theirs, questions)
        result = compare(args, arms)
    if args.write:
        higher = {"speed (CPU time) over transformers": result["cpu_ratio"]}
        write_ratios(args.write, "audit", higher=higher)
    print(json.dumps(result, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=0, help="0: all")
    sizes = {
        "layers": 30, "width": 576, "ffn": 1536, "heads": 9, "kv_heads": 3, "vocab": 49152,
        "image_tokens_a_side": 8, "vision_width": 384, "vision_layers": 12, "questions": 500,
        "batch": 16, "new_tokens": 128, "parts": 5,
    }  # fmt: skip
    for name, size in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    parser.add_argument("--text-tokens", type=int, nargs=2, default=(12, 100), metavar="N")
    parser.add_argument("--ends", type=float, default=0.034, help="share of ids that end an answer")
    parser.add_argument("--small", action="store_true", help="a tiny model and few questions")
    parser.add_argument("--whole-batches", action="store_true", help="also without refilling")
    parser.add_argument("--write", type=Path, help="leave the ratios in this file for the guard")
    parser.set_defaults(device="cpu", dtype="float32")
    args = parser.parse_args()
    if args.small:
        vars(args).update(SMALL)
    return args


def make_questions(args: argparse.Namespace) -> Questions:
    """Every other question has an image in front of its text."""
    rng, side = np.random.default_rng(0), 14 * args.image_tokens_a_side
    rows: list[list[int]] = []
    images: list[np.ndarray | None] = []
    for number in range(args.questions):
        text = rng.integers(FIRST_TEXT, args.vocab, rng.integers(*args.text_tokens)).tolist()
        image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8) if number % 2 else None
        shown = [] if image is None else [IMAGE_TOKEN] * args.image_tokens_a_side**2
        rows.append([1, *shown, *text])
        images.append(image)
    ends = rng.choice(np.arange(FIRST_TEXT, args.vocab), int(args.ends * args.vocab), replace=False)
    return Questions(rows, images, tuple(sorted(ends.tolist())))


def our_audit(args: argparse.Namespace, folder: Path, questions: Questions) -> Ask:
    """What job `evaluate` does, from tokens and image files on."""
    import jax

    from tga_jax.inference.generate import Decoding
    from tga_jax.inference.refill import Group, Refill

    model, params = load_ours(args, folder)
    batcher, encode = make_batcher(args, folder, questions)
    group = max(1, args.batch // 4)
    refill = Refill(
        model,
        Decoding(args.new_tokens, questions.ends, PAD),
        rows=args.batch,
        group=group,
        lengths=default_lengths(args),
        apologies=APOLOGIES,
    )
    keys = jax.random.split(jax.random.key(0), group)

    def ask(numbers: Sequence[int]) -> dict[int, list[int]]:
        batches = batcher.alike(
            questions.by_length(numbers), encode, batch_size=group, image_dir=lambda row: folder
        )
        arrays = ((batch.rows, batch.arrays) for batch in batches)
        groups = (Group(rows, x["tokens"], x["segments"], x["images"], keys) for rows, x in arrays)
        answers = (one for new in refill.answers(params, groups) for one in new)
        return {one.name: up_to_end(one.tokens, questions) for one in answers}

    return ask


def our_batches(args: argparse.Namespace, folder: Path, questions: Questions) -> Ask:
    """The same without refilling: whole batches, each until its last answer ends."""
    import jax

    from tga_jax.inference.generate import Decoding, make_generate

    model, params = load_ours(args, folder)
    batcher, encode = make_batcher(args, folder, questions)
    decoding = Decoding(args.new_tokens, questions.ends, PAD)
    generate = make_generate(model, decoding, apologies=APOLOGIES)
    keys = jax.random.split(jax.random.key(0), args.batch)

    def ask(numbers: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for batch in batcher.batches(
            questions.by_length(numbers), encode, batch_size=args.batch, image_dir=lambda r: folder
        ):
            inputs = [batch.arrays[name] for name in ("tokens", "segments", "images")]
            new = np.asarray(generate(params, *inputs, keys)[0])
            found |= {row: up_to_end(new[i], questions) for i, row in enumerate(batch.rows)}
        return found

    return ask


def default_lengths(args: argparse.Namespace) -> tuple[int, ...]:
    """The padded lengths of all prompts that there are."""
    from tga_jax.data.batches import default_buckets

    return default_buckets(args.image_tokens_a_side**2 + args.text_tokens[1] + 1)


def make_batcher(args: argparse.Namespace, folder: Path, questions: Questions) -> tuple[Any, Any]:
    """What reads images and pads prompts, and the function from a number to its example."""
    from PIL import Image

    from tga_jax.data.example import Example
    from tga_jax.data.images import ImageTransform
    from tga_jax.parallel.mesh import make_mesh
    from tga_jax.run.inference_batches import Batcher
    from tga_jax.run.prompts import close_buckets

    for number, image in enumerate(questions.images):
        if image is not None:
            Image.fromarray(image).save(folder / f"{number}.png")
    side = 14 * args.image_tokens_a_side
    transform = ImageTransform(None, (side, side), None, 3, False, CLIP_MEAN, CLIP_STD, 1 / 255)
    mesh, nothing = make_mesh(data=1, fsdp=1, tensor=1), np.zeros(0, np.int32)

    def encode(number: int) -> Example:
        tokens = np.array(questions.rows[number], np.int32)
        names = () if questions.images[number] is None else (f"{number}.png",)
        spans = tuple((1, 1 + args.image_tokens_a_side**2) for _ in names)
        return Example(
            str(number), tokens, tokens, spans, None, nothing, None, names, False, 0
        )  # fmt: skip

    lengths = close_buckets(default_lengths(args)[-1])
    return Batcher(mesh, transform, PAD, lengths, (32,)), encode


def their_audit(args: argparse.Namespace, model: Any, questions: Questions) -> Ask:
    """transformers' `generate` as its documentation has it: padded on the left, default cache."""
    import torch

    pixels = {
        number: ((image / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)).transpose(2, 0, 1)
        for number, image in enumerate(questions.images)
        if image is not None
    }

    @torch.no_grad()
    def answers(numbers: Sequence[int]) -> dict[int, list[int]]:
        rows = [questions.rows[number] for number in numbers]
        longest = max(map(len, rows))
        tokens = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
        shown = [pixels[number] for number in numbers if number in pixels]
        images = {"pixel_values": torch.tensor(np.stack(shown), dtype=model.dtype)} if shown else {}
        new = model.generate(
            input_ids=tokens,
            attention_mask=(tokens != PAD).long(),
            **images,
            do_sample=False,
            max_new_tokens=args.new_tokens,
            eos_token_id=list(questions.ends),
            pad_token_id=PAD,
        )[:, longest:]
        found = zip(numbers, new.numpy(), strict=True)
        return {number: up_to_end(row, questions) for number, row in found}

    def ask(numbers: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        ordered = questions.by_length(numbers)
        for start in range(0, len(ordered), args.batch):
            found |= answers(ordered[start : start + args.batch])
        return found

    return ask


def up_to_end(tokens: np.ndarray, questions: Questions) -> list[int]:
    """An answer with the token that ends it."""
    (ends,) = np.nonzero(np.isin(tokens, questions.ends))
    return [int(token) for token in (tokens[: ends[0] + 1] if len(ends) else tokens)]


@dataclasses.dataclass
class Arm:
    """What an arm answered, and how long it took for each part, by the clock and CPU."""

    answers: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    clock: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def run(self, ask: Ask, numbers: Sequence[int]) -> None:
        clock, cpu = time.perf_counter(), time.process_time()
        self.answers |= ask(numbers)
        self.clock.append(time.perf_counter() - clock)
        self.cpu.append(time.process_time() - cpu)


def compare(args: argparse.Namespace, asks: dict[str, Ask]) -> dict[str, Any]:
    """All arms on all parts, in turn."""
    numbers = np.arange(args.questions)
    parts = [part.tolist() for part in np.array_split(numbers, args.parts)]
    first = {name: Arm() for name in asks}
    arms = {name: Arm() for name in asks}
    for name, ask in asks.items():
        first[name].run(ask, parts[0])
    for part in parts:
        for name, ask in asks.items():
            arms[name].run(ask, part)
    theirs = arms["transformers"]
    lengths = [len(answer) for answer in theirs.answers.values()]
    same = {
        name: f"{sum(arm.answers[i] == theirs.answers[i] for i in arm.answers)} of {len(numbers)}"
        for name, arm in arms.items()
        if arm is not theirs
    }
    result: dict[str, Any] = {
        "processor": f"{processor()}; {machine_kind()}",
        "settings": {key: value for key, value in vars(args).items() if key != "write"},
        "answer_tokens": {
            "median": statistics.median(lengths), "mean": round(statistics.mean(lengths), 1),
            "longest": max(lengths),
        },
        "same_answers": same,
    }  # fmt: skip
    for name, arm in arms.items():
        result[name] = {
            "seconds": round(sum(arm.clock), 2),
            "cpu_seconds": round(sum(arm.cpu), 2),
            "median_seconds_of_a_part": round(statistics.median(arm.clock), 2),
            "seconds_of_the_first_part_before": round(first[name].clock[0], 2),
        }
    ours = arms["tga_jax"]
    result["ratio"] = round(sum(theirs.clock) / sum(ours.clock), 2)
    pairs = zip(theirs.clock, ours.clock, strict=True)
    result["ratios"] = [round(their / our, 2) for their, our in pairs]
    result["cpu_ratio"] = round(sum(theirs.cpu) / sum(ours.cpu), 2)
    return result


if __name__ == "__main__":
    main()
