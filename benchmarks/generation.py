"""Answers a second beside transformers' `generate`: `python -m benchmarks.generation`.

Makes a LLaVA of random weights, reads it into both, and has the same batch of questions answered
in turn: an image and a text of unequal length each, greedy, ends at unequal times (a share of the
vocabulary ends an answer). Prints a JSON object. Tokens are those of the answers up to their end;
the ratio is the median over the repeats of (our tokens a second / theirs), by the clock and by the
process's CPU time, which other work on the machine disturbs less: then take --cores 1, as torch's
threads spin while they wait for each other.

    python -m benchmarks.generation --device gpu --dtype bfloat16     # on a GPU, beside torch's
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guard import write_ratios
from benchmarks.reference import IMAGE_TOKEN, small_llava, their_config
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD

PAD, FIRST_TEXT = 0, 16


def main() -> None:
    args = arguments()
    os.environ["JAX_PLATFORMS"] = "cuda" if args.device == "gpu" else "cpu"
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores :])
    prompts = make_prompts(args)
    with tempfile.TemporaryDirectory() as folder:
        reference = make_reference(args, Path(folder))
        ours = our_answers(args, Path(folder), prompts)
        theirs = their_answers(args, reference, prompts)
        result = compare(args, ours, theirs)
    if args.write:
        higher = {"speed (CPU time) over transformers": result["cpu_ratio"]}
        if args.device == "gpu":
            higher = {"speed over transformers": result["ratio"]}
        write_ratios(args.write, "generation", higher=higher, kind=device_name(args))
    print(json.dumps(result, indent=1))


def device_name(args: argparse.Namespace) -> str:
    """The GPU's, empty for the CPU."""
    import jax

    return jax.devices()[0].device_kind if args.device == "gpu" else ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cores", type=int, default=0, help="0: all")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--ffn", type=int, default=1376)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--image-tokens-a-side", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--text-tokens", type=int, nargs=2, default=(12, 100), metavar="N")
    parser.add_argument("--ends", type=float, default=0.02, help="share of ids that end an answer")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", type=Path, help="leave the ratios in this file for the guard")
    return parser.parse_args()


def make_prompts(args: argparse.Namespace) -> dict[str, Any]:
    """Token ids of every row, images uint8[B, side, side, 3], ids that end an answer."""
    rng = np.random.default_rng(0)
    side = 14 * args.image_tokens_a_side
    low, high = args.text_tokens
    lengths = rng.integers(low, high, args.batch)
    rows = [
        [1, *[IMAGE_TOKEN] * args.image_tokens_a_side**2]
        + rng.integers(FIRST_TEXT, args.vocab, length).tolist()
        for length in lengths
    ]
    images = rng.integers(0, 256, (args.batch, side, side, 3)).astype(np.uint8)
    ends = rng.choice(np.arange(FIRST_TEXT, args.vocab), int(args.ends * args.vocab), replace=False)
    return {"rows": rows, "pictures": images, "ends": sorted(ends.tolist())}


def make_reference(
    args: argparse.Namespace, folder: Path, *, embedding: float = 1.0, **more: Any
) -> Any:
    """transformers' model, saved to the folder in bfloat16 or float32.

    embedding: what the token embeddings are multiplied by: where they are the head too, a model of
    large ones repeats its last token for ever. more: of `small_llava`.
    """
    import torch
    import transformers

    shapes = small_llava(
        layers=args.layers,
        width=args.width,
        ffn=args.ffn,
        heads=args.heads,
        kv_heads=args.kv_heads,
        vocab=args.vocab,
        side=args.image_tokens_a_side,
        **more,
    )
    config = their_config(shapes, initializer_range=0.05)  # else all logits are nearly the same
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with torch.device("cuda" if args.device == "gpu" else "cpu"):
        model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.model.language_model.embed_tokens.weight *= embedding
    model = model.eval().to(getattr(torch, args.dtype))
    model.save_pretrained(folder)
    return model


def load_ours(args: argparse.Namespace, folder: Path) -> tuple[Any, Any]:
    """Our model of the same weights, and its nested parameters."""
    import flax.linen as nn
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    from tga_jax.hf.config import read_llava_config
    from tga_jax.hf.weights import load_weights
    from tga_jax.models.config import Compute
    from tga_jax.models.llava import Llava, PixelNorm

    norm = PixelNorm(CLIP_MEAN, CLIP_STD)
    model = Llava(read_llava_config(folder), norm, Compute(dtype=args.dtype))
    shapes = nn.meta.unbox(model.abstract_params())
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    leaves = {
        path: jax.ShapeDtypeStruct(leaf.shape, args.dtype, sharding=device)
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }
    return model, unflatten_dict(load_weights(folder, leaves, family="llava"), sep="/")


