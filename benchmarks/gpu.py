"""A whole TGA step on a GPU beside transformers/torch: `python -m benchmarks.gpu`.

For each size and mode, all contenders make steps on the same weights and batch, in turn, each in a
process of its own on the same device; medians over the turns, ratios of the same turn. Needed:
jax, torch and transformers; of this project's requirements neither scann nor TensorFlow, clu,
ml_collections or grain. `--size tiny` runs on a CPU too. Prints JSON, and a table to stderr.

MFU: model FLOPs by the exact count (`tga_jax/training/flops.py`: forward 2 a parameter and token,
2 more where a gradient passes, 2 more where it is trained, causal attention halved, nothing
computed again counted), the same for all contenders, over the device's published dense bfloat16
peak (`peak_flops` in the output). Tokens are those of the main rows, not the captions.
`--apart`: one contender after the other, where they do not fit on the device together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_arm import TABLES, Settings
from benchmarks.guard import write_ratios

MODES = tuple(TABLES)
DEFAULTS = {
    "tiny": {"batch": 2, "length": 64, "caption": 16},
    "1b": {"batch": 8, "length": 1216, "caption": 64},
    "7b": {"batch": 4, "length": 1216, "caption": 64},
}


def main() -> None:
    args = arguments()
    results = []
    for size in args.size:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            modes = args.mode or [m for m in MODES if (size, m) != ("7b", "full")]
            for mode in modes:
                results.append(measured(args, size, mode, Path(folder)))
                print(table(results[-1]), file=sys.stderr, flush=True)
    if args.write:
        higher = {
            f"{result['size']} {result['mode']}: speed over {arm}": ratio
            for result in results
            for arm, ratio in result["speed_of_tga_jax_over"].items()
        }
        kind = next((r["device"] for r in results if "device" in r), "")
        write_ratios(args.write, "gpu", higher=higher, kind="" if kind == "cpu" else kind)
    print(json.dumps(results, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--size", type=words, default=["1b", "7b"], help="tiny, 1b, 7b")
    parser.add_argument("--mode", type=words, help=f"{', '.join(MODES)}; default: what fits")
    parser.add_argument("--arms", type=words, default=["tga_jax", "torch"], help="see gpu_arm.py")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    for name in ("batch", "length", "caption"):
        parser.add_argument(f"--{name}", type=int, help="default: the size's")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--ce-chunk", type=int, default=0)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--folder", help="where the weights may lie while it runs")
    parser.add_argument("--write", type=Path, help="leave the ratios in this file for the guard")
    args = parser.parse_args()
    if not set(args.size) <= set(DEFAULTS) or not set(args.mode or MODES) <= set(MODES):
        parser.error(f"sizes are {', '.join(DEFAULTS)}, modes {', '.join(MODES)}")
    if args.warmup < 1:
        parser.error("--warmup: the first step is always slow; 1 or more")
    return args


def tiny() -> Any:
    """A LLaVA for CPUs, with grouped queries."""
    from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

    vision = VisionConfig(image_size=56, patch_size=14, width=32, layers=3, heads=4, ffn=64)
    decoder = DecoderConfig(
        vocab=512, width=64, layers=3, heads=4, kv_heads=2, head_dim=16, ffn=176
    )
    return LlavaConfig(vision, decoder, image_token=5)


def published(name: str) -> Any:
    """A known model's shapes."""
    from tga_jax.planning.architectures import MODELS

    return MODELS[name]


SHAPES: dict[str, Callable[[], Any]] = {
    "tiny": tiny,
    "1b": lambda: published("llava_tinyllama_1.1b"),
    "7b": lambda: published("llava_1.5_7b"),
}


class Arm:
    """A contender's process."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        text = json.dumps(dataclasses.asdict(settings))
        command = [sys.executable, "-m", "benchmarks.gpu_arm", name, text, str(folder)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
        self.steps: list[dict[str, float]] = []
        self.described: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self.failed = False

    def start(self) -> None:
        """Wait until it is compiled or loaded."""
        self.described = self._answer()

    def ask(self, word: str) -> None:
        """ "step" or "report"; one that has died stays away."""
        if self.failed:
            return
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self.failed = True
            return
        answer = self._answer()
        if word == "report":
            self.report = answer
        elif answer:
            self.steps.append(answer)

    def end(self) -> None:
        """Let it go, and its memory with it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.failed = not line  # its last words are on stderr
        return json.loads(line) if line else {}


