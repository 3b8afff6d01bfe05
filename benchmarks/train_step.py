"""CPU: a whole TGA step beside transformers/torch: `taskset -c 1 python -m benchmarks.train_step`.

A step is forward, guide, caption pass, backward, clipping and Adam's update, on one batch, float32.
The arms (`tga_jax`; of torch those of benchmarks/torch_step.py) start from the same weights and
take turns in one process; ratios are medians over the turns. Before that, losses and first
gradients of all arms are compared, and each arm's peak memory is read in a process of its own
(interpreter, libraries and weights included). Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.guard import write_ratios

ARMS = ("tga_jax", "sdpa", "selected", "release")
RATE = 1e-4
SMALL = {"layers": 2, "width": 64, "ffn": 176, "heads": 4, "vocab": 512, "side": 4, "length": 64}
SMALL |= {"batch": 2, "caption": 16, "vision_width": 32, "turns": 2, "warmup": 1}


def main() -> None:
    args = arguments()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args, Path(args.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        child("make", folder)
        checked = child("check", folder)
        peaks = {arm: child("memory", folder, "--arms", arm) for arm in args.arms}
        result = child("time", folder)
    result |= {"check": checked, "peak_gigabytes": peaks, "settings": settings(args)}
    if "sdpa" in peaks:
        over = {arm: round(peak / peaks["sdpa"], 3) for arm, peak in peaks.items()}
        result["peak_over_sdpa"] = over
    if args.write:
        first = args.arms[0]
        speeds = result[f"cpu_speed_of_{first}_over"]
        higher = {f"speed (CPU time) over {arm}": speeds[arm] for arm in args.arms[1:]}
        over = result.get("peak_over_sdpa", {first: None})
        lower = {} if over[first] is None else {"peak memory over sdpa": over[first]}
        write_ratios(args.write, "train_step", higher=higher, lower=lower)
    print(json.dumps(result, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_sizes(parser)
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    return parse(parser, WORKERS)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Flags of the model, the batch and the turns."""
    numbers = {"layers": 8, "width": 512, "ffn": 1376, "heads": 8, "vocab": 32000, "side": 12}
    numbers |= {"length": 512, "batch": 4, "caption": 64, "vision_width": 256, "vision_layers": 6}
    numbers |= {"turns": 5, "warmup": 1, "ce_chunk": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--small", action="store_true", help="a few seconds, to try it out")


def parse(parser: argparse.ArgumentParser, workers: Collection[str]) -> argparse.Namespace:
    """The command line; --small changes what sizes are where no flag says so.

    Args:
        parser: with the benchmark's own flags; gets those of the guard and of `run_worker`.
        workers: the names that `run_worker` may ask for.
    """
    parser.add_argument("--write", type=Path, help="leave the ratios in this file for the guard")
    parser.add_argument("--worker", choices=workers, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    if "--small" in sys.argv:
        parser.set_defaults(**SMALL)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What was measured, and on how many cores."""
    shown = {
        k: v for k, v in vars(args).items() if k not in ("worker", "folder", "arm", "arms", "write")
    }
    return shown | {"cores": len(os.sched_getaffinity(0))}


def child(worker: str, folder: str, *more: str) -> Any:
    """What a worker in a process of its own prints."""
    return run_worker("benchmarks.train_step", worker, folder, *more)


def run_worker(module: str, worker: str, folder: str, *more: str, **variables: str) -> Any:
    """A benchmark's worker with this command line and `more`; what it prints as JSON last."""
    command = [sys.executable, "-m", module, *sys.argv[1:], *more]
    command += ["--worker", worker, "--folder", folder]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(args: argparse.Namespace, folder: Path) -> None:
    """Write a random model and a batch of rows without padding."""
    import torch
    import transformers

    from benchmarks.reference import small_llava, their_config
    from tga_jax.planning.synthetic import BatchShape, made_up_batch

    shapes = small_llava(
        layers=args.layers,
        width=args.width,
        ffn=args.ffn,
        heads=args.heads,
        kv_heads=args.heads,
        vocab=args.vocab,
        side=args.side,
        vision_width=args.vision_width,
        vision_layers=args.vision_layers,
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(their_config(shapes)).save_pretrained(folder)
    shape = BatchShape(args.batch, 1, args.length, args.caption)
    np.savez(folder / "batch.npz", **made_up_batch(shape, shapes, seed=0))  # type: ignore[arg-type]


def arm(name: str, args: argparse.Namespace, folder: Path) -> Any:
    """An arm: an object with `step() -> loss`."""
    batch = dict(np.load(folder / "batch.npz"))
    if name == "tga_jax":
        from benchmarks.our_step import OurStep, compute_of

        compute = compute_of("float32", args.remat, args.attention)
        return OurStep(folder, batch, compute, learning_rate=RATE, ce_chunk=args.ce_chunk)
    import torch

    from benchmarks.torch_step import TorchStep, read_model

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = {key: value[0] for key, value in batch.items()}
    return TorchStep(read_model(folder, name), rows, name, learning_rate=RATE)


def check(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Losses of three steps and the first gradients (Adam's first moments) of all arms.

    Raises:
        AssertionError: they differ.
    """
    losses: dict[str, list[float]] = {}
    gradients: dict[str, dict[str, np.ndarray]] = {}
    for name in args.arms:
        made = arm(name, args, folder)
        first = made.step()
        gradients[name] = first_moments(made)
        losses[name] = [first, made.step(), made.step()]
        del made
    reference = gradients[args.arms[-1]]
    size = np.sqrt(sum(np.sum(g**2) for g in reference.values()))
    errors = {}
    for name, found in gradients.items():
        assert found.keys() == reference.keys(), found.keys() ^ reference.keys()
        differences = sum(np.sum((found[key] - reference[key]) ** 2) for key in reference)
        errors[name] = float(np.sqrt(differences) / size)
    assert max(errors.values()) < 1e-3, (errors, losses)
    np.testing.assert_allclose(list(losses.values()), [losses[args.arms[-1]]] * len(losses), 1e-4)
    return {"losses": losses, "gradient_error": errors}


def first_moments(made: Any) -> dict[str, np.ndarray]:
    """By canonical tensor name, of an arm that made one step."""
    from tga_jax.hf import names

    if hasattr(made, "first_moments"):
        return {
            names.canonical(name, family="llava") or name: value
            for name, value in made.first_moments().items()
        }
    import optax

    moments = optax.tree.get(made.state.opt_state, "mu")
    out = {}
    for path, array in moments.items():
        array = np.array(array)  # a copy: the next step has the buffer
        for slot in names.slots(path, array.shape):
            part = array if slot.layer is None else array[slot.layer]
            out[slot.name] = names.to_theirs(slot.transform, part)
    return out


def memory(args: argparse.Namespace, folder: Path) -> float:
    """An arm's peak, GB."""
    return peak_of(arm(args.arms[0], args, folder))


def peak_of(made: Any) -> float:
    """The process's peak after three steps, GB."""
    for _ in range(3):
        made.step()
    status = Path("/proc/self/status").read_text()  # getrusage's counts the parent's too
    return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9, 3)


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Seconds by the clock and of CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - clock, time.process_time() - cpu


def times(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All arms in turn; how much faster than each of torch's ours is."""
    made = {name: arm(name, args, folder) for name in args.arms}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for turn in range(args.warmup + args.turns):
        for name, one in made.items():
            seconds = timed(one.step)
            if turn >= args.warmup:
                taken[name].append(seconds)
    first = args.arms[0]
    out: dict[str, Any] = {}
    for index, kind in enumerate(("clock", "cpu")):
        each = {name: [turn[index] for turn in turns] for name, turns in taken.items()}
        medians = {name: round(statistics.median(values), 3) for name, values in each.items()}
        ratios = {
            name: round(statistics.median(np.array(values) / np.array(each[first])), 3)
            for name, values in each.items()
        }
        out |= {f"{kind}_seconds": medians, f"{kind}_speed_of_{first}_over": ratios}
    return out


WORKERS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
    "make": make,
    "check": check,
    "memory": memory,
    "time": times,
}

if __name__ == "__main__":
    main()