def our_answers(
    args: argparse.Namespace, folder: Path, prompts: dict[str, Any]
) -> Callable[[], np.ndarray]:
    """One batch until its last answer ends: one compiled call."""
    import jax

    from tga_jax.data.batches import default_buckets, pick_bucket
    from tga_jax.inference.generate import Decoding, make_generate

    model, params = load_ours(args, folder)
    longest = max(map(len, prompts["rows"]))
    tokens = np.full((args.batch, pick_bucket(longest, default_buckets(2048))), PAD, np.int32)
    for target, row in zip(tokens, prompts["rows"], strict=True):
        target[: len(row)] = row
    segments = (np.arange(tokens.shape[1]) < [[len(row)] for row in prompts["rows"]]).astype("i4")
    generate = make_generate(model, Decoding(args.new_tokens, tuple(prompts["ends"]), PAD))
    keys = jax.random.split(jax.random.key(0), args.batch)

    def answers() -> np.ndarray:
        return np.asarray(generate(params, tokens, segments, prompts["pictures"][:, None], keys))

    return answers


def their_answers(
    args: argparse.Namespace, model: Any, prompts: dict[str, Any]
) -> Callable[[], np.ndarray]:
    """transformers' `generate` as its documentation has it: padded on the left, default cache."""
    import torch

    longest = max(map(len, prompts["rows"]))
    rows = [[PAD] * (longest - len(row)) + row for row in prompts["rows"]]
    tokens = torch.tensor(rows, device=model.device)
    pixels = (prompts["pictures"] / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    inputs = {
        "input_ids": tokens,
        "attention_mask": (tokens != PAD).long(),
        "pixel_values": torch.tensor(
            pixels.transpose(0, 3, 1, 2), dtype=model.dtype, device=model.device
        ),
    }
    settings = {
        "do_sample": False,
        "max_new_tokens": args.new_tokens,
        "eos_token_id": prompts["ends"],
        "pad_token_id": PAD,
    }

    @torch.no_grad()
    def answers() -> np.ndarray:
        return np.asarray(model.generate(**inputs, **settings)[:, longest:].cpu())

    return answers


@dataclasses.dataclass
class Timed:
    """Seconds of a call by the clock and of the process's CPU time, and what it answered."""

    clock: float
    cpu: float
    answers: np.ndarray

    @classmethod
    def of(cls, run: Callable[[], np.ndarray]) -> Timed:
        """Calls it."""
        clock, cpu = time.perf_counter(), time.process_time()
        answers = run()
        return cls(time.perf_counter() - clock, time.process_time() - cpu, answers)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each answer up to its end, the ending one included: then comes padding."""
        return [int(np.sum(row != PAD)) for row in self.answers]


def summary(first: Timed, repeats: list[Timed]) -> dict[str, Any]:
    """Medians; the first call apart, as it compiles."""
    seconds = statistics.median(timed.clock for timed in repeats)
    return {
        "first_call_seconds": round(first.clock, 2),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(statistics.median(timed.cpu for timed in repeats), 3),
        "tokens_a_second": round(sum(first.lengths) / seconds, 1),
        "answers_a_second": round(len(first.lengths) / seconds, 2),
        "answer_tokens": sorted(first.lengths),
    }


def compare(
    args: argparse.Namespace, ours: Callable[[], np.ndarray], theirs: Callable[[], np.ndarray]
) -> dict[str, Any]:
    """Both in turn; the first call of each is not counted."""
    runs = {"tga_jax": ours, "transformers": theirs}
    firsts = {name: Timed.of(run) for name, run in runs.items()}
    repeats: dict[str, list[Timed]] = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            repeats[name].append(Timed.of(run))
    own, other = (sum(firsts[name].lengths) for name in runs)
    pairs = list(zip(*repeats.values(), strict=True))
    clock = [own / a.clock / (other / b.clock) for a, b in pairs]
    cpu = [own / a.cpu / (other / b.cpu) for a, b in pairs]
    return {
        "settings": {key: value for key, value in vars(args).items() if key != "write"},
        **{name: summary(firsts[name], repeats[name]) for name in runs},
        "same_answers": _same_answers(*(firsts[name].answers for name in runs)),
        "ratio": round(statistics.median(clock), 2),
        "ratios": [round(ratio, 2) for ratio in clock],
        "cpu_ratio": round(statistics.median(cpu), 2),
    }


def _same_answers(ours: np.ndarray, theirs: np.ndarray) -> str:
    width = max(ours.shape[1], theirs.shape[1])
    padded = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=PAD)
              for a in (ours, theirs)]  # fmt: skip
    same = int(np.sum(np.all(padded[0] == padded[1], axis=1)))
    return f"{same} of {len(ours)}"


if __name__ == "__main__":
    main()