def make_input(settings: Settings, size: str, shape: dict[str, int], folder: Path) -> None:
    """Write weights and a batch, in a process of its own."""
    (folder / "shape.json").write_text(json.dumps({"size": size} | shape))
    text = json.dumps(dataclasses.asdict(settings))
    command = [sys.executable, "-m", "benchmarks.gpu_arm", "make", text, str(folder)]
    subprocess.run(command, check=True)


def measured(args: argparse.Namespace, size: str, mode: str, folder: Path) -> dict[str, Any]:
    """All contenders of one size and mode."""
    settings = Settings(mode, args.dtype, args.device, args.remat, args.attention, args.ce_chunk)
    shape = {k: getattr(args, k) or default for k, default in DEFAULTS[size].items()}
    if not (folder / "batch.npz").exists():
        make_input(settings, size, shape, folder)
    done: dict[str, Arm] = {}
    for group in [[name] for name in args.arms] if args.apart else [args.arms]:
        arms = {name: Arm(name, settings, folder) for name in group}
        for arm in arms.values():
            arm.start()
        for _ in range(args.warmup + args.turns):
            for arm in arms.values():
                arm.ask("step")
        for arm in arms.values():
            arm.ask("report")
            arm.end()
        done |= arms
    head = {"size": size, "mode": mode, **shape, **dataclasses.asdict(settings)}
    head |= {"apart": args.apart, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
    return head | summary(done, args.warmup, shape["batch"] * shape["length"])


def summary(arms: dict[str, Arm], warmup: int, tokens: int) -> dict[str, Any]:
    """Figures of every contender, and how much faster ours is."""
    known = arms["tga_jax"].described if "tga_jax" in arms else {}
    flops, peak = known.get("model_flops"), known.get("peak_flops")
    out: dict[str, Any] = {"arms": {}, "speed_of_tga_jax_over": {}, **known}
    first: list[float] = []
    for name, arm in arms.items():
        if arm.failed or not arm.steps:
            out["arms"][name] = {"failed": "ended early: out of memory? see stderr"}
            continue
        seconds = [step["seconds"] for step in arm.steps[warmup:]]
        median = statistics.median(seconds)
        out["arms"][name] = {
            "step_seconds": median,
            "step_seconds_min": min(seconds),
            "step_seconds_max": max(seconds),
            "tokens_per_second": tokens / median,
            "mfu": flops / median / peak if flops and peak else None,
            "losses": [step["loss"] for step in arm.steps[:3]],
            **arm.report,
        }
        if name == "tga_jax":
            first = seconds
        elif first:
            ratios = [b / a for a, b in zip(first, seconds, strict=True)]
            out["speed_of_tga_jax_over"][name] = round(statistics.median(ratios), 3)
    losses = [arm["losses"] for arm in out["arms"].values() if "losses" in arm]
    gaps = [abs(a / b - 1) for one in losses for a, b in zip(one, losses[0], strict=True)]
    out["largest_relative_difference_of_losses"] = max(gaps, default=None)
    return out


def table(result: dict[str, Any]) -> str:
    """A few lines for the person who watches."""
    names = ("size", "mode", "dtype", "batch", "length", "device", "peak_flops")
    lines = [", ".join(f"{name} {result.get(name)}" for name in names)]
    for name, arm in result["arms"].items():
        if "failed" in arm:
            lines.append(f"  {name:20} {arm['failed']}")
            continue
        mfu = "-" if arm["mfu"] is None else f"{arm['mfu']:.1%}"
        lines.append(
            f"  {name:20} {arm['step_seconds']:.4f} s, {arm['tokens_per_second']:.0f} tokens/s, "
            f"MFU {mfu}, peak {arm['peak_bytes'] / 1e9:.2f} GB, loss {arm['losses'][0]:.5f}"
        )
    lines.append(f"  ours over: {result['speed_of_tga_jax_over']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
